"""Whether first-order gains tell anything: their ranks against what the same changes were worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


def kendall(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's τ-a: concordant minus discordant pairs, over all pairs; ties are neither.

    0 with fewer than two numbers.
    """
    total, pairs = 0, 0
    for i in range(len(first)):
        for j in range(i):
            product = (first[i] - first[j]) * (second[i] - second[j])
            total += (product > 0) - (product < 0)
            pairs += 1
    return total / pairs if pairs else 0.0


@dataclass
class Agreement:
    """Of one problem: what was promised and what came of it (after probe sampling, arXiv 2403.01251).

    Args:
        level: τ below which promises are not asked for any more.
        least: proposals before anything is decided.
    """

    level: float
    least: int
    promised: list[float] = field(default_factory=list)
    found: list[float] = field(default_factory=list)

    def add(self, promised: float, found: float) -> None:
        """A change's promised gain, and its exact one."""
        self.promised.append(promised)
        self.found.append(found)

    @property
    def trusted(self) -> bool:
        """Whether another backward pass is worth its cost."""
        return len(self.found) < self.least or kendall(self.promised, self.found) >= self.level
