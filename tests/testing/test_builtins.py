"""Every registered component keeps the laws of its slot; new ones are covered as they are registered."""

from __future__ import annotations

import pytest
import torch

from nabla.acceptance.base import acceptances
from nabla.core.errors import ConfigError
from nabla.core.prompt import Prompt
from nabla.estimators.anchors.base import anchors
from nabla.moves.base import moves
from nabla.objectives.base import objectives
from nabla.proposals.base import proposals
from nabla.refinement.parameterizations.base import parameterizations
from nabla.refinement.rows.base import rows
from nabla.rewards.base import rewards
from nabla.rewards.ensemble import EnsembleReward
from nabla.rewards.function import FunctionReward
from nabla.rewards.likelihood import LikelihoodReward
from nabla.rewards.noisy import NoisyReward
from nabla.rollouts.boundaries.base import boundaries
from nabla.schedulers.base import schedulers
from nabla.screens.base import screens
from nabla.selectors.base import selectors
from nabla.testing import (
    TinyLM,
    TinyProcessReward,
    TinyReward,
    char_tokenizer,
    check_objective,
    check_reward,
    check_schedule,
    parametrize_with_checks,
)
from nabla.testing.tiny import ARCHITECTURES, tiny_trajectory

#: Arguments of components that cannot be built without.
ARGUMENTS = {
    "and": {"parts": ["entropy", {"name": "random", "probability": 0.5}]},
    "or": {"parts": ["confidence", "gradient-norm"]},
    "not": {"selector": "entropy"},
    "constant": {"value": 0.3},
    "linear": {"start": 1.0, "end": 0.2},
    "quantile": {"level": 0.5},
    "token": {"tokens": ["\n", ";"]},
    "length": {"tokens": 3},
}
#: The same where two slots share a name.
ARGUMENTS_IN = {
    ("moves", "sum"): {
        "parts": ["policy", {"name": "change-point", "surprise": 0.5}],
        "weights": [1.0, 0.5],
    },
}


def every(*registries):
    return [
        registry.build({"name": name, **ARGUMENTS_IN.get((registry.slot, name), ARGUMENTS.get(name, {}))})
        for registry in registries
        for name in registry
        if registry[name].__module__.startswith("nabla.")
    ]


PARTS = every(
    objectives, selectors, proposals, acceptances, schedulers, anchors, screens, moves,
    boundaries, rows, parameterizations,
)  # fmt: skip


@parametrize_with_checks(PARTS)
def test_built_in_components(component, check):
    check(component)


def kl(p, q):
    return (p * (p / q).log()).sum()


@pytest.mark.parametrize(
    ("name", "closed_form"),
    [
        ("kl", kl),
        ("reverse-kl", lambda p, q: kl(q, p)),
        ("entropy", lambda p, q: (p * p.log()).sum()),
    ],
)
def test_logit_terms_are_their_closed_forms(name, closed_form):
    law = ["the value is the given closed form"]
    check_objective(objectives.build(name), closed_form=closed_form, laws=law)


@pytest.mark.parametrize(
    ("spec", "start", "end"),
    [
        ({"name": "constant", "value": -2.5}, -2.5, -2.5),
        ({"name": "linear", "start": 1.0, "end": -3.0}, 1.0, -3.0),
        ({"name": "cosine"}, 0.01, 0.001),
        ({"name": "cosine", "start": 2.0, "end": 3.0, "warmup": 3}, 0.5, None),
    ],
)
def test_schedules_reach_their_ends(spec, start, end):
    check_schedule(schedulers.build(spec), start=start, end=end)


# -- rewards and models ----------------------------------------------------------------------------


def longest(prompt: str, response: str) -> float:
    return float(len(response))


REWARDS = {
    "outcome": lambda tok: TinyReward(tok),
    "process": lambda tok: TinyProcessReward(tok, aggregation="sum"),
    "likelihood": lambda tok: LikelihoodReward(TinyLM(tok)),
    "function": lambda tok: FunctionReward(longest),
    "ensemble": lambda tok: EnsembleReward([TinyReward(tok), TinyReward(tok, seed=3)], [0.3, -1.0]),
    "noisy": lambda tok: NoisyReward(TinyProcessReward(tok), 0.7, persistence=0.5, outcome=True),
}


def test_every_reward_is_checked():
    assert set(REWARDS) == {n for n in rewards if rewards[n].__module__.startswith("nabla.")}


@pytest.mark.parametrize("name", REWARDS)
def test_rewards(name):
    check_reward(REWARDS[name](char_tokenizer("abcd")), max_examples=15)


@pytest.mark.parametrize("aggregation", ["mean", "min", "last"])
def test_process_rewards(aggregation):
    tokenizer = char_tokenizer("abc;")
    reward = TinyProcessReward(tokenizer, aggregation=aggregation, step_separators=[";"])
    check_reward(reward, TinyLM(tokenizer), max_examples=8)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tiny_models_of_every_architecture(architecture):
    tokenizer = char_tokenizer("abcd")
    lm = TinyLM(tokenizer, architecture=architecture)
    assert lm.body.dtype == torch.float64
    again = TinyLM(tokenizer, architecture=architecture)
    for a, b in zip(lm.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)
    prompt = Prompt.of("ab")
    assert len(tiny_trajectory(lm, prompt, torch.tensor([4, 5, 6]))) == 3
    laws = ["the value at one-hot rows is the score"]
    laws += ["the gradient is the slope"] if ARCHITECTURES[architecture].exact else []
    laws = [law.replace("one-hot", "one hot") for law in laws]
    for make, kind in ((TinyReward, "outcome"), (TinyProcessReward, "process")):
        if getattr(ARCHITECTURES[architecture], kind) is None:
            with pytest.raises(ConfigError, match=f"no {kind} model.*{architecture}.*gpt-neox"):
                make(tokenizer, architecture=architecture)
        else:
            check_reward(make(tokenizer, architecture=architecture), lm, laws=laws, max_examples=7)


def test_an_unknown_architecture():
    with pytest.raises(ConfigError, match=r"Unknown architecture.*gpt-neox"):
        TinyLM(architecture="qwen9")
