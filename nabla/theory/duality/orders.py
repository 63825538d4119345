"""Orders of convergence against closed forms, each from at least four resolutions.

O(dt) of the unadjusted scheme, O(τ) of JKO, O(ε) of its entropic form, O(h²) of the grid, O(N^{-1/2}) of
particles on the line and O(N^{-1/d}) in d dimensions (Fournier and Guillin, 2015).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from nabla.core.random import generator
from nabla.theory.distances import (
    bures,
    gaussian_quantiles,
    grid_quantiles,
    particle_quantiles,
    sample_moments,
    w2_quantiles,
)
from nabla.theory.duality.base import Routes, order_panel
from nabla.theory.figures import Figure, Panel
from nabla.theory.flows.jko import COARSE, EntropicJKO
from nabla.theory.grids import Grid
from nabla.theory.pot import ot
from nabla.theory.problems import GaussianProblem
from nabla.theory.report import Findings, fit_order


@dataclass(frozen=True)
class Orders:
    """Resolutions of the convergence study, all against the Gaussian's closed form at ``time``.

    Args:
        time: t, a multiple of all steps and τ.
        steps: dt of the unadjusted scheme, with ``particles`` particles each.
        taus: τ of JKO.
        cells: of the grid.
        counts: N on the line, each averaged over ``repeats``.
        counts_high: N in ``dim`` dimensions.
        epsilons: of entropic JKO, on a grid of ``entropic_cells``.
        tolerance_extra: of the error at the finest dt, τ and h, as a multiple of what the order predicts.
    """

    time: float = 0.8
    steps: tuple[float, ...] = (0.2, 0.1, 0.05, 0.025)
    particles: int = 1_000_000
    taus: tuple[float, ...] = (0.2, 0.1, 0.05, 0.025, 0.0125)
    cells: tuple[int, ...] = (60, 120, 240, 480, 960)
    counts: tuple[int, ...] = (1_000, 4_000, 16_000, 64_000, 256_000)
    repeats: int = 24
    dim: int = 4
    counts_high: tuple[int, ...] = (200, 400, 800, 1600, 3200)
    repeats_high: int = 4
    epsilons: tuple[float, ...] = (0.16, 0.08, 0.04, 0.02)
    entropic_cells: int = 220

    @classmethod
    def quick(cls) -> Orders:
        """Smaller."""
        return cls(
            particles=250_000,
            taus=(0.2, 0.1, 0.05, 0.025),
            cells=(60, 120, 240, 480),
            counts=(500, 2_000, 8_000, 32_000),
            repeats=12,
            counts_high=(100, 200, 400, 800),
            repeats_high=3,
            epsilons=(0.16, 0.08, 0.04, 0.02),
            entropic_cells=130,
        )

    def measure(self, found: Findings, routes: Routes, seed: int) -> None:
        """Adds one report per order, and their figure."""
        problem = GaussianProblem(linear=(0.75,), quadratic=((0.75,),), weight=2.0)
        mean, covariance = (v.numpy() for v in problem.law(self.time))
        exact = gaussian_quantiles(float(mean[0]), float(covariance[0, 0] ** 0.5), COARSE)
        panels = [
            self._steps(found, routes, problem, seed),
            self._taus(found, routes, problem, exact),
            self._cells(found, routes, problem),
            self._entropic(found, routes, problem),
            self._counts(found, seed),
            self._counts_high(found, seed),
        ]
        found.figures.append(Figure("orders", tuple(panels)))

    def _steps(self, found: Findings, routes: Routes, problem: GaussianProblem, seed: int) -> Panel:
        """Moments, whose noise is smaller than that of quantiles."""
        mean, covariance = (v.numpy() for v in problem.law(self.time))
        errors, twice = [], []
        for step in self.steps:
            gaps = []
            for run in range(2):
                x = problem.sample(self.particles, generator("orders", seed, step, run))
                noise = generator("orders", "noise", seed, step, run)
                chain = routes.langevin(step).final(problem, x, self.time, noise)
                gaps.append(sample_moments(chain.x))
            errors.append(bures(*gaps[0], mean, covariance))
            twice.append(bures(*gaps[0], *gaps[1]))
        floor = float(np.mean(twice))
        order = fit_order(self.steps, errors, expected=1.0, floor=2 * floor)
        predicted = 1.5 * errors[0] * self.steps[-1] / self.steps[0]
        found.add(
            f"unadjusted Langevin, order in dt, N = {self.particles:,}",
            errors[-1],
            floor=floor,
            tolerance=predicted,
            unit="W2",
            order=order,
        )
        return order_panel("unadjusted Langevin", "dt", "W2", self.steps, errors, 1.0, floor)

    def _taus(self, found: Findings, routes: Routes, problem: GaussianProblem, exact: np.ndarray) -> Panel:
        start = gaussian_quantiles(0.0, 1.0, COARSE)
        errors = [
            w2_quantiles(next(routes.jko(problem, tau).run(start, [self.time])), exact, COARSE)
            for tau in self.taus
        ]
        floor = float((COARSE.u[1] - COARSE.u[0]) ** 2)
        order = fit_order(self.taus, errors, expected=1.0, floor=2 * floor)
        found.add(
            "JKO, order in τ",
            errors[-1],
            floor=floor,
            tolerance=1.5 * errors[0] * self.taus[-1] / self.taus[0],
            unit="W2",
            order=order,
        )
        return order_panel("JKO", "τ", "W2", self.taus, errors, 1.0, floor)

    def _cells(self, found: Findings, routes: Routes, problem: GaussianProblem) -> Panel:
        mean, covariance = (v.numpy() for v in problem.law(self.time))
        exact = gaussian_quantiles(float(mean[0]), float(covariance[0, 0] ** 0.5))
        errors, widths = [], []
        for cells in self.cells:
            grid = Grid(problem, cells)
            rho = next(routes.flow(grid).run(grid.prior, [self.time]))
            errors.append(w2_quantiles(grid_quantiles(grid, rho), exact))
            widths.append(float(grid.steps[0]))
        order = fit_order(widths, errors, expected=2.0, floor=1e-9)
        found.add(
            "finite volumes, order in h",
            errors[-1],
            floor=1e-9,
            tolerance=1.5 * errors[0] * (widths[-1] / widths[0]) ** 2,
            unit="W2",
            order=order,
        )
        return order_panel("finite volumes", "h", "W2", widths, errors, 2.0)

    def _entropic(self, found: Findings, routes: Routes, problem: GaussianProblem) -> Panel:
        """The bias of POT's entropic scheme against the exact one, same τ, after two steps."""
        grid = Grid(
            GaussianProblem(linear=(0.75,), quadratic=((0.75,),), weight=2.0, widths=5.8), self.entropic_cells
        )
        tau, steps = 0.2, 2
        start = gaussian_quantiles(0.0, 1.0, COARSE)
        exact = next(routes.jko(problem, tau).run(start, [steps * tau]))
        errors = []
        for epsilon in self.epsilons:
            rho = EntropicJKO(grid, tau, epsilon).run(grid.prior, steps)
            errors.append(w2_quantiles(grid_quantiles(grid, rho, levels=COARSE), exact, COARSE))
        floor = float(grid.steps[0] ** 2) / 4
        order = fit_order(self.epsilons, errors, expected=1.0, tolerance=0.25, floor=floor)
        found.add(
            "entropic JKO (POT), bias in ε",
            errors[-1],
            floor=floor,
            tolerance=1.7 * errors[0] * self.epsilons[-1] / self.epsilons[0],
            unit="W2",
            order=order,
            detail=f"bias {errors[0]:.4f} at ε = {self.epsilons[0]:g}",
        )
        return order_panel("entropic JKO (POT)", "ε", "W2", self.epsilons, errors, 1.0, floor)

    def _counts(self, found: Findings, seed: int) -> Panel:
        exact = gaussian_quantiles(0.0, 1.0)
        errors = []
        for count in self.counts:
            draws = generator("counts", seed, count)
            gaps = [
                w2_quantiles(
                    particle_quantiles(torch.randn(count, generator=draws, dtype=torch.float64)), exact
                )
                for _ in range(self.repeats)
            ]
            errors.append(float(np.mean(gaps)))
        order = fit_order(self.counts, errors, expected=-0.5, tolerance=0.08)
        found.add(
            "particles on the line, rate in N",
            errors[-1],
            floor=errors[-1] / self.repeats**0.5,
            tolerance=2 * errors[0] * (self.counts[0] / self.counts[-1]) ** 0.5,
            unit="W2",
            order=order,
        )
        return order_panel("particles, 1-D", "N", "W2", self.counts, errors, -0.5)

    def _counts_high(self, found: Findings, seed: int) -> Panel:
        """Two samples of the same law, by POT's exact transport."""
        errors = []
        for count in self.counts_high:
            draws = generator("high", seed, count)
            gaps = []
            for _ in range(self.repeats_high):
                a, b = (
                    torch.randn(count, self.dim, generator=draws, dtype=torch.float64).numpy()
                    for _ in range(2)
                )
                uniform = np.full(count, 1 / count)
                gaps.append(float(np.sqrt(ot.emd2(uniform, uniform, ot.dist(a, b), numItermax=2_000_000))))
            errors.append(float(np.mean(gaps)))
        order = fit_order(self.counts_high, errors, expected=-1 / self.dim, tolerance=0.08)
        found.add(
            f"particles in {self.dim}-D, rate in N (POT)",
            errors[-1],
            floor=errors[-1] * 0.05,
            tolerance=1.5 * errors[0] * (self.counts_high[0] / self.counts_high[-1]) ** (1 / self.dim),
            unit="W2",
            order=order,
            detail="two samples of one law: the floor of any d-D comparison",
        )
        return order_panel(f"particles, {self.dim}-D", "N", "W2", self.counts_high, errors, -1 / self.dim)
