"""Check 6: from the theorem's dynamics to the algorithm as used, one assumption removed at a time.

Every stage has a law of its own that is known without particles; the verdict compares the algorithm's
particles (nabla's classes) with that law, and the curve is the law's distance from ``π e^{λ r}``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from nabla.core.random import generator
from nabla.estimators.base import Estimator
from nabla.estimators.straight_through import StraightThrough
from nabla.refinement.descent import Descent
from nabla.schedulers.base import Step
from nabla.theory.arrays import Array
from nabla.theory.distances import grid_quantiles, particle_quantiles, w1_quantiles, w2_quantiles
from nabla.theory.duality.base import Check, checks
from nabla.theory.duality.gap_text import acceptance_rules, straight_through
from nabla.theory.figures import Figure, Line, Panel
from nabla.theory.flows.discrete import EulerKernel, adam_map, basins, gradient_map
from nabla.theory.flows.fokker_planck import FokkerPlanck
from nabla.theory.flows.langevin import Langevin, evaluate
from nabla.theory.grids import Grid
from nabla.theory.problems import DoubleWell, MixtureProblem, Problem
from nabla.theory.problems.text import SequenceSpace
from nabla.theory.report import Findings, fit_order


class Tempered(FokkerPlanck):
    """``∂ρ/∂t = ∇·(ρ∇L) + TΔρ``: the flow of L/T at time T t."""

    def __init__(self, grid: Grid, temperature: float) -> None:
        self.temperature = temperature
        super().__init__(grid)

    def potential(self) -> Array:
        return self.grid.potential / self.temperature


@checks.register("gap")
@dataclass(frozen=True)
class Gap(Check):
    """What each departure from Theorem 4.1 costs.

    Args:
        particles: N.
        cells: of the grid.
        step: η of the unadjusted stages.
        etas: at least four steps for the order of the bias.
        time: of the long runs, in units of t.
        temperatures: of the noise, between the theorem's 1 and deterministic DTO's 0.
        shrink: distances from the hard text for the order of the straight-through bias.
        tolerance: largest W2 between particles and their own law.
        langevin, descent, estimator: the parts under test.
    """

    claim = (
        "what noise, step size, optimiser, straight-through and acceptance each take away from the theorem"
    )
    particles: int = 300_000
    cells: int = 800
    step: float = 0.12
    etas: tuple[float, ...] = (0.32, 0.16, 0.08, 0.04, 0.02)
    time: float = 14.4
    temperatures: tuple[float, ...] = (1.0, 0.6, 0.3, 0.1)
    shrink: tuple[float, ...] = (0.04, 0.02, 0.01, 0.005, 0.0025)
    tolerance: float = 0.02
    langevin: Callable[[float, bool, float], Langevin] = Langevin
    descent: Callable[[], Descent] = Descent
    estimator: Callable[[], Estimator] = StraightThrough

    @classmethod
    def quick(cls) -> Gap:
        return cls(particles=30_000, cells=500, tolerance=0.06, temperatures=(1.0, 0.3))

    def run(self, seed: int) -> Findings:
        found = self.findings()
        problem = MixtureProblem()
        grid = Grid(problem, self.cells)
        self._bias(found, grid)
        stages = self._stages(found, problem, grid, seed)
        temperatures = self._noise(found, problem, grid, seed)
        self._collapse(found, DoubleWell(), seed)
        space = SequenceSpace()
        ste = straight_through(found, space, self.estimator(), self.shrink)
        text = acceptance_rules(found, space)
        found.figures.append(Figure("gap", (stages, temperatures, ste, text)))
        return found

    # -- continuous space ------------------------------------------------------------------------------

    def _bias(self, found: Findings, grid: Grid) -> None:
        """Finite steps: TV of the chain's stationary law from the target is O(η)."""
        errors = []
        for eta in self.etas:
            law = EulerKernel(grid, eta).advance(grid.target, round(60 / eta))
            errors.append(0.5 * float(np.abs(law - grid.target).sum()) * grid.volume)
        order = fit_order(self.etas, errors, expected=1.0, floor=1e-6)
        found.add(
            "finite steps: stationary bias of the unadjusted scheme, order in η",
            errors[-1],
            floor=1e-6,
            tolerance=1.5 * errors[0] * self.etas[-1] / self.etas[0],
            unit="TV",
            order=order,
            detail=f"TV {errors[0]:.4f} at η = {self.etas[0]:g}",
        )

    def _stages(self, found: Findings, problem: Problem, grid: Grid, seed: int) -> Panel:
        """One assumption less per stage."""
        target = grid_quantiles(grid, grid.target)
        prior = grid_quantiles(grid, grid.prior)
        noisy = EulerKernel(grid, self.step)
        long, steps = round(self.time / self.step), 20
        rates = [self.descent().learning_rate(Step(i, steps)) for i in range(steps)]
        laws = [
            (
                "theorem: MALA, long",
                grid_quantiles(grid, next(FokkerPlanck(grid).run(grid.prior, [self.time]))),
            ),
            (f"finite step η = {self.step:g}", grid_quantiles(grid, noisy.advance(grid.prior, long))),
            ("20 steps", grid_quantiles(grid, noisy.advance(grid.prior, steps))),
            ("no noise, 20 steps", gradient_map(problem, prior, self.step, steps)),
            ("no noise, converged", gradient_map(problem, prior, self.step, long)),
            ("AdamW, cosine, 20 steps", adam_map(problem, prior, rates)),
        ]
        runs = []
        for i in range(2):
            runs.append(self._particles(problem, seed, i, long, steps))
        distances = []
        for (label, law), a, b in zip(laws, *runs, strict=True):
            atoms = "no noise" in label  # W2 would grow with the square root of a share's noise
            metric = w1_quantiles if atoms else w2_quantiles
            gap, floor = metric(a, law), metric(a, b)
            if atoms:
                floor = max(floor, float(law.max() - law.min()) / self.particles**0.5)
            distances.append(w2_quantiles(law, target))
            found.add(
                f"stage '{label}': particles against the stage's own law",
                gap,
                floor=floor,
                tolerance=self.tolerance,
                unit="W1" if atoms else "W2",
                detail=f"the law's W2 from π e^(λr): {distances[-1]:.3f}",
            )
        distances.append(w2_quantiles(prior, target))
        labels = (*(label for label, _ in laws), "π itself")
        x = tuple(float(i) for i in range(len(labels)))
        return Panel(
            "One assumption less at a time",
            "",
            "W2 from π exp(λr)",
            (Line("", x, tuple(distances), "o-"),),
            ticks=labels,
        )

    def _particles(self, problem: Problem, seed: int, run: int, long: int, steps: int) -> list[Array]:
        """nabla's particles through the same stages."""
        x = problem.sample(self.particles, generator("gap", seed, run))
        found = []
        for i, (adjusted, temperature, count) in enumerate(
            (
                (True, 1.0, long),
                (False, 1.0, long),
                (False, 1.0, steps),
                (False, 0.0, steps),
                (False, 0.0, long),
            )
        ):
            sampler = self.langevin(self.step, adjusted, temperature)
            chain = sampler.final(problem, x, count * self.step, generator("gap", seed, run, i))
            found.append(particle_quantiles(chain.x[:, 0]))
        descent = self.descent()
        parameter = x.clone().requires_grad_()
        optimizer = descent.start(parameter)
        noise = generator("gap", seed, run, "descent")
        for i in range(steps):
            _, grad = evaluate(problem, problem.objective(), parameter.detach())
            descent.step(optimizer, parameter, grad, Step(i, steps), noise)
        return [*found, particle_quantiles(parameter.detach()[:, 0])]

    def _noise(self, found: Findings, problem: Problem, grid: Grid, seed: int) -> Panel:
        """Noise turned down: the law of the tempered flow at the same time, and its distance."""
        target, points = grid_quantiles(grid, grid.target), []
        time, step = 2.4, 0.02
        for temperature in self.temperatures:
            law = Tempered(grid, temperature).advance(grid.prior, temperature * time)
            quantiles = grid_quantiles(grid, law)
            runs = []
            for i in range(2):
                x = problem.sample(self.particles, generator("noise", seed, i, temperature))
                chain = self.langevin(step, False, temperature).final(
                    problem, x, time, generator("noise", seed, i, temperature, "noise")
                )
                runs.append(particle_quantiles(chain.x[:, 0]))
            points.append(w2_quantiles(quantiles, target))
            found.add(
                f"noise of temperature {temperature:g}: particles against the tempered flow, t = {time:g}",
                w2_quantiles(runs[0], quantiles),
                floor=w2_quantiles(runs[0], runs[1]),
                tolerance=self.tolerance + step,
                unit="W2",
                detail=f"the law's W2 from π e^(λr): {points[-1]:.3f}",
            )
        still = gradient_map(problem, grid_quantiles(grid, grid.prior), step, round(time / step))
        shown = (*self.temperatures, 0.0)
        points.append(w2_quantiles(still, target))
        return Panel(
            f"Noise turned down (t = {time:g})",
            "temperature of the noise",
            "W2 from π exp(λr)",
            (Line("", shown, tuple(points), "o-"),),
        )

    def _collapse(self, found: Findings, problem: Problem, seed: int) -> None:
        """Without noise: atoms at the local minima of L, with π's masses of their basins."""
        grid = Grid(problem, 4 * self.cells)
        count = min(self.particles, 100_000)
        x = problem.sample(count, generator("collapse", seed))
        chain = self.langevin(0.01, False, 0.0).final(problem, x, 12.0, generator("collapse", seed, "noise"))
        known, exact = basins(grid, grid.prior), basins(grid, grid.target)
        at = torch.tensor([m for m, _ in known], dtype=torch.float64)
        near = (chain.x - at).abs()
        nearest = near.argmin(-1)
        shares = torch.bincount(nearest, minlength=len(at)).double() / count
        masses = torch.tensor([m for _, m in known], dtype=torch.float64)
        detail = ", ".join(
            f"{float(s):.3f} at {p:.2f} (target {t:.3f})"
            for s, (p, _), (_, t) in zip(shares, known, exact, strict=True)
        )
        found.add(
            "no noise: share of particles at each mode of e^(-L) against π(basin)",
            0.5 * float((shares - masses).abs().sum()),
            floor=0.5 / count**0.5,
            tolerance=4 * 0.5 / count**0.5,
            unit="TV",
            detail=detail,
        )
        stray = float((near.amin(-1) > 1e-3).double().mean())
        found.add(
            "no noise: share of particles that are not at a mode",
            stray,
            floor=1e-5,
            tolerance=2e-3,
            unit="share",
        )
