"""Schedules: one number per optimisation step, for learning rates, temperatures and weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from nabla.core.errors import ConfigError, require_finite
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
    messages."""
    if isinstance(value, bool):
        raise ConfigError(f"{name} is a number or a Schedule", got=value)
    if isinstance(value, int | float):
        from nabla.schedulers.base import Constant

        return Constant(require_finite(name, value))
    return schedulers.build(value)


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
