"""A check: settings as arguments, one ``run`` per seed, findings out.

Extend it by subclassing :class:`Check` and registering the class; the parts under test (Langevin sampler,
energies, solvers, estimators) are arguments, so that a test can plant an error in one of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from nabla.core.registry import Registry
from nabla.theory.figures import Line, Panel
from nabla.theory.report import Findings


class Check(ABC):
    """One family of checks. Subclasses are frozen dataclasses whose fields are all that can be varied."""

    #: One sentence for listings.
    claim: ClassVar[str]

    @classmethod
    @abstractmethod
    def quick(cls) -> Check:
        """Smaller grids, particles and times: under a minute on one core."""

    @abstractmethod
    def run(self, seed: int) -> Findings:
        """Every report of the family. Raises NablaError for settings that cannot work."""

    def findings(self) -> Findings:
        """Empty findings under the check's registered name."""
        return Findings(checks.name_of(self))


checks: Registry[Check] = Registry("theory.duality", lambda: Check, __package__)


def order_panel(
    title: str, x: str, y: str, resolutions: tuple[float, ...], series: dict[str, tuple[float, ...]]
) -> Panel:
    """Errors over resolutions, both logarithmic."""
    lines = tuple(Line(label, resolutions, values, "o-") for label, values in series.items())
    return Panel(title, x, y, lines, log_x=True, log_y=True)
