"""Statistics of measured rates."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

from nabla.errors import ConfigError


@dataclass(frozen=True)
class Proportion:
    """``successes`` of ``total``."""

    successes: int
    total: int

    @property
    def value(self) -> float:
        """NaN for none of none."""
        return self.successes / self.total if self.total else float("nan")

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Wilson's interval."""
        return wilson(self.successes, self.total, level)


def wilson(successes: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a binomial proportion (JASA 22, 1927); (0, 1) for no trials.

    Raises ConfigError unless ``0 <= successes <= total`` and ``0 < level < 1``.
    """
    if not 0 <= successes <= total:
        raise ConfigError("successes must be between 0 and total", got=(successes, total))
    if not 0 < level < 1:
        raise ConfigError("level must be between 0 and 1", got=level)
    if total == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / total
    scale = 1 + z * z / total
    centre = (share + z * z / (2 * total)) / scale
    half = z / scale * (share * (1 - share) / total + z * z / (4 * total * total)) ** 0.5
    low = 0.0 if successes == 0 else centre - half  # exact at the ends, not off by a rounding
    high = 1.0 if successes == total else centre + half
    return low, high
