"""Cosine annealing with linear warm-up (Loshchilov & Hutter, arXiv 1608.03983)."""

from __future__ import annotations

import math

from nabla.core.errors import require_count, require_finite
from nabla.schedulers.base import Schedule, Step, schedulers


@schedulers.register("cosine")
class Cosine(Schedule):
    """Half a cosine from ``start`` to ``end``, after a linear warm-up (arXiv 1608.03983).

    The defaults are ∇-Reasoner's learning rate (SPEC section 4). During the first ``warmup`` steps
    the value rises as ``start · (index + 1) / (warmup + 1)``.
    """

    def __init__(self, start: float = 0.01, end: float = 0.001, warmup: int = 0) -> None:
        self.start = require_finite("start", start)
        self.end = require_finite("end", end)
        self.warmup = require_count("warmup", warmup, note=" steps")

    def __call__(self, step: Step) -> float:
        if step.index < self.warmup:
            return self.start * (step.index + 1) / (self.warmup + 1)
        rest = Step(step.index - self.warmup, max(step.total - self.warmup, 1))
        share = (1 + math.cos(math.pi * rest.progress)) / 2
        return share * self.start + (1 - share) * self.end

    @property
    def bounds(self) -> tuple[float, float]:
        low = min(self.start, self.end)
        first = self.start / (self.warmup + 1)
        return min(low, first), max(self.start, self.end, first)
