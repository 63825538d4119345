"""Who is served when rollouts are written row by row."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nabla.core.costs import Account, CostMeter
from nabla.core.errors import ConfigError
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.engine.engine import Engine
from nabla.engine.requests import Request
from nabla.engine.scheduler import AllKinds, FullestFirst, Live
from nabla.methods.base import Method
from nabla.rewards.function import FunctionReward
from nabla.rollouts.huggingface import HuggingFaceRollout

SAMPLING = Sampling(temperature=0.7, max_new_tokens=48)


def problem(*, writes: bool) -> Live:
    class Wish(Request):
        kind = "rollout" if writes else "score"

    made: Any = object.__new__(Live)
    made.requests, made.answers, made.passed_over = [Wish(Account("p", CostMeter(), "method"))], {}, 0
    made.written = {0: 0} if writes else {}
    return made


def test_decoding_goes_on_until_a_share_waits_and_then_all_are_served() -> None:
    policy = FullestFirst(share=0.5)
    writing = [problem(writes=True) for _ in range(8)]
    assert policy.lacking([], writing, True) == 4
    waiting = [problem(writes=False) for _ in range(3)]
    assert policy.lacking(waiting, writing[:5], True) == 1
    assert policy.lacking([*waiting, problem(writes=False)], writing[:4], True) == 0
    assert policy.lacking(waiting[:1], writing, False) == 0  # until nobody waits
    assert policy.lacking([], writing, False) == 4
    assert policy.lacking(waiting, [], True) == 0
    assert AllKinds().lacking(waiting, writing, True) == 0
    assert AllKinds().lacking([], writing, True) == 1
    assert AllKinds().lacking(waiting, writing, False) == 1  # in turn
    assert AllKinds().lacking(waiting, [], False) == 0


@pytest.mark.parametrize("decoding", [True, False])
def test_neither_side_waits_for_ever(decoding: bool) -> None:
    """However many are on the other side, and although these never come to an end."""
    policy = FullestFirst(patience=5, share=1.0 if decoding else 0.0)
    waiting, writing = [problem(writes=False)], [problem(writes=True) for _ in range(9)]
    served: list[bool] = []
    for _ in range(30):
        write = policy.lacking(waiting, writing, decoding) > 0
        served.append(write)
        for one in waiting:
            one.passed_over = one.passed_over + 1 if write else 0
        for one in writing:
            one.passed_over = 0 if write else one.passed_over + 1
    for side in (True, False):
        gaps = "".join("x" if s is side else "." for s in served).split("x")
        assert max(map(len, gaps)) <= policy.patience + 1


class Rounds(Method):
    """Some problems write more often than others."""

    async def solve(self, session: Any) -> Solution:
        (best,) = await session.score(await session.rollout(SAMPLING))
        for _ in range(len(session.prompt.text) % 3 + 1):
            (best,) = await session.score(await session.extend([best.commit(1)], sampling=SAMPLING))
            (best,) = await session.score(await session.rollout(SAMPLING))
        return self.solution(session, best)


def plain(outcome: Any) -> tuple[Any, ...]:
    usage = outcome.cost.total
    return outcome.tokens, outcome.reward, usage.calls, usage.tokens, usage.flops


@pytest.mark.parametrize("arguments", [
    {"live": 1}, {"live": 2}, {"fullest_first": False}, {"continuous": False}, {"rollout_bytes": 1},
    {"rollout": {"name": "huggingface", "batch_size": 2}},
])
def test_results_and_costs_do_not_depend_on_who_joins_whom(latin_lm, latin_prompts, arguments) -> None:
    reward = FunctionReward(lambda prompt, response: float(len(response)))
    expected = dict(Engine(latin_lm, reward).run(Rounds().solve, latin_prompts))
    found = dict(Engine(latin_lm, reward, **arguments).run(Rounds().solve, latin_prompts))
    assert {p.id: plain(s) for p, s in found.items()} == {p.id: plain(s) for p, s in expected.items()}


def test_one_step_of_many_rows_beats_many_steps(latin_lm, latin_prompts) -> None:
    """Rows join: fewer steps than in batches that run to their end, with the same rows in all."""
    reward = FunctionReward(lambda prompt, response: float(len(response)))
    counts = {}
    for continuous in (True, False):
        engine = Engine(latin_lm, reward, live=3, continuous=continuous)
        list(engine.run(Rounds().solve, latin_prompts))
        counts[continuous] = engine.workspace.runner.occupancy
    assert counts[True].steps <= counts[False].steps
    assert counts[True].rows - counts[True].idle == counts[False].rows - counts[False].idle


class Again(Method):
    """Some problems write several times before they ask for anything else: for them nothing was new."""

    async def solve(self, session: Any) -> Solution:
        for i in range(20):
            (text,) = await session.rollout(Sampling(max_new_tokens=6))
            if torch.rand(1, generator=session.generator("asks", i)) < 0.3:
                await session.score([text])
        (text,) = await session.score([text])
        return self.solution(session, text)


def test_problems_that_write_again_are_not_waited_for_one_by_one(latin_lm, latin_prompts) -> None:
    """Decoding with nearly all problems waiting for the reward would be in batches of a few rows."""
    reward = FunctionReward(lambda prompt, response: float(len(response)))
    found = {}
    for share in (None, 1.0):
        engine = Engine(latin_lm, reward)
        if share is not None:
            engine.scheduler.policy = FullestFirst(share=share)
        outcomes = dict(engine.run(Again().solve, latin_prompts))
        found[share] = engine.workspace.runner.occupancy, {p.id: plain(s) for p, s in outcomes.items()}
    assert found[None][0].steps < 0.75 * found[1.0][0].steps
    assert found[None][1] == found[1.0][1]


def test_a_generate_of_ones_own_is_asked(latin_lm, latin_prompts) -> None:
    asked = []

    class Own(HuggingFaceRollout):
        async def generate(self, openings, resources):
            asked.append(len(openings))
            return await super().generate(openings, resources)

    reward = FunctionReward(lambda prompt, response: 0.0)
    list(Engine(latin_lm, reward, rollout=Own()).run(Rounds().solve, latin_prompts[:2]))
    assert asked[0] == 2


@pytest.mark.parametrize("wrong", [0, -1, True])
def test_wrong_bytes(latin_lm, wrong) -> None:
    with pytest.raises(ConfigError, match="rollout_bytes"):
        Engine(latin_lm, rollout_bytes=wrong)
