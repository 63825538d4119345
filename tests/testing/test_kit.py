"""The kit itself: messages, reproduction, pytest integration, bad input."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import unittest
from math import inf, nan

import pytest
import torch
from hypothesis import given, settings

import nabla.testing
from nabla.core.errors import ConfigError, NablaError
from nabla.core.trajectory import Trajectory
from nabla.estimators.base import Estimator
from nabla.estimators.soft import SoftEmbedding
from nabla.objectives.kl import KL
from nabla.selectors.entropy import EntropySelector
from nabla.testing import (
    ContractError,
    EstimatorContract,
    RewardContract,
    ScheduleContract,
    TinyReward,
    check_acceptance,
    check_estimator,
    check_objective,
    check_proposal,
    check_reward,
    check_schedule,
    check_selector,
    laws_of,
    parametrize_with_checks,
    replay,
    strategies,
)
from nabla.testing.inputs import follows, make_logits, make_trajectory, seeded
from nabla.testing.laws import literal
from tests.testing.mutants import MaskedLeak, NaNReward, Positions, ShiftedSoftmax, Softmax, Upcast

# -- reports ---------------------------------------------------------------------------------------


def failure(law="masked candidates get nothing", make=MaskedLeak, **arguments):
    with pytest.raises(ContractError) as caught:
        check_estimator(make(), laws=[law], **arguments)
    return caught.value


def test_a_failure_names_component_and_law_and_shows_the_example():
    error = failure()
    text = str(error)
    assert text.startswith("MaskedLeak breaks the law 'masked candidates get nothing': ")
    assert "a masked candidate has weight 1e-09" in text
    assert error.text in text
    assert "-inf" in error.example["z"]
    assert isinstance(error, NablaError)


def test_the_example_is_shrunk():
    """Two candidates, one of them masked, all else zero: nothing smaller breaks the law."""
    example = failure().example
    z = eval(example["z"], {"torch": torch, "inf": inf, "nan": nan})
    assert tuple(z.shape) == (1, 2)
    assert sorted(z[0].tolist()) == [-inf, 0.0]
    assert example["seed"] == "0"


def test_a_failure_is_reproducible():
    assert failure().example == failure().example
    first, second = failure(seed=1), failure(seed=1)
    assert str(first) == str(second)


def test_the_printed_calls_reproduce_it():
    error = failure()
    names = {"torch": torch, "inf": inf, "nan": nan, "nabla": nabla, "component": MaskedLeak()}
    names |= {"check_estimator": check_estimator, "make_trajectory": make_trajectory}
    assert len(error.reproduce) == 2
    for call in error.reproduce:
        with pytest.raises(ContractError, match="masked candidates get nothing") as caught:
            eval(call, names)
        assert caught.value.example == error.example
    names["component"] = SoftEmbedding()
    for call in error.reproduce:
        eval(call, names)  # a component that is right passes


def test_a_replayed_example_may_be_any():
    z = torch.tensor([[3.0, 1.0]], dtype=torch.float64)
    replay(SoftEmbedding(), "rows are on the simplex", z=z, seed=3)
    with pytest.raises(ContractError, match="rows after adding"):
        replay(ShiftedSoftmax(), "a constant added to a row changes nothing", z=z, seed=3, eighths=80)


def test_an_error_can_be_pickled():
    error = failure()
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert (again.law, again.component, again.example) == (error.law, error.component, error.example)


@given(strategies.trajectories())
@settings(max_examples=20)
def test_literals_are_code(trajectory):
    names = {"torch": torch, "make_trajectory": make_trajectory, "inf": inf, "nan": nan}
    again = eval(literal(trajectory), names)
    assert isinstance(again, Trajectory)
    assert again.tokens.tolist() == trajectory.tokens.tolist()
    assert torch.equal(again.entropy, trajectory.entropy)
    assert (again.committed, again.finished) == (trajectory.committed, trajectory.finished)


# -- arguments -------------------------------------------------------------------------------------


def test_laws_can_be_chosen_and_skipped():
    check_estimator(MaskedLeak(), laws=["shape and dtype are kept"])
    check_estimator(MaskedLeak(), laws=["shape_and_dtype_are_kept"])
    others = {law.name for law in laws_of(Upcast())}
    check_estimator(Upcast(), skip=others)
    with pytest.raises(ConfigError, match=r"Unknown law of estimators.*masked candidates get nothing"):
        check_estimator(MaskedLeak(), laws=["no such law"])
    with pytest.raises(ConfigError, match="Unknown law"):
        check_estimator(MaskedLeak(), skip=["no such law"])
    with pytest.raises(ConfigError, match="max_examples"):
        check_estimator(MaskedLeak(), max_examples=0)


def test_a_class_is_constructed():
    check_schedule(Right, max_examples=5)


class Right(nabla.schedulers.base.Schedule):
    """Always one."""

    def __call__(self, step):
        return 1.0

    @property
    def bounds(self):
        return 1.0, 1.0


# -- pytest ----------------------------------------------------------------------------------------


@parametrize_with_checks([Right, Right()], max_examples=3, skip=["it_keeps_no_state"])
def test_parametrize_with_checks(component, check):
    assert isinstance(component, Right)
    check(component)


def test_parametrize_names_every_test_after_component_and_law():
    ids = [row.id for row in parametrize_with_checks([SoftEmbedding(), Right]).args[1]]
    assert "estimators/soft-embedding (SoftEmbedding): rows are on the simplex" in ids
    assert "Right: values stay within the bounds" in ids
    assert len(set(ids)) == len(ids)


def test_parametrize_reports_a_constructor_that_fails_in_a_test():
    (row,) = parametrize_with_checks([Failing]).args[1]
    component, check = row.values
    with pytest.raises(ContractError, match="it can be constructed"):
        check(component)


def test_parametrize_takes_components_alone():
    with pytest.raises(ConfigError, match="Not a component"):
        parametrize_with_checks([3])


class TestRight(ScheduleContract):
    make = Right
    max_examples = 3


class TestSoftEmbedding(EstimatorContract):
    max_examples = 3
    skip = ("it_keeps_no_state",)

    @staticmethod
    def make():
        return SoftEmbedding(0.5)


class TestTinyReward(RewardContract):
    max_examples = 3
    make = TinyReward


class _Broken(EstimatorContract):
    make = MaskedLeak


def test_a_mixin_fails_skips_and_asks_for_its_component():
    with pytest.raises(ContractError, match="MaskedLeak"):
        _Broken().test_masked_candidates_get_nothing()
    with pytest.raises(unittest.SkipTest, match="not declared"):
        _Broken().test_hard_rows_are_exactly_one_hot()
    with pytest.raises(ConfigError, match="has no 'make'"):
        type("Empty", (EstimatorContract,), {})().test_it_keeps_no_state()


# -- bad input -------------------------------------------------------------------------------------


class Failing(Softmax):
    """A constructor that fails."""

    def __init__(self):
        raise RuntimeError("no such file")


@pytest.mark.parametrize(
    ("check", "wrong"),
    [
        (check_estimator, KL()),
        (check_objective, SoftEmbedding()),
        (check_selector, "entropy"),
        (check_proposal, EntropySelector()),
        (check_acceptance, None),
        (check_schedule, 0.5),
        (check_reward, lambda prompt, response: 0.0),
        (check_estimator, KL),
    ],
)
def test_a_component_of_the_wrong_slot(check, wrong):
    with pytest.raises(ContractError, match=r"breaks the law 'it is an? \w+.*': got"):
        check(wrong)


def test_a_constructor_that_fails():
    with pytest.raises(ContractError) as caught:
        check_estimator(Failing)
    assert caught.value.component == "Failing"
    assert caught.value.law == "it can be constructed"
    assert "RuntimeError: no such file" in str(caught.value)
    with pytest.raises(ContractError, match="missing 1 required"):
        check_estimator(type("Needy", (Softmax,), {"__init__": lambda self, k: None}))


class Summed(Softmax):
    """The wrong shape."""

    def relax(self, logits, *, generator, step, anchor):
        return logits.softmax(-1).sum(-1)


class Listed(Softmax):
    """No tensor at all."""

    def relax(self, logits, *, generator, step, anchor):
        return logits.softmax(-1).tolist()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Summed, r"logits of shape \(1, 1\) gave rows of shape \(1,\)"),
        (Upcast, "logits of torch.float32 gave rows of torch.float64"),
        (Listed, "relax returned a list, not a tensor"),
    ],
)
def test_an_estimator_of_the_wrong_shape_or_dtype(make, words):
    with pytest.raises(
        ContractError, match=f"{make.__name__} breaks the law 'shape and dtype are kept': {words}"
    ):
        check_estimator(make())


def test_a_selector_that_returns_positions():
    law = "Positions breaks the law 'it returns a mask and not positions'"
    with pytest.raises(ContractError, match=f"{law}.*torch.int64.*not positions"):
        check_selector(Positions())


def test_a_reward_that_returns_nan():
    with pytest.raises(
        ContractError, match=r"NaNReward breaks the law 'a score is a finite number': .* is nan"
    ):
        check_reward(NaNReward())


class Raises(Softmax):
    """A bug of another kind."""

    def relax(self, logits, *, generator, step, anchor):
        raise KeyError("temperatur")


def test_an_exception_of_a_component_is_a_broken_law():
    with pytest.raises(
        ContractError, match=r"Raises breaks the law .*it raised KeyError: 'temperatur'"
    ) as caught:
        check_estimator(Raises())
    assert isinstance(caught.value.__cause__, KeyError)


# -- without hypothesis ----------------------------------------------------------------------------

_SCRIPT = """
import sys
sys.modules["hypothesis"] = None
import nabla.testing
from nabla.testing.tiny import TinyLM
TinyLM()
try:
    nabla.testing.check_estimator
