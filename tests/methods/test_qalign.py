"""QAlign's chain against enumeration: it leaves its target, and its mutants do not (SPEC section 15)."""

from __future__ import annotations

import pytest

from nabla.core.errors import ConfigError
from nabla.methods.searches.qalign import QAlign
from tests import chains, running


@pytest.fixture(scope="module")
def chain() -> chains.Chain:
    return chains.qalign()


def test_the_chain_leaves_its_target_and_its_mutants_do_not(chain):
    chains.assert_leaves_its_target(chain)


@pytest.mark.timeout(900)
def test_production_steps_follow_the_chain_and_no_mutant(chain):
    chains.assert_steps_follow(chain)


@pytest.mark.timeout(900)
def test_from_the_model_two_hundred_steps_reach_the_target_and_an_idle_chain_does_not():
    # With so much weight that the model's own texts are far from the target: eighty chains tell it.
    chains.assert_reaches_its_target(chains.qalign(weight=3.0))


def test_answers_and_costs_do_not_depend_on_what_else_runs():
    running.assert_same_alone_and_together(QAlign(steps=4, sampling=running.SAMPLING))


def test_it_goes_on_to_a_budget():
    running.assert_anytime(QAlign(steps=2, sampling=running.SAMPLING), (60.0, 150.0))


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="beta"):
        QAlign(beta=0.0)
    with pytest.raises(ConfigError, match="steps"):
        QAlign(steps=0)
