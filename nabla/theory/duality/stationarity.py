"""Check 1: closed form = argmin of L_PPO = Langevin law, in W2 and TV."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from nabla.core.random import generator
from nabla.theory.distances import (
    Levels,
    binned,
    bures,
    directions,
    grid_quantiles,
    histogram,
    particle_quantiles,
    sliced_grid,
    sliced_particles,
    sliced_w2,
    total_variation,
    w2_quantiles,
)
from nabla.theory.duality.base import Check, checks
from nabla.theory.figures import Figure, Line, Panel
from nabla.theory.flows.fokker_planck import FokkerPlanck
from nabla.theory.flows.langevin import Chain, Langevin
from nabla.theory.flows.policy import MixturePolicy, SimplexPolicy
from nabla.theory.flows.ppo import ClippedPPO
from nabla.theory.functionals.grid import GridEnergy
from nabla.theory.grids import Grid
from nabla.theory.problems import GaussianProblem, MixtureProblem
from nabla.theory.problems.mixture import three_modes
from nabla.theory.report import Findings

#: MALA outside these acceptance rates is no evidence: near 1 the chain does not move.
ACCEPTANCE = (0.15, 0.995)


@checks.register("stationarity")
@dataclass(frozen=True)
class Stationarity(Check):
    """Stationary laws of all routes against the closed form ``π e^{λ r}``.

    Args:
        cells: of the 1-D grid; cells_2d per axis in 2-D.
        particles: of the Langevin routes.
        time: how long they run, in units of t.
        step: dt of MALA; the unadjusted pair runs at dt/2 and dt/4.
        bins: of the TV histograms.
        tolerance, tolerance_tv: largest W2 (units of x) and TV of sampled laws that pass.
        langevin, energy, ppo, flow: the parts under test.
    """

    claim = "closed form = argmin of L_PPO = Langevin law"
    cells: int = 600
    cells_2d: int = 90
    particles: int = 400_000
    time: float = 14.4
    step: float = 0.24
    bins: int = 40
    tolerance: float = 0.012
    tolerance_tv: float = 0.01
    langevin: Callable[[float, bool], Langevin] = Langevin
    energy: type[GridEnergy] = GridEnergy
    flow: type[FokkerPlanck] = FokkerPlanck
    ppo: ClippedPPO = field(default_factory=ClippedPPO)

    @classmethod
    def quick(cls) -> Stationarity:
        return cls(
            cells=300,
            cells_2d=60,
            particles=60_000,
            tolerance=0.03,
            tolerance_tv=0.02,
            ppo=ClippedPPO(rounds=80),
        )

    def run(self, seed: int) -> Findings:
        found = self.findings()
        self._line(found, seed)
        self._plane(found, seed)
        self._ppo(found, seed)
        return found

    def _line(self, found: Findings, seed: int) -> None:
        problem = MixtureProblem()
        grid = Grid(problem, self.cells)
        exact = grid.target
        quantiles = grid_quantiles(grid, exact)
        truth = self._closed_form(grid)
        grid_error = total_variation(exact, truth) * grid.volume
        found.add(
            "mixture 1-D: closed form against e^(-L) normalised on the grid",
            grid_error,
            floor=1e-12,
            tolerance=1e-8,
            unit="TV",
        )
        late = next(self.flow(grid).run(grid.prior, [40.0]))
        found.add(
            "Fokker-Planck at t = 40",
            w2_quantiles(grid_quantiles(grid, late), quantiles),
            floor=1e-6,
            tolerance=1e-4,
            unit="W2",
        )
        energy = self.energy(grid)
        simplex = SimplexPolicy(grid, energy).minimise(grid.prior)
        found.add(
            "argmin of L_PPO over all grid laws (natural policy gradient)",
            total_variation(simplex, exact) * grid.volume,
            floor=1e-13,
            tolerance=1e-8,
            unit="TV",
        )
        start = torch.cat([problem.weights.log(), problem.means[:, 0], torch.tensor([problem.scale]).log()])
        policy = MixturePolicy(grid, energy)
        best = policy.density(policy.minimise(start.double())).numpy()
        best = best / (best.sum() * grid.volume)
        found.add(
            "argmin of L_PPO over mixtures (policy gradient, L-BFGS)",
            total_variation(best, exact) * grid.volume,
            floor=1e-9,
            tolerance=1e-4,
            unit="TV",
        )
        self._particles(found, grid, best, seed)

    def _particles(self, found: Findings, grid: Grid, best: np.ndarray, seed: int) -> None:
        """Langevin particles on the line against the grid's target; draws from the target itself tell how
        near a finite sample comes.

        Args:
            found: taken down here.
            grid: with the target.
            best: density of the best mixture, for the figure.
            seed: of the draws.
        """
        problem, levels, exact = MixtureProblem(), Levels(), grid.target
        quantiles = grid_quantiles(grid, exact)
        edges = np.linspace(quantiles[200], quantiles[-200], self.bins + 1)
        runs = [
            problem.sample_target(self.particles, generator("stationarity", "floor", seed, i))
            for i in range(4)
        ]
        w2_floor = max(
            w2_quantiles(particle_quantiles(a[:, 0]), particle_quantiles(b[:, 0]), levels)
            for a, b in ((runs[0], runs[1]), (runs[2], runs[3]))
        )
        tv_floor = max(
            total_variation(histogram(a[:, 0], edges), histogram(b[:, 0], edges))
            for a, b in ((runs[0], runs[1]), (runs[2], runs[3]))
        )
        chain = self._chain(problem, self.step, True, seed)
        detail = f"acceptance {chain.acceptance:.3f}, mean squared move {chain.moved:.2f}"
        doubt = _doubt(chain)
        left = w2_quantiles(
            grid_quantiles(grid, next(self.flow(grid).run(grid.prior, [self.time]))), quantiles
        )
        if left > self.tolerance / 3:
            doubt = f"the flow itself is still {left:.1e} away at t = {self.time:g}"
        found.add(
            f"Langevin law, MALA, {self.particles:,} particles",
            w2_quantiles(particle_quantiles(chain.x[:, 0]), quantiles),
            floor=w2_floor,
            tolerance=self.tolerance,
            unit="W2",
            detail=detail,
            doubt=doubt,
        )
        found.add(
            "Langevin law, MALA",
            total_variation(histogram(chain.x[:, 0], edges), binned(grid, exact, edges)),
            floor=tv_floor,
            tolerance=self.tolerance_tv,
            unit="TV",
            detail=detail,
            doubt=doubt,
        )
        self._extrapolated(found, problem, quantiles, w2_floor, seed)
        found.figures.append(_densities(grid, exact, best, chain, edges))

    def _extrapolated(
        self, found: Findings, problem: MixtureProblem, quantiles: np.ndarray, floor: float, seed: int
    ) -> None:
        """Unadjusted Langevin, whose law is wrong by a term in dt, from two step sizes to dt = 0."""
        coarse = particle_quantiles(self._chain(problem, self.step / 2, False, seed).x[:, 0])
        fine = particle_quantiles(self._chain(problem, self.step / 4, False, seed).x[:, 0])
        found.add(
            "Langevin law, unadjusted, extrapolated to dt = 0",
            w2_quantiles(2 * fine - coarse, quantiles),
            floor=floor * 5**0.5,
            tolerance=2.5 * self.tolerance,
            unit="W2",
            detail=f"{w2_quantiles(coarse, quantiles):.4f} at dt = {self.step / 2:g}, "
            f"{w2_quantiles(fine, quantiles):.4f} at dt = {self.step / 4:g}",
        )

    def _plane(self, found: Findings, seed: int) -> None:
        """A mixture of three modes in the plane: sliced W2."""
        problem = three_modes()
        grid = Grid(problem, self.cells_2d)
        rows = directions(2, 12)
        exact = sliced_grid(grid, grid.target, rows)
        chain = self._chain(problem, self.step, True, seed)
        a, b = (
            problem.sample_target(self.particles, generator("stationarity", "plane", seed, i))
            for i in range(2)
        )
        floor = sliced_w2(sliced_particles(a, rows), sliced_particles(b, rows))
        found.add(
            "mixture 2-D: closed-form draws against the grid",
            sliced_w2(sliced_particles(a, rows), exact),
            floor=floor,
            tolerance=1.5 * self.tolerance,
            unit="sliced W2",
        )
        found.add(
            "mixture 2-D: Langevin law, MALA",
            sliced_w2(sliced_particles(chain.x, rows), exact),
            floor=floor,
            tolerance=1.5 * self.tolerance,
            unit="sliced W2",
            detail=f"acceptance {chain.acceptance:.3f}",
            doubt=_doubt(chain),
        )

    def _ppo(self, found: Findings, seed: int) -> None:
        problem = GaussianProblem(linear=(0.75,), quadratic=((0.5,),), weight=2.0)
        ends = [
            self.ppo.run(problem, problem.mean, problem.covariance, generator("ppo", seed, i))
            for i in range(2)
        ]
        (m, s), (m2, s2) = [(m.numpy(), s.numpy()) for m, s in ends]
        value = bures(m, s, problem.target_mean.numpy(), problem.target_covariance.numpy())
        found.add(
            "Gaussian 1-D: clipped PPO on samples against the closed form",
            value,
            floor=bures(m, s, m2, s2),
            tolerance=0.05,
            unit="W2",
            detail=f"mean {m[0]:.3f} ({float(problem.target_mean[0]):.3f}), "
            f"variance {s[0, 0]:.3f} ({float(problem.target_covariance[0, 0]):.3f})",
        )

    def _chain(self, problem: MixtureProblem, step: float, adjusted: bool, seed: int) -> Chain:
        start = problem.sample(self.particles, generator("stationarity", "start", seed, problem.name, step))
        sampler = self.langevin(step, adjusted)
        return sampler.final(
            problem, start, self.time, generator("stationarity", "noise", seed, step, adjusted)
        )

    def _closed_form(self, grid: Grid) -> np.ndarray:
        """The target from its own formula: a mixture with tilted weights and shifted means."""
        p = grid.problem
        assert isinstance(p, MixtureProblem)
        z = (grid.points[:, 0, None] - p.target_means[:, 0]) / p.scale
        density = (p.target_weights * torch.exp(-0.5 * z**2)).sum(-1) / (p.scale * (2 * np.pi) ** 0.5)
        return density.numpy()  # type: ignore[no-any-return]


def _doubt(chain: Chain) -> str | None:
    low, high = ACCEPTANCE
    if low <= chain.acceptance <= high:
        return None
    return f"acceptance {chain.acceptance:.3f}: the chain does not move"


def _densities(grid: Grid, exact: np.ndarray, policy: np.ndarray, chain: Chain, edges: np.ndarray) -> Figure:
    x = tuple(grid.axes[0].tolist())
    middle = (edges[1:] + edges[:-1]) / 2
    shares = histogram(chain.x[:, 0], edges)[1:-1] / np.diff(edges)[1:-1]
    lines = (
        Line("π", x, tuple(grid.prior.tolist()), ":"),
        Line("closed form π exp(λr)", x, tuple(exact.tolist()), "-"),
        Line("argmin of L_PPO, mixtures", x, tuple(policy.tolist()), "--"),
        Line("Langevin particles (MALA)", tuple(middle[1:-1].tolist()), tuple(shares.tolist()), "."),
    )
    return Figure("stationarity", (Panel("Stationary laws", "x", "density", lines),))
