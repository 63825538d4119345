"""A straight line from the first to the last step."""

from __future__ import annotations

from nabla.core.errors import require_finite
from nabla.schedulers.base import Schedule, Step, schedulers


@schedulers.register("linear")
class Linear(Schedule):
    """A straight line from ``start`` (first step) to ``end`` (last step)."""

    def __init__(self, start: float, end: float) -> None:
        self.start = require_finite("start", start)
        self.end = require_finite("end", end)

    def __call__(self, step: Step) -> float:
        return (1 - step.progress) * self.start + step.progress * self.end

    @property
    def bounds(self) -> tuple[float, float]:
        return min(self.start, self.end), max(self.start, self.end)
