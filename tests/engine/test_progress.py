"""How far one problem has come."""

from __future__ import annotations

import pytest
import torch

from nabla.core.budget import Budget
from nabla.core.costs import CostMeter, Usage
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.solution import answer_within
from nabla.core.trajectory import Trajectory
from nabla.engine.progress import Progress


def test_the_share_is_of_the_budget_that_is_spent_least():
    meter = CostMeter()
    meter.add("rollout", Usage(decode_steps=30, tokens=90))
    calls, tokens = Budget("calls", (10.0, 60.0)), Budget("tokens", (90.0,))
    assert Progress([calls, tokens], meter).share == 0.5
    assert Progress([tokens], meter).share == 1.0
    assert Progress([], meter).share == 0.0
    meter.add("rollout", Usage(decode_steps=300))
    assert Progress([calls], meter).share == pytest.approx(1.0)  # a round may go beyond it


def progress(*budgets: Budget) -> tuple[Progress, CostMeter]:
    meter = CostMeter()
    return Progress(budgets, meter), meter


def answer(token: int) -> Trajectory:
    return Trajectory(Prompt.of("x"), torch.tensor([token]), True, torch.zeros(1), Sampling())


def test_a_round_goes_on_until_an_answer_is_held():
    found, meter = progress(Budget("calls", (10.0,)))
    meter.add("rollout", Usage(decode_steps=30))
    assert (found.reached, found.spent) == (True, False)
    found.report(answer(1), lambda _: "1")
    assert found.spent


def test_a_round_ends_where_no_later_answer_counts():
    """At the value itself one still does: what is read there must not depend on where the round ended."""
    found, meter = progress(Budget("calls", (5.0, 10.0)), Budget("tokens", (20.0,)))
    meter.add("rollout", Usage(decode_steps=10))
    found.report(answer(1), lambda _: "1")
    assert (found.reached, found.spent) == (False, False)
    meter.add("rollout", Usage(tokens=21))
    assert (found.reached, found.spent) == (True, False)
    found.report(answer(2), lambda _: "2")
    last = answer_within(found.checkpoints, "calls", 10.0)
    assert last is not None
    assert last.response == "2"
    meter.add("rollout", Usage(decode_steps=1))
    assert found.spent
    free, meter = progress()
    meter.add("rollout", Usage(decode_steps=10))
    free.report(answer(1), lambda _: "1")
    assert not free.spent
