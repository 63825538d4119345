"""Every wrong component is caught, by the law that is about its mistake."""

from __future__ import annotations

import pytest

import nabla.testing
from nabla.testing import ContractError, laws_of
from nabla.testing.contracts import KITS
from tests.testing import mutants, mutants_of_problems, mutants_of_runs  # noqa: F401 - they list themselves
from tests.testing.catalogue import MUTANTS

every = pytest.mark.parametrize("name", MUTANTS)


def check(mutant, **arguments):
    function = getattr(nabla.testing, mutant.check)
    function(mutant.make(), **dict(mutant.arguments), **arguments)


@every
def test_a_mutant_is_caught_by_its_law(name):
    mutant = MUTANTS[name]
    with pytest.raises(ContractError) as caught:
        check(mutant, laws=[mutant.law])
    assert caught.value.law == mutant.law
    assert caught.value.component == name
    assert name in str(caught.value)
    assert caught.value.reproduce
    assert "ypothesis" not in caught.value.reason


@every
def test_the_law_is_one_that_the_whole_check_asks(name):
    """A law that does not apply would catch nobody."""
    mutant = MUTANTS[name]
    assert mutant.arguments or mutant.law in {law.name for law in laws_of(mutant.make())}


@pytest.mark.parametrize(
    "name", ["MissingStopGradient", "SwappedKL", "Positions", "NaNReward", "NeverArrives"]
)
def test_the_whole_check_catches_it(name):
    with pytest.raises(ContractError):
        check(MUTANTS[name])


def test_every_law_catches_a_mutant():
    """But for the one that needs an accelerator."""
    caught = {(m.check, m.law) for m in MUTANTS.values()}
    missing = {(k.check_name, law.name) for k in KITS for law in k.laws} - caught
    assert missing == {("check_estimator", "rows stay on the device")}


@pytest.mark.parametrize("kit", KITS, ids=lambda kit: kit.registry.slot)
def test_every_slot_has_mutants(kit):
    assert sum(m.check == kit.check_name for m in MUTANTS.values()) >= 2
    assert len({law.name for law in kit.laws}) == len(kit.laws)
    assert all(law.text for law in kit.laws)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", ["MissingStopGradient", "MaskedLeak", "Band", "AcceptsTies", "NegativeKL"])
def test_another_seed_catches_it_too(name, seed):
    mutant = MUTANTS[name]
    with pytest.raises(ContractError):
        check(mutant, laws=[mutant.law], seed=seed)


def test_what_the_mutants_were_made_of_is_right():
    """The unbroken bases pass, so that it is the mistake that is caught."""
    from tests.testing.mutants import Length, Line, Softmax, Straight, Tilted

    for base in (Softmax, Straight):
        nabla.testing.check_estimator(base())
    nabla.testing.check_acceptance(Tilted())
    nabla.testing.check_schedule(Line(), start=1.0, end=0.0)
    nabla.testing.check_reward(Length())


def test_what_the_wrong_parts_of_a_run_were_made_of_is_right():
    from tests.testing.mutants_of_problems import Digits, EverySecond, Sums
    from tests.testing.mutants_of_runs import Plain, PlainLogits, Pool, Repeats

    nabla.testing.check_method(Pool())
    nabla.testing.check_rollout(Plain(), max_examples=8)
    uniform = ["the key decides", "it writes the language models words"]
    nabla.testing.check_rollout(Repeats(), skip=uniform, max_examples=8)
    nabla.testing.check_parameterization(PlainLogits())
    nabla.testing.check_task(Sums())
    nabla.testing.check_answers(Digits())
    nabla.testing.check_boundary(EverySecond())
