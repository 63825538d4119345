"""One figure of the table, with its goal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nabla.study.benchmark.timing import Interval

Verdict = Literal["met", "missed", "not judged", "not measured"]


@dataclass(frozen=True)
class Measurement:
    """One figure.

    Args:
        target: number of the target it belongs to.
        name: what it is.
        value: with its 95 % interval; None where it could not be measured (``detail`` says why).
        unit: of the value.
        goal: the target; None for figures that only inform.
        at_most: whether the goal is an upper bound, else a lower one.
        detail: parts and conditions, one line.
        parts: the numbers it is made of, by name.
        judged: False where the target is not meant for the setting.
    """

    target: int
    name: str
    value: Interval | None
    unit: str
    goal: float | None = None
    at_most: bool = True
    detail: str = ""
    parts: Mapping[str, float] = field(default_factory=dict)
    judged: bool = True

    @property
    def verdict(self) -> Verdict:
        """Judged by the value, not by its interval, which is shown beside it."""
        if self.value is None:
            return "not measured"
        if self.goal is None or not self.judged:
            return "not judged"
        met = self.value.value <= self.goal if self.at_most else self.value.value >= self.goal
        return "met" if met else "missed"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        value = self.value
        return {
            "target": self.target,
            "name": self.name,
            "value": None if value is None else value.value,
            "low": None if value is None else value.low,
            "high": None if value is None else value.high,
            "unit": self.unit,
            "goal": self.goal,
            "bound": None if self.goal is None else ("at most" if self.at_most else "at least"),
            "verdict": self.verdict,
            "detail": self.detail,
            "parts": dict(self.parts),
        }
