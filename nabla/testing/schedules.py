"""Laws of schedules."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

from nabla.schedulers.base import Schedule, Step, schedulers
from nabla.testing.laws import MAX_EXAMPLES, Kit, Law, require, untouched_global_noise
from nabla.testing.optional import st
from nabla.testing.strategies import steps

kit: Kit[Schedule] = Kit(schedulers, "a schedule", "check_schedule")


def check_schedule(
    schedule: object,
    *,
    start: float | None = None,
    end: float | None = None,
    laws: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    max_examples: int = MAX_EXAMPLES,
    seed: int = 0,
) -> None:
    """Checks every law of schedules.

    Args:
        schedule: an instance, or a class that needs no arguments.
        start: value at the first step of a run of two steps or more, if it is known.
        end: value at the last step, likewise.
        laws: these and the rest as in :func:`nabla.testing.check_estimator`.

    Raises ContractError at the first law that is broken.
    """
    extra = () if start is None and end is None else (ends_are(start, end),)
    kit.check(schedule, laws=laws, skip=skip, max_examples=max_examples, seed=seed, extra=extra)


@kit.law(step=steps)
def a_value_is_a_finite_number(schedule: Schedule, step: Step) -> None:
    """Every step of every run has a finite float."""
    value: Any = schedule(step)
    require(isinstance(value, float), f"it gives {value!r}, a {type(value).__name__}, and not a float")
    require(math.isfinite(value), f"the value is {value}")


@kit.law()
def a_run_of_one_step_has_a_value(schedule: Schedule) -> None:
    """``Step(0, 1)`` is the first and the last step at once: no division by ``total - 1``."""
    value: Any = schedule(Step(0, 1))
    require(isinstance(value, float) and math.isfinite(value), f"the value at Step(0, 1) is {value!r}")


@kit.law(step=steps)
def values_stay_within_the_bounds(schedule: Schedule, step: Step) -> None:
    """``bounds`` is (smallest, largest), both finite; no value leaves them."""
    low, high = schedule.bounds
    require(math.isfinite(low) and math.isfinite(high) and low <= high, f"the bounds are {(low, high)}")
    value, slack = schedule(step), 1e-12 * max(abs(low), abs(high))
    require(low - slack <= value <= high + slack, f"{value!r} is outside the bounds {(low, high)}")


@kit.law()
def the_bounds_are_reached(schedule: Schedule) -> None:
    """Some run comes within 5 % of the bounds' width to each: a term is switched off by bounds of zero, and a
    temperature is allowed by its lower bound, so loose ones mislead."""
    low, high = schedule.bounds
    values = [schedule(Step(i, total)) for total in (1, 2, 3, 20, 200) for i in range(total)]
    slack = 0.05 * (high - low) + 1e-12 * max(abs(low), abs(high))
    require(
        min(values) <= low + slack and max(values) >= high - slack,
        f"values go from {min(values)!r} to {max(values)!r}, the bounds are {(low, high)}",
    )


@kit.law(step=steps, other=steps)
def it_keeps_no_state(schedule: Schedule, step: Step, other: Step) -> None:
    """The value follows from the step alone, whatever was asked before."""
    fresh = copy.deepcopy(schedule)
    with untouched_global_noise():
        schedule(other)
        found = schedule(step)
    require(found == fresh(step), f"{found!r} after another call, {fresh(step)!r} before")


def ends_are(start: float | None, end: float | None) -> Law:
    """The law that runs of two steps or more begin and end at given values."""

    def the_ends_are_as_given(schedule: Schedule, total: int) -> None:
        """The first and last value are those that were passed to the check."""
        for name, expected, index in (("first", start, 0), ("last", end, total - 1)):
            if expected is not None:
                found = schedule(Step(index, total))
                close = math.isclose(found, expected, rel_tol=1e-12, abs_tol=1e-300)
                require(close, f"the {name} of {total} values is {found!r}, not {expected!r}")

    return kit.make(the_ends_are_as_given, total=st.integers(2, 60))
