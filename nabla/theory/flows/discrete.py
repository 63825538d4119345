"""The algorithm's own law, step by step and without particles: what finite steps and missing noise do.

On the line the unadjusted scheme is a Markov chain with a Gaussian kernel, integrated on the grid; without
noise every update is a map of the particle alone, and quantiles are pushed through it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from nabla.core.errors import ConfigError
from nabla.theory.arrays import Array
from nabla.theory.grids import Grid
from nabla.theory.problems.base import Problem, check_stability, gradient


class EulerKernel:
    """``x' = x - dt ∇L(x) + √(2 dt T) ξ`` on a 1-D grid: exact in law up to quadrature.

    Args:
        grid: 1-D, with spacing below the noise's deviation.
        step: dt.
        temperature: T > 0.
    """

    def __init__(self, grid: Grid, step: float, temperature: float = 1.0) -> None:
        check_stability(grid.problem, step)
        deviation = math.sqrt(2 * step * temperature)
        if grid.dim != 1 or deviation < 1.5 * grid.steps[0]:
            raise ConfigError(
                "The grid does not resolve the noise of a step",
                got=(float(grid.steps[0]), deviation),
                fix="Use more cells or a larger step.",
            )
        x = grid.points[:, 0].numpy()
        drift = x - step * gradient(grid.problem, grid.points)[:, 0].numpy()
        kernel = np.exp(-((x[:, None] - drift) ** 2) / (2 * deviation**2))
        self.kernel: Array = kernel / np.maximum(kernel.sum(0), 1e-300)
        self.grid = grid

    def advance(self, density: Array, steps: int) -> Array:
        """ρ after a number of steps, by repeated squaring of the kernel."""
        power, left = self.kernel, steps
        while left:
            if left & 1:
                density = power @ density
            left >>= 1
            if left:
                power = power @ power
        return density


def slope(problem: Problem) -> Callable[[Array], Array]:
    """``L'`` on the line as a function of arrays."""

    def derivative(x: Array) -> Array:
        return gradient(problem, torch.from_numpy(x)[:, None])[:, 0].numpy()  # type: ignore[no-any-return]

    return derivative


def gradient_map(problem: Problem, x: Array, step: float, steps: int) -> Array:
    """Points after gradient steps without noise."""
    derivative = slope(problem)
    for _ in range(steps):
        x = x - step * derivative(x)
    return x


def adam_map(problem: Problem, x: Array, rates: list[float]) -> Array:
    """Points after Adam's steps (Kingma and Ba, arXiv 1412.6980; β = 0.9, 0.999, ε = 1e-8), written out."""
    derivative = slope(problem)
    first, second = np.zeros_like(x), np.zeros_like(x)
    for t, rate in enumerate(rates, 1):
        g = derivative(x)
        first = 0.9 * first + 0.1 * g
        second = 0.999 * second + 0.001 * g**2
        x = x - rate * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
    return x


def basins(grid: Grid, density: Array) -> list[tuple[float, float]]:
    """(local minimum of L, mass of its basin under a density), by the maxima of L between them."""
    v, x = grid.potential, grid.axes[0]
    low = [i for i in range(1, len(v) - 1) if v[i] < v[i - 1] and v[i] <= v[i + 1]]
    high = [i for i in range(1, len(v) - 1) if v[i] > v[i - 1] and v[i] >= v[i + 1]]
    cuts = [0, *[i for i in high if low[0] < i < low[-1]], len(v)]
    mass = density * grid.volume
    pairs = []
    for minimum, start, stop in zip(low, cuts[:-1], cuts[1:], strict=True):
        around = slice(minimum - 1, minimum + 2)
        a, b, _ = np.polyfit(x[around], v[around], 2)
        tail = 0.5 * float(mass[start]) if start else 0.0
        nose = 0.5 * float(mass[stop]) if stop < len(v) else 0.0
        pairs.append((float(-b / (2 * a)), float(mass[start:stop].sum()) - tail + nose))
    return pairs
