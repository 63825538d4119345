"""Check 2: the routes agree at every t, and each converges at the order its theory says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from nabla.core.random import generator
from nabla.theory.arrays import Array
from nabla.theory.distances import (
    bures,
    directions,
    gaussian_quantiles,
    grid_quantiles,
    particle_quantiles,
    sample_moments,
    sliced_grid,
    sliced_particles,
    sliced_w2,
    w2_quantiles,
)
from nabla.theory.duality.base import Check, Routes, checks
from nabla.theory.duality.orders import Orders
from nabla.theory.figures import Figure, Line, Panel
from nabla.theory.flows.bures import BuresFlow
from nabla.theory.flows.fokker_planck import FokkerPlanck
from nabla.theory.flows.jko import COARSE, QuantileJKO
from nabla.theory.flows.langevin import Langevin
from nabla.theory.flows.policy import GaussianPolicy
from nabla.theory.grids import Grid
from nabla.theory.problems import DoubleWell, GaussianProblem, MixtureProblem, Problem
from nabla.theory.problems.gaussian import correlated
from nabla.theory.problems.mixture import three_modes
from nabla.theory.report import Findings

TIMES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.2, 1.6, 2.0, 2.8)


@checks.register("trajectories")
@dataclass(frozen=True)
class Trajectories(Check):
    """W2 between the routes at every time, for a Gaussian, a mixture and a double well on the line and in
    the plane; and the orders of :class:`~nabla.theory.duality.orders.Orders`.

    Args:
        times: where laws are compared; multiples of the steps.
        cells, cells_2d: of the grids.
        particles: N of the Langevin route.
        step: dt of the finer unadjusted run (the other has 2 dt; both are extrapolated to 0).
        tau: τ of the finer JKO run (the other has 2 τ).
        tolerance: largest W2 at any time between deterministic routes; tolerance_particles with particles.
        orders: resolutions of the convergence study.
        langevin, jko, flow, bures_flow: the parts under test.
    """

    claim = "all routes to ρ_t agree at every t, at their orders of convergence"
    times: tuple[float, ...] = TIMES
    cells: int = 600
    cells_2d: int = 80
    particles: int = 300_000
    step: float = 0.025
    tau: float = 0.025
    tolerance: float = 0.006
    tolerance_particles: float = 0.02
    orders: Orders = field(default_factory=Orders)
    langevin: Callable[[float], Langevin] = Langevin
    jko: type[QuantileJKO] = QuantileJKO
    flow: type[FokkerPlanck] = FokkerPlanck
    bures_flow: type[BuresFlow] = BuresFlow

    @classmethod
    def quick(cls) -> Trajectories:
        return cls(
            cells=300,
            cells_2d=40,
            particles=40_000,
            tolerance_particles=0.05,
            tolerance=0.01,
            times=(0.2, 0.4, 0.8, 1.6, 2.8),
            orders=Orders.quick(),
        )

    @property
    def routes(self) -> Routes:
        """The parts under test."""
        return Routes(self.langevin, self.jko, self.flow, self.bures_flow)

    def run(self, seed: int) -> Findings:
        found = self.findings()
        self._line(found, GaussianProblem(linear=(0.75,), quadratic=((0.75,),), weight=2.0), seed)
        self._line(found, MixtureProblem(), seed)
        self._line(found, DoubleWell(), seed)
        self._plane_gaussian(found, seed)
        self._plane_mixture(found, seed)
        self.orders.measure(found, self.routes, seed)
        return found

    def _routes(self, problem: Problem, seed: int) -> tuple[dict[str, list[Array]], list[Array], Grid]:
        """Quantiles by route and time, those of a second run of the particles, and the grid."""
        grid = Grid(problem, self.cells)
        start = grid_quantiles(grid, grid.prior, levels=COARSE)
        routes: dict[str, list[Array]] = {}
        routes["grid"] = [
            grid_quantiles(grid, rho, levels=COARSE) for rho in self.flow(grid).run(grid.prior, self.times)
        ]
        if isinstance(problem, GaussianProblem):
            start = gaussian_quantiles(0.0, 1.0, COARSE)
            laws = self.bures_flow(problem).run(problem.mean.numpy(), problem.covariance.numpy(), self.times)
            policy = GaussianPolicy(problem).run(problem.mean, problem.covariance, self.times)
            exact = [problem.law(t) for t in self.times]
            for label, moments in (
                ("closed form", [(m.numpy(), s.numpy()) for m, s in exact]),
                ("Bures ODE", laws),
                ("policy gradient", policy),
            ):
                routes[label] = [
                    gaussian_quantiles(float(m[0]), float(s[0, 0] ** 0.5), COARSE) for m, s in moments
                ]
        coarse, fine = (
            list(self.jko(problem, tau).run(start, self.times)) for tau in (2 * self.tau, self.tau)
        )
        routes["JKO"] = [2 * f - c for f, c in zip(fine, coarse, strict=True)]
        routes["Langevin"] = self._extrapolated(problem, seed, 0)
        return routes, self._extrapolated(problem, seed, 1), grid

    def _extrapolated(self, problem: Problem, seed: int, run: int) -> list[Array]:
        x = problem.sample(self.particles, generator("trajectories", seed, problem.name, run))
        laws = []
        finest = self.step / 2 if isinstance(problem, DoubleWell) else self.step  # its walls are steep
        for step in (2 * finest, finest):
            noise = generator("trajectories", seed, problem.name, run, step)
            chains = self.langevin(step).run(problem, x, self.times, noise)
            laws.append([particle_quantiles(c.x[:, 0], COARSE) for c in chains])
        return [2 * f - c for c, f in zip(*laws, strict=True)]

    def _line(self, found: Findings, problem: Problem, seed: int) -> None:
        routes, again, grid = self._routes(problem, seed)
        reference = "closed form" if "closed form" in routes else "grid"
        lines = []
        noise = [w2_quantiles(a, b, COARSE) for a, b in zip(routes["Langevin"], again, strict=True)]
        for label, laws in routes.items():
            if label == reference:
                continue
            gaps = [w2_quantiles(a, b, COARSE) for a, b in zip(laws, routes[reference], strict=True)]
            lines.append(Line(f"{label} - {reference}", self.times, tuple(max(g, 1e-13) for g in gaps), "o-"))
            sampled = label == "Langevin"
            exact = label in ("Bures ODE", "policy gradient")
            worst = int(np.argmax(gaps))
            found.add(
                f"{problem.name}: {label} against {reference}, all t",
                max(gaps),
                floor=max(noise) if sampled else 1e-9 if exact else self._floor(label),
                tolerance=self.tolerance_particles if sampled else 1e-7 if exact else self.tolerance,
                unit="W2",
                detail=f"largest at t = {self.times[worst]:g}",
            )
        lines.append(Line("two runs of Langevin", self.times, tuple(noise), "k:"))
        panels = [Panel(f"W2 over t, {problem.name}", "t", "W2", tuple(lines), log_y=True)]
        if not isinstance(problem, GaussianProblem):
            panels.append(self._evolution(problem, grid))
        found.figures.append(Figure(f"w2-{problem.name.replace(' ', '-').lower()}", tuple(panels)))

    def _floor(self, label: str) -> float:
        """Discretisation error of the deterministic routes: h² or Δu², and τ² after extrapolation."""
        return self.tau**2 if label == "JKO" else 1e-4 if self.cells >= 600 else 5e-4

    def _evolution(self, problem: Problem, grid: Grid) -> Panel:
        """Densities on the grid at some times, and the target."""
        x = tuple(grid.axes[0].tolist())
        times = (0.0, self.times[1], self.times[3], self.times[-1], 20.0)
        lines = [
            Line(f"t = {t:g}", x, tuple(rho.tolist()), "-")
            for t, rho in zip(times, self.flow(grid).run(grid.prior, times), strict=True)
        ]
        lines.append(Line("π exp(λr)", x, tuple(grid.target.tolist()), "k:"))
        return Panel(f"Density, {problem.name}", "x", "ρ_t", tuple(lines))

    def _plane_gaussian(self, found: Findings, seed: int) -> None:
        """A correlated Gaussian: Bures distance between moments of all routes at every t."""
        problem = correlated()
        exact = [(m.numpy(), s.numpy()) for m, s in (problem.law(t) for t in self.times)]
        routes = {
            "Bures ODE": (
                self.bures_flow(problem).run(problem.mean.numpy(), problem.covariance.numpy(), self.times)
            ),
            "policy gradient": GaussianPolicy(problem, 4).run(problem.mean, problem.covariance, self.times),
        }
        for label, laws in routes.items():
            gap = max(bures(*a, *b) for a, b in zip(laws, exact, strict=True))
            found.add(
                f"Gaussian 2-D: {label} against closed form, all t",
                gap,
                floor=2e-7,
                tolerance=1e-5,
                unit="W2",
            )
        grid = Grid(problem, self.cells_2d)
        laws = [grid.moments(rho) for rho in self.flow(grid).run(grid.prior, self.times)]
        gap = max(bures(*a, *b) for a, b in zip(laws, exact, strict=True))
        found.add(
            "Gaussian 2-D: grid against closed form, all t",
            gap,
            floor=self._second_order(grid),
            tolerance=8 * self.tolerance,
            unit="W2",
        )
        runs = []
        for run in range(2):
            x = problem.sample(self.particles, generator("plane", seed, run))
            pair = []
            for step in (2 * self.step, self.step):
                chains = self.langevin(step).run(problem, x, self.times, generator("plane", seed, run, step))
                pair.append([sample_moments(c.x) for c in chains])
            runs.append([(2 * f[0] - c[0], 2 * f[1] - c[1]) for c, f in zip(*pair, strict=True)])
        floor = max(bures(*a, *b) for a, b in zip(*runs, strict=True))
        gap = max(bures(*a, *b) for a, b in zip(runs[0], exact, strict=True))
        found.add(
            "Gaussian 2-D: Langevin moments against closed form, all t",
            gap,
            floor=floor,
            tolerance=self.tolerance_particles,
            unit="W2",
        )

    def _plane_mixture(self, found: Findings, seed: int) -> None:
        """Three modes: sliced W2 between grid and particles at every t."""
        problem, rows = three_modes(), directions(2, 8)
        grid = Grid(problem, self.cells_2d)
        exact = [sliced_grid(grid, rho, rows) for rho in self.flow(grid).run(grid.prior, self.times)]
        runs = []
        for run in range(2):
            x = problem.sample(self.particles, generator("three", seed, run))
            chains = self.langevin(self.step).run(
                problem, x, self.times, generator("three", seed, run, "noise")
            )
            runs.append([sliced_particles(c.x, rows) for c in chains])
        floor = max(sliced_w2(a, b) for a, b in zip(*runs, strict=True))
        gap = max(sliced_w2(a, b) for a, b in zip(runs[0], exact, strict=True))
        found.add(
            "mixture 2-D: Langevin against grid, all t",
            gap,
            floor=floor,
            tolerance=2 * self.tolerance_particles,
            unit="sliced W2",
            detail=f"dt = {self.step:g}, no extrapolation",
        )

    @staticmethod
    def _second_order(grid: Grid) -> float:
        """Scale of the grid's own error: the variance h²/12 of a cell, over a deviation of 1."""
        return float((grid.steps**2).max()) / 12
