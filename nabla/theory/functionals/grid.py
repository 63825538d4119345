"""F on a grid."""

from __future__ import annotations

import numpy as np

from nabla.theory.arrays import Array
from nabla.theory.grids import Grid


class GridEnergy:
    """F of densities ``[n]`` on a grid, nats (π normalised on the grid).

    Args:
        grid: with the problem.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.reward_term: Array = grid.potential + grid.log_pi  # -λ r
        self.log_prior: Array = np.log(grid.prior)

    def value(self, density: Array) -> float:
        """``E_ρ[-λ r] + KL(ρ ‖ π)``."""
        logs = np.log(np.maximum(density, 1e-300)) - self.log_prior
        return float(np.sum(density * (self.reward_term + logs)) * self.grid.volume)

    @property
    def minimum(self) -> float:
        """``F(ρ*) = -log E_π[e^{λ r}]``, the closed form."""
        weights = np.log(self.grid.prior * self.grid.volume) - self.reward_term
        top = float(weights.max())
        return -(top + float(np.log(np.exp(weights - top).sum())))

    def first_variation(self, density: Array) -> Array:
        """``δF/δρ`` per cell ``[n]``, up to the constant that mass conservation leaves free."""
        return self.reward_term + np.log(np.maximum(density, 1e-300)) - self.log_prior + 1

    def dissipation(self, density: Array) -> float:
        """``∫ ρ |∇ δF/δρ|²`` with centred differences at faces and mean densities there, O(h²)."""
        shape = (self.grid.cells,) * self.grid.dim
        variation = self.first_variation(density).reshape(shape)
        shaped = density.reshape(shape)
        total = 0.0
        for axis, h in enumerate(self.grid.steps):
            low = [slice(None)] * self.grid.dim
            high = [slice(None)] * self.grid.dim
            low[axis], high[axis] = slice(None, -1), slice(1, None)
            slope = np.diff(variation, axis=axis) / h
            face = (shaped[tuple(low)] + shaped[tuple(high)]) / 2
            total += float(np.sum(face * slope**2))
        return total * self.grid.volume
