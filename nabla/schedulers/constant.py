"""The same value at every step."""

from __future__ import annotations

from nabla.schedulers.base import Schedule, Step, require_finite, schedulers


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
