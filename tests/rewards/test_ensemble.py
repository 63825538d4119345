"""Several rewards as one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from nabla.core.costs import Account, CostMeter
from nabla.core.errors import ConfigError
from nabla.core.prompt import Prompt
from nabla.engine.engine import Engine
from nabla.models.runner import Runner
from nabla.rewards.base import Reading, RelaxedResponse, Response
from nabla.rewards.ensemble import EnsembleReward
from nabla.rewards.function import FunctionReward
from nabla.rewards.likelihood import LikelihoodReward
from nabla.rewards.outcome import OutcomeReward
from nabla.testing import check_reward
from nabla.testing.tiny import char_tokenizer, tiny_process_reward, tiny_reward
from tests import tiny
from tests.tiny import END, ids, tokenizer


def members() -> list[Any]:
    return [
        tiny.outcome("qwen2"),
        tiny.process("llama", tokenizer(permute=1), arguments={"aggregation": "sum"}),
        EnsembleReward([tiny.outcome("gpt2", seed=3), tiny.outcome("gpt2", seed=4)], [2.0, 1.0]),
    ]


def responses() -> list[Response]:
    return [
        Response(Prompt.of("1+2="), ids(tokenizer(), text), Account(text, CostMeter(), "reward"))
        for text in ("3", "1; 2+3" + END)
    ]


@pytest.mark.parametrize("weights", [None, [0.5, -0.25, 2.0]])
def test_values_and_gradients_are_weighted_sums(weights: list[float] | None) -> None:
    lm = tiny.causal_lm()
    ensemble = EnsembleReward(members(), weights)
    ensemble = ensemble.bind(lm.vocabulary)
    assert ensemble.differentiable
    shares = weights or [1 / 3] * 3
    alone = [member.bind(lm.vocabulary) for member in members()]
    values = [tiny.rewards_of(member, responses(), Runner()) for member in alone]
    expected = [sum(w * v[i] for w, v in zip(shares, values, strict=True)) for i in range(2)]
    assert tiny.rewards_of(ensemble, responses(), Runner()) == pytest.approx(expected)
    relaxed = ensemble.relaxed([RelaxedResponse(r, 0) for r in responses()], Runner())
    assert [float(r.value.detach()) for r in relaxed] == pytest.approx(expected)
    parts = [m.relaxed([RelaxedResponse(r, 0) for r in responses()], Runner()) for m in alone]
    for row, item in enumerate(relaxed):
        assert len(item.leaves) == len(ensemble.channels()) == 4
        assert len(item.passes) == 4
        found = torch.autograd.grad(item.value, item.leaves, retain_graph=True)
        reference = [
            w * g
            for w, part in zip(shares, parts, strict=True)
            for g in torch.autograd.grad(part[row].value, part[row].leaves, retain_graph=True)
        ]
        for value, other in zip(found, reference, strict=True):
            assert torch.allclose(value, other, rtol=1e-10, atol=1e-12)


def test_a_member_without_gradient() -> None:
    ensemble = EnsembleReward([tiny.outcome(), FunctionReward(lambda p, r: float(len(r)))], [1.0, 0.1])
    ensemble = ensemble.bind(tiny.causal_lm().vocabulary)
    assert not ensemble.differentiable
    plain = tiny.outcome()
    plain = plain.bind(tiny.causal_lm().vocabulary)
    lengths = [1, 6]
    values = tiny.rewards_of(plain, responses(), Runner())
    expected = [v + 0.1 * n for v, n in zip(values, lengths, strict=True)]
    assert tiny.rewards_of(ensemble, responses(), Runner()) == pytest.approx(expected)
    with pytest.raises(ConfigError, match="not differentiable"):
        ensemble.relaxed([RelaxedResponse(responses()[0], 0)], Runner())


def test_members_forbid_what_any_of_them_lacks() -> None:
    lm = tiny.causal_lm()
    reward = EnsembleReward(
        [tiny.outcome("llama", tokenizer(missing=(t,)), arguments={"minimum_coverage": 0.9}) for t in "45"]
    )
    own = Engine(lm, reward).lm
    assert own.head.blocked is not None
    assert [tiny.TOKENS[i] for i in own.head.blocked.nonzero()[:, 0]] == ["4", "5"]
    assert lm.head.blocked is None  # the model itself may serve another engine


def test_wrong_settings() -> None:
    with pytest.raises(ConfigError, match="at least one member"):
        EnsembleReward([])
    with pytest.raises(ConfigError, match="needs as many weights"):
        EnsembleReward([tiny.outcome()], [1.0, 2.0])


def test_values_are_weighted_where_all_members_have_one() -> None:
    lm = tiny.causal_lm()
    lines = tiny.process("llama", tokenizer(permute=1), arguments={"step_separators": [";"]})
    parts: list[Any] = [tiny.outcome("qwen2"), lines]
    ensemble = EnsembleReward(parts, [0.5, 2.0]).bind(lm.vocabulary)
    assert ensemble.has_values
    assert not ensemble.reads_every_token
    texts = [Reading(r, known) for r, known in zip(responses(), (0, 2), strict=True)]
    found = ensemble.values(texts, Runner())
    one, other = (part.bind(lm.vocabulary).values(texts, Runner()) for part in parts)
    for row, first, second in zip(found, one, other, strict=True):
        expected = [0.5 * a + 2.0 * b for a, b in zip(first, second, strict=True)]
        assert row == pytest.approx(expected, nan_ok=True)
    assert any(math.isnan(value) for value in found[1])
    assert not all(math.isnan(value) for value in found[1])


def test_without_values_of_a_member_there_are_none() -> None:
    reward = EnsembleReward([tiny.outcome("qwen2"), FunctionReward(lambda _, __: 1.0)])
    assert not reward.has_values


def test_a_member_may_be_the_likelihood_of_who_writes() -> None:
    lm = tiny.causal_lm()
    reward = EnsembleReward([LikelihoodReward(), tiny.outcome("qwen2")])
    engine = Engine(lm, reward)
    assert engine.reward is not None
    assert [type(member) for member in engine.reward.members] == [LikelihoodReward, OutcomeReward]  # type: ignore[attr-defined]
    assert engine.reward.of_policy([-1.0]) is None
    only = EnsembleReward([LikelihoodReward()], [2.0]).written_by(lm).bind(lm.vocabulary)
    assert only.of_policy([math.log(0.75)]) == pytest.approx([2 * math.log(3)])


def test_laws() -> None:
    tokens = char_tokenizer("abcd")
    parts = [tiny_process_reward(tokens, step_separators=["b"]), tiny_reward(tokens)]
    check_reward(EnsembleReward(parts, [1.0, 0.5]), max_examples=10)