except nabla.core.errors.ConfigError as error:
    print(error)
import nabla.estimators.base, nabla.engine.engine
"""


def test_hypothesis_is_optional():
    """The package and the tiny models work without it; the checks say what to install."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "pip install 'nabla-reasoner[testing]'" in done.stdout


def test_an_unknown_name_of_the_package():
    with pytest.raises(AttributeError, match="no attribute 'check_everything'"):
        nabla.testing.check_everything  # noqa: B018
    for name in nabla.testing.__all__:
        assert getattr(nabla.testing, name) is not None


# -- inputs ----------------------------------------------------------------------------------------


@given(strategies.logits(dtypes=(torch.float64, torch.float32, torch.bfloat16)))
def test_logits_have_a_usable_candidate_in_every_row(z):
    assert z.dim() == 2
    assert not bool(torch.isnan(z).any())
    assert bool((z > -inf).any(-1).all())
    assert bool((z < inf).all())


@given(strategies.logits(kinds=("extreme",), masked=True, min_rows=2, min_width=3))
def test_logits_obey_their_arguments(z):
    assert z.shape[0] >= 2
    assert z.shape[1] >= 3
    assert bool(((z == -inf) | (z.abs() > 9_900) | (z.abs() <= 3)).all())


@given(strategies.tokens([3, 5], max_length=4))
def test_tokens(found):
    assert 1 <= len(found) <= 4
    assert set(found) <= {3, 5}


def test_the_chi_square_test_has_its_error_rate():
    """Of 400 right samples at a rate of 0.1, about 40 fail; a law 10 % off is seen."""
    law = torch.tensor([0.5, 0.3, 0.15, 0.0, 0.05])
    source, alarms = seeded(), 0
    for _ in range(400):
        draws = torch.multinomial(law, 500, replacement=True, generator=source)
        alarms += not follows(draws, law, alpha=0.1)
    assert abs(alarms - 40) < 5 * (400 * 0.1 * 0.9) ** 0.5
    draws = torch.multinomial(law, 20_000, replacement=True, generator=source)
    assert follows(draws, law)
    assert not follows(draws, torch.tensor([0.45, 0.33, 0.165, 0.0, 0.055]))
    assert not follows(torch.tensor([3]), law)


def test_made_logits_follow_their_seed():
    first = make_logits("normal", 2, 3, 5, torch.float64, True)
    assert torch.equal(first, make_logits("normal", 2, 3, 5, torch.float64, True))


def test_estimators_are_checked_as_estimators():
    assert all(law.slot == "estimators" for law in laws_of(SoftEmbedding()))
    assert issubclass(Softmax, Estimator)
