"""Check 3: ``dF/dt = -∫ρ|∇δF/δρ|²``, and the exponential rate where a log-Sobolev constant is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from nabla.core.random import generator
from nabla.theory.distances import gaussian_quantiles
from nabla.theory.duality.base import Check, checks, order_panel
from nabla.theory.figures import Figure, Line, Panel
from nabla.theory.flows.fokker_planck import FokkerPlanck
from nabla.theory.flows.jko import COARSE, QuantileJKO
from nabla.theory.flows.langevin import Langevin
from nabla.theory.functionals import GaussianEnergy, GridEnergy, ParticleEnergy
from nabla.theory.grids import Grid
from nabla.theory.problems import DoubleWell, GaussianProblem, MixtureProblem, Problem
from nabla.theory.report import Findings, fit_order

TIMES = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0)


@checks.register("dissipation")
@dataclass(frozen=True)
class Dissipation(Check):
    """Energy along the flow: the first variation, the dissipation identity, monotonicity, and the rate.

    Args:
        times: where F is compared; multiples of ``step`` and ``tau``.
        cells: at least four grids for the order in h.
        delta: half-width of the time stencil of ``dF/dt`` (fourth order).
        particles: of the particle estimate of F.
        step, tau: dt and τ.
        energy, flow, jko, langevin: the parts under test.
    """

    claim = "dF/dt = -∫ρ|∇δF/δρ|², and F decays at the log-Sobolev rate"
    times: tuple[float, ...] = TIMES
    cells: tuple[int, ...] = (100, 200, 400, 800)
    delta: float = 0.004
    particles: int = 200_000
    step: float = 0.01
    tau: float = 0.025
    energy: type[GridEnergy] = GridEnergy
    flow: type[FokkerPlanck] = FokkerPlanck
    jko: type[QuantileJKO] = QuantileJKO
    langevin: Callable[[float], Langevin] = Langevin

    @classmethod
    def quick(cls) -> Dissipation:
        return cls(
            cells=(60, 120, 240, 480), particles=20_000, times=(0.1, 0.2, 0.45, 0.8, 1.3, 2.0), step=0.025
        )

    def run(self, seed: int) -> Findings:
        found = self.findings()
        gaussian = GaussianProblem(linear=(0.75,), quadratic=((0.5,),), weight=2.0)
        self._first_variation(found, MixtureProblem(), seed)
        panels = []
        for problem in (gaussian, MixtureProblem(), DoubleWell()):
            panels.append(self._identity(found, problem))
        self._rates(found)
        found.figures.append(self._decay(found, gaussian, seed))
        found.figures.append(Figure("dissipation", tuple(panels)))
        return found

    def _first_variation(self, found: Findings, problem: Problem, seed: int) -> None:
        """``F(ρ + εη) - F(ρ) - ε <δF/δρ, η>`` is O(ε²) with the coefficient ½∫η²/ρ > 0."""
        grid = Grid(problem, self.cells[1])
        energy, rho = self.energy(grid), grid.prior
        x = grid.points[:, 0].numpy()
        eta = rho * np.cos(x)
        eta = eta - rho * (eta.sum() / rho.sum())
        sizes = (0.2, 0.1, 0.05, 0.025, 0.0125)
        slope = float(np.sum(energy.first_variation(rho) * eta) * grid.volume)
        base = energy.value(rho)
        errors = [abs(energy.value(rho + e * eta) - base - e * slope) for e in sizes]
        curvature = 0.5 * float(np.sum(eta**2 / rho) * grid.volume)
        order = fit_order(sizes, errors, expected=2.0, tolerance=0.1, floor=1e-13)
        found.add(
            "first variation: remainder of F(ρ + εη), order in ε",
            abs(errors[-1] / sizes[-1] ** 2 - curvature),
            floor=1e-9,
            tolerance=0.05 * curvature,
            unit="nats / ε²",
            order=order,
        )

    def _identity(self, found: Findings, problem: Problem) -> Panel:
        """Largest relative gap of the identity over times, per grid: O(h²)."""
        widths, gaps, rises = [], [], []
        for cells in self.cells:
            grid = Grid(problem, cells)
            energy, flow = self.energy(grid), self.flow(grid)
            worst, now, rho, last, rise = 0.0, 0.0, grid.prior, math.inf, 0.0
            for time in self.times:
                rho = flow.advance(rho, time - 2 * self.delta - now)
                values, middle = [], rho
                for i in range(5):
                    values.append(energy.value(rho))
                    middle = rho if i == 2 else middle
                    rho = flow.advance(rho, self.delta)
                now = time + 3 * self.delta
                stencil = (values[0] - 8 * values[1] + 8 * values[3] - values[4]) / (12 * self.delta)
                loss = energy.dissipation(middle)
                worst = max(worst, abs(stencil + loss) / loss)
                rise = max(rise, values[4] - values[0], values[0] - last)
                last = values[4]
            widths.append(float(grid.steps[0]))
            gaps.append(worst)
            rises.append(rise)
        floor = 1e-6
        order = fit_order(widths, gaps, expected=2.0, floor=floor)
        found.add(
            f"{problem.name}: dF/dt + ∫ρ|∇δF/δρ|², order in h",
            gaps[-1],
            floor=floor,
            tolerance=5e-3,
            unit="relative",
            order=order,
        )
        found.add(
            f"{problem.name}: F never rises along the flow",
            max(*rises, 0.0),
            floor=1e-14,
            tolerance=1e-12,
            unit="nats",
        )
        return order_panel(problem.name, "h", "|dF/dt + D| / D", widths, gaps, expected=2.0)

    def _rates(self, found: Findings) -> None:
        """Gaussian targets: ``F - F*`` falls at least as ``e^{-2αt}``; a pure shift exactly so."""
        shift = GaussianProblem(linear=(0.75,), quadratic=((0.0,),), weight=2.0, covariance=((0.8,),))
        grid = Grid(shift, self.cells[-1])
        energy = self.energy(grid)
        gaps = np.array(
            [energy.value(rho) - energy.minimum for rho in self.flow(grid).run(grid.prior, self.times)]
        )
        decays = bool((gaps > 0).all())
        slope = -float(stats.linregress(self.times, np.log(gaps)).slope) if decays else math.nan
        alpha = GaussianEnergy(shift).log_sobolev
        found.add(
            "Gaussian shift: decay rate of F - F* against 2α",
            abs(slope - 2 * alpha) / (2 * alpha),
            floor=float(grid.steps[0] ** 2) / 10,
            tolerance=0.01,
            unit="relative",
            detail=f"rate {slope:.4f}, 2α = {2 * alpha:.4f}",
        )
        general = GaussianProblem(linear=(0.75,), quadratic=((0.5,),), weight=2.0)
        closed = GaussianEnergy(general)
        grid = Grid(general, self.cells[-1])
        energy = self.energy(grid)
        worst, gap = -math.inf, 0.0
        start = energy.value(grid.prior) - energy.minimum
        for time, rho in zip(self.times, self.flow(grid).run(grid.prior, self.times), strict=True):
            bound = math.exp(-2 * closed.log_sobolev * time) * start
            worst = max(worst, (energy.value(rho) - energy.minimum) / bound - 1)
            exact = float(closed.value(*general.law(time)))
            gap = max(gap, abs(energy.value(rho) - exact))
        found.add(
            "log-Sobolev bound: (F - F*) / (e^{-2αt}(F_0 - F*)) - 1",
            max(worst, 0.0),
            floor=1e-9,
            tolerance=1e-3,
            unit="relative",
            detail=f"largest ratio {worst + 1:.3f}",
        )
        found.add(
            "Gaussian: F on the grid against the closed form, all t",
            gap,
            floor=1e-6,
            tolerance=2e-3,
            unit="nats",
        )

    def _decay(self, found: Findings, problem: GaussianProblem, seed: int) -> Figure:
        """F - F* by four routes."""
        closed = GaussianEnergy(problem)
        exact = [float(closed.value(*problem.law(t))) - closed.minimum for t in self.times]
        grid = Grid(problem, self.cells[-1])
        energy = self.energy(grid)
        on_grid = [energy.value(r) - energy.minimum for r in self.flow(grid).run(grid.prior, self.times)]
        scheme = self.jko(problem, self.tau)
        target = gaussian_quantiles(
            float(problem.target_mean[0]), float(problem.target_covariance[0, 0].sqrt()), COARSE
        )
        lowest = scheme.energy(target)
        proximal = [
            scheme.energy(x) - lowest for x in scheme.run(gaussian_quantiles(0.0, 1.0, COARSE), self.times)
        ]
        rises = max(0.0, *np.diff(proximal).tolist())
        found.add("JKO: F never rises", rises, floor=1e-14, tolerance=1e-12, unit="nats")
        estimate = ParticleEnergy(problem)
        laws = [problem.law(t) for t in self.times]
        draws = generator("dissipation", seed)
        x = problem.sample(self.particles, draws)
        chains = self.langevin(self.step).run(problem, x, self.times, generator("dissipation", "noise", seed))
        values = [estimate.value(c.x) - closed.minimum for c in chains]
        noise, gaps = [], []
        for (mean, covariance), value, truth in zip(laws, values, exact, strict=True):
            root = torch.linalg.cholesky(covariance)
            fresh = mean + torch.randn(self.particles, 1, generator=draws, dtype=torch.float64) @ root.T
            noise.append(abs(estimate.value(fresh) - closed.minimum - truth))
            gaps.append(abs(value - truth))
        found.add(
            f"Langevin particles: F (nearest neighbours) against the closed form, N = {self.particles:,}",
            max(gaps),
            floor=max(noise),
            tolerance=0.02 + self.step,
            unit="nats",
            detail=f"dt = {self.step:g}",
        )
        routes = {"grid": on_grid, f"JKO, τ = {self.tau:g}": proximal, "particles": values}
        bound = [_bound(closed, problem, t) for t in self.times]
        return _energies(self.times, exact, routes, bound)


def _energies(
    times: tuple[float, ...],
    exact: Sequence[float],
    routes: Mapping[str, Sequence[float]],
    bound: Sequence[float],
) -> Figure:
    """The decay by each route, and how far it is from the closed form: points that coincide in one panel are
    apart in the other."""
    marks = ("o", "x", ".")
    decay = [
        ("closed form", exact, "-"),
        *((n, ys, m) for (n, ys), m in zip(routes.items(), marks, strict=True)),
    ]
    lines = tuple(
        Line(label, times, tuple(v if v > 0 else math.nan for v in values), style)
        for label, values, style in (*decay, ("exp(-2αt) bound", bound, "k:"))
    )
    apart = tuple(
        Line(label, times, tuple(abs(v - e) for v, e in zip(values, exact, strict=True)), "o-")
        for label, values in routes.items()
    )
    panels = (
        Panel("Energy decay, Gaussian", "t", "F - F*, nats", lines, log_y=True),
        Panel("Distance from the closed form", "t", "nats", apart, log_y=True),
    )
    return Figure("energy", panels)


def _bound(closed: GaussianEnergy, problem: GaussianProblem, time: float) -> float:
    start = float(closed.value(problem.mean, problem.covariance)) - closed.minimum
    return math.exp(-2 * closed.log_sobolev * time) * start
