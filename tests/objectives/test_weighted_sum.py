"""Weighted sums: additivity, names, schedules."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nabla.core.errors import ConfigError
from nabla.objectives.base import LogitObjective, Objective
from nabla.objectives.entropy import Entropy
from nabla.objectives.kl import KL
from nabla.objectives.likelihood import Likelihood
from nabla.objectives.reward import RewardObjective
from nabla.objectives.weighted_sum import WeightedSum
from nabla.schedulers.base import Constant, Step
from nabla.schedulers.linear import Linear
from tests.strategies import make_logits

weights = st.floats(-10, 10)


def total(objective: Objective, z, reference, step=None):
    """What refinement minimises, for objectives of logit terms."""
    return sum(t.weight(step or Step()) * t.objective.value(z, reference) for t in objective.terms())


def names(objective: Objective):
    return [term.name for term in objective.terms()]


def test_the_default_is_equation_2_with_the_official_weights():
    terms = WeightedSum().terms()
    assert [(t.name, t.weight(Step())) for t in terms] == [("reward", 1.0), ("likelihood", 1e-3)]
    assert [type(t.objective) for t in terms] == [RewardObjective, Likelihood]


def test_a_plain_objective_is_one_term_of_weight_1():
    kl = KL()
    (term,) = kl.terms()
    assert (term.name, term.objective, term.weight(Step())) == ("kl", kl, 1.0)

    class Mine(LogitObjective):
        unit = "nats"

        def value(self, logits, reference):
            return logits.sum()

    assert names(Mine()) == ["Mine"]


@given(weights, weights, st.integers(0, 2**31))
def test_additivity(a, b, seed):
    z = make_logits("normal", 2, 5, seed, torch.float64, True)
    reference = z.roll(1, 0).masked_fill(z == -torch.inf, -torch.inf)
    reference = torch.where((z > -torch.inf) & (reference == -torch.inf), z, reference)
    expected = a * KL().value(z, reference) + b * Entropy().value(z, reference)
    torch.testing.assert_close(total(WeightedSum({"kl": a, "entropy": b}), z, reference), expected)
    nested = WeightedSum(
        {"all": 2.0, "kl": b}, parts={"all": {"name": "sum", "weights": {"kl": a, "entropy": b}}}
    )
    expected = 2 * expected + b * KL().value(z, reference)
    torch.testing.assert_close(total(nested, z, reference), expected)


def test_nested_names_and_weights():
    inner = WeightedSum({"kl": 3.0, "entropy": -1.0})
    outer = WeightedSum({"regulariser": 2.0, "kl": 0.5}, parts={"regulariser": inner})
    top = WeightedSum({"all": 10.0}, parts={"all": outer})
    found = {t.name: t.weight(Step()) for t in top.terms()}
    assert found == {"all.regulariser.kl": 60.0, "all.regulariser.entropy": -20.0, "all.kl": 5.0}


def test_a_name_may_stand_for_anything():
    prefix = WeightedSum(
        {"prefix": 1.0, "likelihood": 1.0}, {"prefix": {"name": "likelihood", "detach_context": True}}
    )
    assert names(prefix) == ["prefix", "likelihood"]
    assert [t.objective.detach_context for t in prefix.terms()] == [True, False]


def test_scheduled_weights_multiply():
    inner = WeightedSum({"kl": Linear(1.0, 3.0)})
    outer = WeightedSum({"part": {"name": "linear", "start": 1.0, "end": 0.0}}, parts={"part": inner})
    (term,) = outer.terms()
    assert [term.weight(Step(i, 3)) for i in range(3)] == [1.0, 1.0, 0.0]


def test_a_term_of_zero_weight_is_inactive():
    terms = WeightedSum(
        {"kl": 0.0, "entropy": 1.0, "likelihood": Linear(0.0, 0.0), "reward": Linear(0.0, 1.0)}
    ).terms()
    assert {t.name: t.active for t in terms} == {
        "kl": False,
        "entropy": True,
        "likelihood": False,
        "reward": True,  # zero at the first step alone
    }
    outer = WeightedSum({"off": 0.0}, parts={"off": WeightedSum({"kl": 1.0})})
    assert [t.active for t in outer.terms()] == [False]


def test_the_settings_are_not_changed():
    given_weights, given_parts = {"a": 1.0}, {"a": KL()}
    WeightedSum(given_weights, given_parts)
    assert list(given_weights) == list(given_parts) == ["a"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({},), "at least one term"),
        (({"kl": 1.0}, {"kl ": "kl"}), r"parts without a weight \(got \['kl '\]\)"),
        (({"kll": 1.0},), "Did you mean 'kl'"),
        (({"kl": float("nan")},), "finite"),
        (({"kl": {"name": "cubic"}},), "Unknown component in schedulers"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(ConfigError, match=message):
        WeightedSum(*arguments)


def test_weights_may_be_schedules():
    (term,) = WeightedSum({"kl": Constant(0.1)}).terms()
    assert term.weight(Step()) == 0.1
