"""Schedules: one number per optimisation step, for learning rates, temperatures and weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from nabla.core.errors import ComponentError, ConfigError, NablaError, require_finite
from nabla.core.registry import Registry


@dataclass(frozen=True)
class Step:
    """Position in an optimisation run: ``index`` counts from 0 to ``total - 1``."""

    index: int = 0
    total: int = 1

    @property
    def progress(self) -> float:
        """0 at the first step, 1 at the last (0 for a run of one step)."""
        return 0.0 if self.total <= 1 else min(self.index / (self.total - 1), 1.0)


class Schedule(ABC):
    """A number as a function of the step. Settings only: a schedule keeps no state."""

    @abstractmethod
    def __call__(self, step: Step) -> float:
        """The value at ``step``."""

    @property
    @abstractmethod
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest value the schedule can take."""


schedulers: Registry[Schedule] = Registry("schedulers", lambda: Schedule, __package__)


def as_schedule(value: int | float | Schedule | str | dict[str, Any], name: str = "value") -> Schedule:
    """A schedule from a schedule, a number (constant) or a registry spec; ``name`` is its argument's, for
    messages. Raises ConfigError, also for a schedule that leaves its own bounds."""
    if isinstance(value, bool):
        raise ConfigError(f"{name} is a number or a Schedule", got=value)
    if isinstance(value, int | float):
        return Constant(require_finite(name, value))
    return require_bounded(schedulers.build(value), name)


#: Lengths of the runs that a schedule is looked at over before it is used.
_LENGTHS = (*range(1, 25), 30, 40, 50, 100, 200)


def require_bounded(schedule: Schedule, name: str) -> Schedule:
    """``schedule``; raises ConfigError where its bounds are no two finite numbers in order, and where a value
    is no finite number or leaves them: whoever takes a schedule goes by its bounds."""
    who = type(schedule).__name__
    try:
        low, high = schedule.bounds
        low = require_finite(f"{name}: the lower bound of {who}", low)
        high = require_finite(f"{name}: the upper bound of {who}", high)
    except NablaError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{name}: the bounds of {who} are no pair of numbers: {error}", fix="Return (smallest, largest)."
        ) from error
    except Exception as error:
        raise ComponentError.of(error, f"The bounds of {who} ({name})") from error
    if low > high:
        raise ConfigError(f"{name}: the lower bound of {who} is above the upper one", got=(low, high))
    slack = 1e-9 * max(abs(low), abs(high))
    for total in _LENGTHS:
        for index in range(total):
            try:
                found: Any = schedule(Step(index, total))
            except NablaError:
                raise
            except Exception as error:
                raise ComponentError.of(error, f"{who} ({name}) at step {index} of {total}") from error
            if type(found) is float and low - slack <= found <= high + slack:
                continue
            where = f"{name}: the value of {who} at step {index} of {total}"
            value = require_finite(where, found)
            if not low - slack <= value <= high + slack:
                raise ConfigError(
                    f"{where} is outside its bounds, {low:g} to {high:g}",
                    got=value,
                    fix="Let bounds give the smallest and the largest value that the schedule can take.",
                )
    return schedule


@schedulers.register("constant")
class Constant(Schedule):
    """The same value at every step."""

    def __init__(self, value: float) -> None:
        self.value = require_finite("value", value)

    def __call__(self, step: Step) -> float:
        return self.value

    @property
    def bounds(self) -> tuple[float, float]:
        return self.value, self.value
