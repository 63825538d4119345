"""What tests share: the inputs that :mod:`nabla.testing` ships, and a few naive formulas."""

from __future__ import annotations

import math

from nabla.testing.inputs import (
    ALPHA,
    DISTINCT,
    INF,
    KINDS,
    PROMPT,
    follows,
    make_logits,
    make_trajectory,
    seeded,
)
from nabla.testing.strategies import logits, samplings, trajectories

__all__ = [
    "ALPHA",
    "DISTINCT",
    "INF",
    "KINDS",
    "PROMPT",
    "follows",
    "logits",
    "make_logits",
    "make_trajectory",
    "samplings",
    "seeded",
    "softmax_list",
    "trajectories",
]


def softmax_list(logits: list[float], temperature: float) -> list[float]:
    """Naive softmax."""
    top = max(logits)
    weights = [math.exp((z - top) / temperature) for z in logits]
    return [w / sum(weights) for w in weights]
