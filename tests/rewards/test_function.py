"""Python functions as rewards."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nabla.core.costs import Account, CostMeter
from nabla.core.errors import ConfigError, NumericalError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.engine.engine import Engine
from nabla.models.runner import Runner
from nabla.objectives.weighted_sum import WeightedSum
from nabla.rewards.base import RelaxedResponse, Response
from nabla.rewards.function import FunctionReward
from tests import tiny
from tests.tiny import END, ids, tokenizer


def response(text: str, prompt: Prompt | None = None) -> Response:
    account = Account("p", CostMeter(), "reward")
    return Response(prompt or Prompt.of("1+2="), ids(tokenizer(), text), account)


def bound(function: Any) -> FunctionReward:
    reward = FunctionReward(function)
    return reward.bind(tiny.causal_lm().vocabulary)


def test_it_gets_the_question_and_the_decoded_answer() -> None:
    heard = []

    def length(prompt: str, answer: str) -> int:
        heard.append((prompt, answer))
        return len(answer)

    reward = bound(length)
    prompt = Prompt.of("1+1=", system="use +")
    assert tiny.rewards_of(reward, [response("3; 4" + END, prompt), response(END)], Runner()) == [4.0, 0.0]
    assert heard == [("1+1=", "3; 4"), ("1+2=", "")]


@pytest.mark.parametrize("value", [True, torch.tensor(2.5), "1.5"])
def test_what_is_a_number(value: Any) -> None:
    assert tiny.rewards_of(bound(lambda p, r: value), [response("1")], Runner()) == [float(value)]


def test_a_function_that_fails() -> None:
    def broken(prompt: str, answer: str) -> float:
        raise KeyError("no such thing")

    with pytest.raises(ConfigError, match=r"failed: KeyError\('no such thing'\)") as caught:
        tiny.rewards_of(bound(broken), [response("1")], Runner())
    assert "broken" in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(ConfigError, match="failed"):
        tiny.rewards_of(bound(lambda p, r: None), [response("1")], Runner())


def test_no_callable_and_no_binding() -> None:
    with pytest.raises((ConfigError, TypeError), match=r"callable|Callable"):  # or the type checker
        FunctionReward(3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="not bound"):
        tiny.rewards_of(FunctionReward(lambda p, r: 1.0), [response("1")], Runner())


def test_it_has_no_gradient() -> None:
    reward = bound(lambda p, r: 1.0)
    assert not reward.differentiable
    assert reward.channels() == ()
    with pytest.raises(ConfigError, match="FunctionReward is not differentiable"):
        reward.relaxed([RelaxedResponse(response("1"), 0)], Runner())
    engine = Engine(tiny.causal_lm(), FunctionReward(lambda p, r: 1.0))
    prompt = Prompt.of("1+2=")

    async def method(session: Any) -> Any:
        (trajectory,) = await session.rollout(Sampling(max_new_tokens=3))
        return await session.gradient(trajectory, WeightedSum({"reward": 1.0}))

    with pytest.raises(ConfigError, match="differentiable"):
        tiny.drive(engine, prompt, method)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_errors(value: float) -> None:
    engine = Engine(tiny.causal_lm(), FunctionReward(lambda p, r: value))

    async def method(session: Any) -> Any:
        return await session.score(await session.rollout(Sampling(max_new_tokens=3)))

    with pytest.raises(NumericalError, match="NaN or infinite"):
        tiny.drive(engine, Prompt.of("1+2="), method)


def test_a_function_that_ends_the_program_ends_no_run() -> None:
    def leave(prompt: str, answer: str) -> float:
        raise SystemExit(0)

    with pytest.raises(ConfigError, match=r"failed: SystemExit\(0\)"):
        tiny.rewards_of(bound(leave), [response("1")], Runner())


def test_a_function_that_never_returns_is_named() -> None:
    def endless(prompt: str, answer: str) -> float:
        while True:
            pass

    reward = FunctionReward(endless, seconds=0.1).bind(tiny.causal_lm().vocabulary)
    with pytest.raises(ConfigError, match=r"within 0.1 seconds .*endless.*seconds=\.\.\."):
        tiny.rewards_of(reward, [response("1")], Runner())
    assert FunctionReward(endless, seconds=None).seconds is None
    with pytest.raises(ConfigError, match="seconds"):
        FunctionReward(endless, seconds=0.0)
