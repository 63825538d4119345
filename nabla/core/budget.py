"""Budgets: how much one problem may cost, and what its answer was on the way there.

A method that could go on for ever (more samples, more sweeps) asks ``Session.proceed`` before each round,
``Session.spent`` before each further proposal of a round, and hands in its answer so far by
``Session.report`` (:mod:`nabla.engine.session`). One run under the largest
budget then yields the answer at every smaller one: a whole accuracy-cost curve.
"""

from __future__ import annotations

from dataclasses import dataclass

from nabla.core.costs import Usage
from nabla.core.errors import ConfigError, require_one_of

#: What a budget may be counted in (SPEC section 13).
UNITS = ("calls", "tokens", "flops", "seconds")


@dataclass(frozen=True)
class Budget:
    """A ladder of limits on one problem's cost.

    Args:
        unit: one of UNITS.
        values: the ladder, ascending; the largest is what the method runs to.

    Raises ConfigError for an unknown unit, or values that are not positive and ascending.
    """

    unit: str
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        require_one_of(self.unit, UNITS, "Unknown budget unit", "Units")
        object.__setattr__(self, "values", tuple(float(v) for v in self.values))
        if not self.values or not all(0 < v < float("inf") for v in self.values):
            raise ConfigError("A budget is a positive, finite number", got=self.values)
        if any(a >= b for a, b in zip(self.values, self.values[1:], strict=False)):
            raise ConfigError("The budgets of a ladder ascend", got=self.values)

    @property
    def limit(self) -> float:
        """The largest value."""
        return self.values[-1]

    def spent(self, usage: Usage) -> bool:
        """Whether a usage has reached the largest value."""
        return float(getattr(usage, self.unit)) >= self.limit

    def exceeded(self, usage: Usage) -> bool:
        """Whether a usage is beyond the largest value: an answer that costs so much counts at no value. At
        the value itself it still does (:func:`~nabla.core.solution.answer_within`)."""
        return float(getattr(usage, self.unit)) > self.limit




