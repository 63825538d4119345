"""A check: settings as arguments, one ``run`` per seed, findings out.

Extend it by subclassing :class:`Check` and registering the class; the parts under test (Langevin sampler,
energies, solvers, estimators) are arguments, so that a test can plant an error in one of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from nabla.core.registry import Registry
from nabla.theory.figures import Line, Panel
from nabla.theory.flows.bures import BuresFlow
from nabla.theory.flows.fokker_planck import FokkerPlanck
from nabla.theory.flows.jko import QuantileJKO
from nabla.theory.flows.langevin import Langevin
from nabla.theory.report import Findings

#: The line of the expected slope runs so far below the errors.
BELOW = 0.6


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


@dataclass(frozen=True)
class Routes:
    """Routes to the law ρ_t of the flow, each a part under test.

    Args:
        langevin: dt → unadjusted scheme of particles.
        jko: (problem, τ) → minimising movements of quantiles on the line.
        flow: grid → finite volumes.
        bures_flow: problem → the flow of a Gaussian's moments.
    """

    langevin: Callable[[float], Langevin] = Langevin
    jko: type[QuantileJKO] = QuantileJKO
    flow: type[FokkerPlanck] = FokkerPlanck
    bures_flow: type[BuresFlow] = BuresFlow


def order_panel(
    title: str,
    x: str,
    y: str,
    resolutions: Sequence[float],
    errors: Sequence[float],
    expected: float,
    floor: float = 0.0,
) -> Panel:
    """Errors over resolutions, both logarithmic.

    Args:
        title: of the panel.
        x, y: what the axes say.
        resolutions: all that were run.
        errors: their errors.
        expected: order; a line of this slope runs below the errors, to compare them with.
        floor: of the noise; none at 0.
    """
    at = tuple(float(v) for v in resolutions)
    guide = tuple(BELOW * errors[0] * (h / at[0]) ** expected for h in at)
    lines = [Line(f"slope {expected:g}", at, guide, "k--"), Line("error", at, tuple(errors), "o-")]
    if floor > 0:
        lines.append(Line("noise floor", at, (floor,) * len(at), "k:"))
    return Panel(title, x, y, tuple(lines), log_x=True, log_y=True)
