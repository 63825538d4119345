"""How far one problem has come."""

from __future__ import annotations

import pytest

from nabla.core.budget import Budget
from nabla.core.costs import CostMeter, Usage
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
