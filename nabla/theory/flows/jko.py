"""Route 2: the JKO scheme (Jordan, Kinderlehrer and Otto, 1998),
``ρ_{k+1} = argmin_ρ  W2²(ρ, ρ_k) / 2τ + F(ρ)``, twice over.

*Exact, on the line*: in the quantile function X of ρ, W2 is an L2 distance and F is
``E[L(X)] - E[log X']``; with X a function of a standard normal u, each step is Newton on a tridiagonal
Hessian. *Entropic, on a grid*: a step is semi-relaxed unbalanced transport from ρ_k to ``e^{-L}`` with a KL
penalty on one marginal, solved by POT's scaling algorithm (Peyré, arXiv 1502.06216; Chizat et al., arXiv
1607.05816). Its regularisation ε blurs each step by a variance of about ε/2.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy.linalg import solveh_banded

from nabla.core.errors import ConfigError, NumericalError
from nabla.theory.arrays import Array
from nabla.theory.distances import Levels
from nabla.theory.grids import Grid
from nabla.theory.pot import ot
from nabla.theory.problems.base import Problem, gradient, hessians

#: Levels of the Lagrangian scheme: its error is O(Δu²).
COARSE = Levels(count=601)


class QuantileJKO:
    """Exact proximal steps on the line.

    Args:
        problem: 1-D.
        step: τ.
        levels: resolution.
    """

    def __init__(self, problem: Problem, step: float, levels: Levels = COARSE) -> None:
        if problem.dim != 1:
            raise ConfigError("The quantile scheme is for the line", got=problem.dim)
        if not step > 0:
            raise ConfigError("τ must be positive", got=step)
        self.problem, self.step, self.levels = problem, step, levels
        middle = (levels.u[1:] + levels.u[:-1]) / 2
        self.spacing = np.diff(levels.u)
        self.between = np.exp(-(middle**2) / 2) / np.sqrt(2 * np.pi) * self.spacing

    def energy(self, x: Array) -> float:
        """F of a quantile function ``[M]``, up to a constant."""
        loss = self.problem.loss(torch.from_numpy(x)[:, None]).detach().numpy()
        stretch = np.log(np.diff(x) / self.spacing)
        return float(self.levels.weights @ loss - self.between @ stretch)

    def _objective(self, x: Array, old: Array) -> float:
        if np.any(np.diff(x) <= 0):
            return np.inf
        return float(self.levels.weights @ (x - old) ** 2 / (2 * self.step)) + self.energy(x)

    def advance(self, old: Array, *, iterations: int = 60) -> Array:
        """One proximal step. Raises NumericalError if Newton does not converge."""
        x, weights = old.copy(), self.levels.weights
        value = self._objective(x, old)
        for _ in range(iterations):
            points = torch.from_numpy(x)[:, None]
            slope = gradient(self.problem, points)[:, 0].numpy()
            curvature = np.maximum(hessians(self.problem, points)[:, 0, 0].numpy(), -0.9 / self.step)
            gaps = np.diff(x)
            pull, push = self.between / gaps, self.between / gaps**2
            g = weights * ((x - old) / self.step + slope)
            g[:-1] += pull
            g[1:] -= pull
            diagonal = weights * (1 / self.step + curvature)
            diagonal[:-1] += push
            diagonal[1:] += push
            bands = np.zeros((2, len(x)))
            bands[0, 1:], bands[1] = -push, diagonal
            move = -solveh_banded(bands, g, check_finite=False)
            decrement = float(-g @ move)
            if decrement < 1e-22:
                return x
            scale = 1.0
            while scale > 1e-10:
                trial = x + scale * move
                new = self._objective(trial, old)
                if new <= value - 1e-4 * scale * decrement + 1e-15 * abs(value):
                    break
                scale /= 2
            else:
                if decrement < 1e-14:  # rounding: no better point in float64
                    return x
                raise NumericalError("A JKO step did not converge", got=decrement, fix="Lower τ.")
            x, value = trial, new
        if decrement < 1e-12:
            return x
        raise NumericalError("A JKO step did not converge", got=decrement, fix="Lower τ.")

    def run(self, x: Array, times: Sequence[float]) -> Iterator[Array]:
        """Quantile functions at increasing multiples of τ."""
        done = 0
        for time in times:
            count = round(time / self.step)
            if abs(count * self.step - time) > 1e-9:
                raise ConfigError("Times must be multiples of τ", got=(time, self.step))
            while done < count:
                x = self.advance(x)
                done += 1
            yield x


class EntropicJKO:
    """Proximal steps on a grid by POT, with entropic regularisation.

    Args:
        grid: with the problem; its spacing must resolve the blur, ``h <= √ε``.
        step: τ.
        epsilon: ε, in units of squared distance.
        iterations: of the scaling algorithm, at most.
    """

    def __init__(self, grid: Grid, step: float, epsilon: float, iterations: int = 5000) -> None:
        if float(grid.steps.max()) > np.sqrt(epsilon):
            raise ConfigError(
                "The grid does not resolve the entropic blur",
                got=f"h = {grid.steps.max():.3g}, √ε = {np.sqrt(epsilon):.3g}",
                fix="Use more cells or a larger ε.",
            )
        self.grid, self.step, self.epsilon, self.iterations = grid, step, epsilon, iterations
        points = grid.points.numpy()
        self.cost = ot.dist(points, points)
        self.reference: Array = grid.target * grid.volume

    def advance(self, density: Array) -> Array:
        """One step: ``min_P <C, P> + ε KL(P|·) + 2τ KL(P^T 1 ‖ e^{-L})`` with ``P 1 = ρ_k``."""
        source = np.maximum(density * self.grid.volume, 1e-300)
        source = source / source.sum()
        with warnings.catch_warnings(), np.errstate(all="ignore"):  # a loss of mass is checked below
            warnings.simplefilter("ignore")
            plan = ot.unbalanced.sinkhorn_unbalanced(
                source,
                self.reference,
                self.cost,
                self.epsilon,
                (float("inf"), 2 * self.step),
                method="sinkhorn_translation_invariant",
                reg_type="kl",
                c=np.ones_like(self.cost),
                numItermax=self.iterations,
                stopThr=1e-10,
            )
        mass = np.asarray(plan).sum(0)
        total = float(mass.sum())
        if not np.isfinite(total) or abs(total - 1) > 1e-3:
            raise NumericalError("The entropic JKO step lost mass", got=total, fix="Use a larger ε.")
        return mass / total / self.grid.volume  # type: ignore[no-any-return]

    def run(self, density: Array, steps: int) -> Array:
        """ρ after a number of steps."""
        for _ in range(steps):
            density = self.advance(density)
        return density
