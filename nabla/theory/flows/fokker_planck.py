"""Route 1: the Fokker-Planck equation ``∂ρ/∂t = ∇·(ρ∇L) + Δρ`` on a grid.

Space: finite volumes with Scharfetter-Gummel fluxes (1969; in statistics Chang and Cooper, 1970), second
order. The rate from cell i to its neighbour j is ``B(L_j - L_i)/h²``, ``B(x) = x/(e^x - 1)``: a reversible
Markov chain whose stationary law is ``e^{-L}`` at cell centres exactly, with no-flux boundaries.
Time: the chain's own transition probabilities by uniformisation (Jensen, 1953), a convex combination of
powers of a stochastic matrix. So there is no time-step error, mass is exact, densities are positive, and
the relative entropy to ``e^{-L}`` decreases (data processing), whatever the step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import sparse
from scipy.stats import poisson

from nabla.core.errors import ConfigError, NumericalError
from nabla.theory.arrays import Array
from nabla.theory.grids import Grid

#: Jumps per uniformisation sub-step: e^{-400} is still a number.
JUMPS = 400.0


class FokkerPlanck:
    """The flow on a grid.

    Args:
        grid: with the problem.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.generator = self._assemble()
        rates = -self.generator.diagonal()
        self.fastest = float(rates.max())
        if not np.isfinite(self.fastest) or self.fastest <= 0:
            raise NumericalError("The potential is not finite on the grid", got=self.fastest)

    def potential(self) -> Array:
        """L at cell centres ``[n]``."""
        return self.grid.potential

    def _assemble(self) -> sparse.csr_matrix:
        """``A`` with ``dρ/dt = Aρ``; columns sum to zero."""
        grid = self.grid
        shape = (grid.cells,) * grid.dim
        index = np.arange(grid.cells**grid.dim).reshape(shape)
        potential = self.potential()
        rows, columns, values = [], [], []
        for axis, h in enumerate(grid.steps):
            a = np.take(index, np.arange(grid.cells - 1), axis).ravel()
            b = np.take(index, np.arange(1, grid.cells), axis).ravel()
            rise = potential[b] - potential[a]
            for source, sink, difference in ((a, b, rise), (b, a, -rise)):
                rate = bernoulli(difference) / h**2
                rows += [sink, source]
                columns += [source, source]
                values += [rate, -rate]
        size = index.size
        made = sparse.coo_matrix(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(size, size)
        )
        return made.tocsr()

    def advance(self, density: Array, time: float) -> Array:
        """ρ after ``time``. Raises ConfigError for negative times."""
        if time < 0 or not np.isfinite(time):
            raise ConfigError("Times must not be negative", got=time)
        if time == 0:
            return density
        pieces = max(1, int(np.ceil(self.fastest * time / JUMPS)))
        mean = self.fastest * time / pieces
        last = int(poisson.ppf(1 - 1e-16, mean)) + 2
        weights = poisson.pmf(np.arange(last + 1), mean)
        weights = weights / weights.sum()
        step = (sparse.identity(len(density), format="csr") + self.generator / self.fastest).tocsr()
        for _ in range(pieces):
            power, total = density, weights[0] * density
            for weight in weights[1:]:
                power = step @ power
                total = total + weight * power
            density = total
        return density

    def run(self, density: Array, times: Sequence[float]) -> Iterator[Array]:
        """ρ at increasing times, from ρ at 0."""
        now = 0.0
        for time in times:
            density = self.advance(density, time - now)
            now = time
            yield density


def bernoulli(x: Array) -> Array:
    """``x / (e^x - 1)``, 1 at 0, without overflow."""
    small = np.abs(x) < 1e-5
    safe = np.where(small, 1.0, np.minimum(x, 700.0))
    return np.where(small, 1 - x / 2 + x**2 / 12, safe / np.expm1(safe))
