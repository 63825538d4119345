"""A sweep is a composition: its rows come from a part that anybody can write."""

from __future__ import annotations

import pytest
import torch

from nabla.core.errors import ConfigError
from nabla.methods.base import Method, methods
from nabla.methods.controls.random_direction import random_direction
from nabla.methods.controls.revision import revision
from nabla.methods.controls.sharpening import kl_matched_sharpening
from nabla.methods.nabla_reasoner import nabla_reasoner
from nabla.methods.sources import Own, Refined, Row, RowSource, Sharpened
from nabla.methods.sweep import Sweep
from nabla.refinement.directions import RandomDirection
from tests.running import SAMPLING, assert_same_alone_and_together, facts, run, tiny_engine

DTO = {"steps": 3, "learning_rate": 0.5}
COMMON = {"proposal": {"name": "sample", "temperature": 1.5}, "sampling": SAMPLING, "max_rollouts": 4}


@pytest.mark.parametrize(
    ("name", "recipe", "arguments", "rows"),
    [
        ("nabla-reasoner", nabla_reasoner, {"dto": DTO}, lambda: Refined(DTO)),
        ("revision", revision, {}, Own),
        ("random-direction", random_direction, {"dto": DTO}, lambda: Refined(DTO, RandomDirection())),
        ("kl-matched-sharpening", kl_matched_sharpening, {"dto": DTO}, lambda: Sharpened(DTO)),
    ],
)
def test_a_recipe_is_the_sweep_over_its_rows(name, recipe, arguments, rows):
    named = run(tiny_engine(), methods.build({"name": name, **arguments, **COMMON}))
    called = run(tiny_engine(), recipe(**arguments, **COMMON))
    composed = run(tiny_engine(), Sweep(rows(), **COMMON))
    assert facts(named) == facts(called) == facts(composed)
    assert any(s.revisions for s in named)
    assert {s.method for s in (*named, *called)} == {name}
    assert {s.method for s in composed} == {"Sweep"}


class Flatter(RowSource):
    """The language model's own row at twice the temperature."""

    async def row(self, session, trajectory, ahead):
        position = trajectory.committed
        reference = session.reference(trajectory, slice(position, position + 1), ahead=ahead)
        return Row(reference.logits[0] / 2, reference)


def test_rows_of_ones_own():
    def sweep(rows, temperature):
        proposal = {"name": "sample", "temperature": temperature}
        return Sweep(rows, proposal=proposal, sampling=SAMPLING, max_rollouts=4)

    halved = run(tiny_engine(), sweep(Flatter(), 0.75))
    assert any(s.revisions for s in halved)
    assert facts(halved) == facts(run(tiny_engine(), sweep(Own(), 1.5)))
    assert_same_alone_and_together(sweep(Flatter(), 0.75))


def test_a_selector_that_looks_at_a_gradient_needs_an_objective():
    with pytest.raises(ConfigError, match="no objective"):
        Sweep(Flatter(), selector="gradient-norm")


def test_a_selector_s_gradient_needs_a_differentiable_reward():
    """Also where the estimator asks for values, and refinement itself needs none."""
    rows = Refined({"estimator": "score-function", "optimizer": "SGD"})
    Sweep(rows, acceptance="always").check(tiny_engine(reward=False))
    with pytest.raises(ConfigError, match="selector's objective"):
        Sweep(rows, selector="gradient-norm", acceptance="always").check(tiny_engine(reward=False))


def test_a_recipe_runs_without_a_name_where_nobody_registered_it():
    def mine() -> Sweep:
        return Sweep(Own(), sampling=SAMPLING)

    made = mine()
    assert isinstance(made, Method)
    assert methods.name_of(made) == "Sweep"
    assert torch.isfinite(torch.tensor([s.reward for s in run(tiny_engine(), made)])).all()
