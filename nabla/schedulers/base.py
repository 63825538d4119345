"""Schedules: one number per optimisation step, for learning rates, temperatures and weights."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from nabla.errors import ConfigError
from nabla.registry import Registry


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


schedulers: Registry[Schedule] = Registry("schedulers", lambda: Schedule)


def as_schedule(value: int | float | Schedule | str | dict[str, Any]) -> Schedule:
    """A schedule from a schedule, a number (constant) or a registry spec."""
    if isinstance(value, bool):
        raise ConfigError("A schedule is a number or a Schedule", got=value)
    if isinstance(value, int | float):
        from nabla.schedulers.constant import Constant

        return Constant(float(value))
    return schedulers.build(value)


def require_finite(name: str, value: Any, *, minimum: float | None = None) -> float:
    """``value`` as a float; raises ConfigError if it is none, NaN, infinite or under ``minimum``."""
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} must be a number", got=value) from error
    if not math.isfinite(number):
        raise ConfigError(f"{name} must be finite", got=value)
    if minimum is not None and number < minimum:
        raise ConfigError(f"{name} must be at least {minimum}", got=value)
    return number
