"""What a check says: a value, the noise floor under it, a tolerance, an order of convergence, a verdict.

A value below the tolerance is worth something only if the noise floor is below it too: otherwise the
check could not have seen an error of that size, and its verdict is *inconclusive*, never a pass.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
from scipy import stats

from nabla.core.errors import ConfigError
from nabla.theory.figures import Figure

#: An order of convergence needs this many resolutions above their noise floor.
MINIMUM_RESOLUTIONS = 4
#: An order whose 95 % interval is wider than this to either side says nothing.
WIDEST_INTERVAL = 0.5


class Verdict(StrEnum):
    """Of a report. ``worst`` orders them: fail, inconclusive, pass."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"

    @staticmethod
    def worst(verdicts: Sequence[Verdict]) -> Verdict:
        """The verdict of several together."""
        for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE):
            if verdict in verdicts:
                return verdict
        return Verdict.PASS


@dataclass(frozen=True)
class Order:
    """Slope of log error over log resolution by least squares.

    Args:
        slope: the observed order; NaN with too few usable resolutions.
        low, high: 95 % interval (Student's t on the residuals).
        expected: by theory.
        tolerance: allowed distance of the slope from ``expected``.
        resolutions: all that were run.
        errors: their errors.
        used: how many were above the noise floor.
    """

    slope: float
    low: float
    high: float
    expected: float
    tolerance: float
    resolutions: tuple[float, ...]
    errors: tuple[float, ...]
    used: int

    @property
    def verdict(self) -> Verdict:
        """Inconclusive with fewer than four usable resolutions or a wide interval."""
        if self.used < MINIMUM_RESOLUTIONS or not math.isfinite(self.slope):
            return Verdict.INCONCLUSIVE
        if abs(self.slope - self.expected) <= self.tolerance:
            wide = max(self.high - self.slope, self.slope - self.low) > WIDEST_INTERVAL
            return Verdict.INCONCLUSIVE if wide else Verdict.PASS
        near = self.low - self.tolerance <= self.expected <= self.high + self.tolerance
        return Verdict.INCONCLUSIVE if near and self.high - self.low > 2 * WIDEST_INTERVAL else Verdict.FAIL

    def __str__(self) -> str:
        if self.used < MINIMUM_RESOLUTIONS:
            return f"{self.used} of {len(self.resolutions)} above the floor"
        return f"{self.slope:.2f} [{self.low:.2f}, {self.high:.2f}] ({self.expected:g})"


def fit_order(
    resolutions: Sequence[float],
    errors: Sequence[float],
    *,
    expected: float,
    tolerance: float = 0.2,
    floor: float = 0.0,
) -> Order:
    """Fits ``error ~ resolution^slope``; errors at or below ``floor`` are noise and left out.

    Raises ConfigError for resolutions that are not positive, or of which there are fewer than four.
    """
    if len(resolutions) != len(errors):
        raise ConfigError("One error per resolution is needed", got=(len(resolutions), len(errors)))
    if len(set(resolutions)) < MINIMUM_RESOLUTIONS:
        raise ConfigError(
            f"An order of convergence needs {MINIMUM_RESOLUTIONS} resolutions", got=tuple(resolutions)
        )
    if min(resolutions) <= 0:
        raise ConfigError("Resolutions must be positive", got=tuple(resolutions))
    pairs = [
        (h, e) for h, e in zip(resolutions, errors, strict=True) if math.isfinite(e) and e > floor and e > 0
    ]
    slope = low = high = math.nan
    if len(pairs) >= MINIMUM_RESOLUTIONS:
        x, y = np.log([h for h, _ in pairs]), np.log([e for _, e in pairs])
        fit = stats.linregress(x, y)
        half = float(stats.t.ppf(0.975, len(pairs) - 2)) * float(fit.stderr)
        slope = float(fit.slope)
        low, high = slope - half, slope + half
    return Order(slope, low, high, expected, tolerance, tuple(resolutions), tuple(errors), len(pairs))


def judge(value: float, noise_floor: float, tolerance: float) -> Verdict:
    """Inconclusive if the noise reaches the tolerance, otherwise by ``value <= tolerance``.

    A value that is not finite, or far above anything noise could do, fails in any case.
    """
    if not math.isfinite(value):
        return Verdict.FAIL
    if not math.isfinite(noise_floor):
        return Verdict.INCONCLUSIVE
    if noise_floor > tolerance:
        return Verdict.FAIL if value > 5 * noise_floor else Verdict.INCONCLUSIVE
    return Verdict.PASS if value <= tolerance else Verdict.FAIL


@dataclass(frozen=True)
class Report:
    """One line of the table.

    Args:
        check: family the report belongs to.
        name: what was compared.
        value: the measured error (or distance); see ``unit``.
        noise_floor: what ``value`` would be if nothing were wrong: two runs of the same law, or rounding.
        tolerance: a value above it fails.
        verdict: pass, fail or inconclusive.
        unit: of value, floor and tolerance.
        order: of convergence, if measured; its verdict is part of ``verdict``.
        seconds: wall-clock time.
        detail: numbers a reader wants beside the value.
        seeds: how many runs it sums up.
        spread: standard deviation of ``value`` over the seeds.
    """

    check: str
    name: str
    value: float
    noise_floor: float
    tolerance: float
    verdict: Verdict
    unit: str = ""
    order: Order | None = None
    seconds: float = 0.0
    detail: str = ""
    seeds: int = 1
    spread: float = 0.0

    @classmethod
    def of(
        cls,
        check: str,
        name: str,
        value: float,
        *,
        floor: float,
        tolerance: float,
        unit: str = "",
        order: Order | None = None,
        seconds: float = 0.0,
        detail: str = "",
        doubt: str | None = None,
    ) -> Report:
        """Judges the value and the order; ``doubt`` says why a pass would be no evidence."""
        verdict = judge(value, floor, tolerance)
        if order is not None:
            verdict = Verdict.worst([verdict, order.verdict])
        if doubt is not None and verdict is Verdict.PASS:
            verdict = Verdict.INCONCLUSIVE
        if doubt is not None:
            detail = f"{doubt}; {detail}" if detail else doubt
        return cls(check, name, float(value), float(floor), tolerance, verdict, unit, order, seconds, detail)

    @classmethod
    def merge(cls, reports: Sequence[Report]) -> Report:
        """The same report from several seeds: mean value, its spread, the worst verdict."""
        values = [r.value for r in reports]
        worst = Verdict.worst([r.verdict for r in reports])
        shown = next(r for r in reports if r.verdict is worst)
        return replace(
            shown,
            value=float(np.mean(values)),
            noise_floor=float(np.mean([r.noise_floor for r in reports])),
            seconds=sum(r.seconds for r in reports),
            seeds=len(reports),
            spread=float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
        )


@dataclass
class Findings:
    """Everything a check returns; ``add`` stamps each report with the seconds since the last one."""

    check: str
    reports: list[Report] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    _since: float = field(default_factory=time.perf_counter)

    def add(
        self,
        name: str,
        value: float,
        *,
        floor: float,
        tolerance: float,
        unit: str = "",
        order: Order | None = None,
        detail: str = "",
        doubt: str | None = None,
    ) -> Report:
        """Judges and keeps a report."""
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        report = Report.of(
            self.check,
            name,
            value,
            floor=floor,
            tolerance=tolerance,
            unit=unit,
            order=order,
            seconds=seconds,
            detail=detail,
            doubt=doubt,
        )
        self.reports.append(report)
        return report
