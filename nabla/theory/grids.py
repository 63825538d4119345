"""Cell-centred Cartesian grids, and how much of a law they cut off."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nabla.core.errors import ConfigError
from nabla.theory.arrays import Array
from nabla.theory.problems.base import Problem, check_integrable

#: Largest mass of π or of the target outside the box, unless told otherwise.
CUT = 1e-7


class Grid:
    """Cells of equal size that fill a problem's box.

    Args:
        problem: gives box, π and L.
        cells: per axis.
        cut: largest mass of π or of ``e^{-L}`` that the box may cut off.

    Raises NumericalError if ``e^{-L}`` is not integrable and ConfigError if the box cuts off more mass.
    Densities on a grid are masses per cell divided by ``volume``, flattened ``[n]``, last axis fastest.
    """

    def __init__(self, problem: Problem, cells: int, *, cut: float = CUT) -> None:
        if cells < 8:
            raise ConfigError("A grid needs at least 8 cells per axis", got=cells)
        check_integrable(problem)
        self.problem, self.cells = problem, cells
        self.low = np.array([low for low, _ in problem.box])
        self.high = np.array([high for _, high in problem.box])
        self.steps: Array = (self.high - self.low) / cells
        self.volume = float(np.prod(self.steps))
        self.axes = [low + (np.arange(cells) + 0.5) * h for low, h in zip(self.low, self.steps, strict=True)]
        self.points = self._points(self.axes)
        self.potential: Array = problem.loss(self.points).detach().numpy()
        self.log_pi: Array = problem.log_pi(self.points).detach().numpy()
        self.lost = max(self._outside(self.potential, target=True), self._outside(-self.log_pi, target=False))
        if self.lost > cut:
            raise ConfigError(
                f"The grid of {problem.name} cuts off a mass of {self.lost:.1e}",
                got=problem.box,
                fix=f"Widen the box, or allow it with cut >= {self.lost:.1e}.",
            )

    @staticmethod
    def _points(axes: list[Array]) -> Float[Tensor, "n d"]:
        mesh = np.meshgrid(*axes, indexing="ij")
        return torch.from_numpy(np.stack([m.ravel() for m in mesh], -1))

    def _outside(self, inside: Array, *, target: bool) -> float:
        """Share of ``e^{-potential}`` outside, from a box of twice the size."""
        count = min(self.cells, 4000 if self.dim == 1 else 60)
        middle, half = (self.low + self.high) / 2, self.high - self.low
        axes = [m - h + (np.arange(2 * count) + 0.5) * (h / count) for m, h in zip(middle, half, strict=True)]
        points = self._points(axes)
        values = self.problem.loss(points) if target else -self.problem.log_pi(points)
        values = values.detach()
        out = ((points < torch.from_numpy(self.low)) | (points > torch.from_numpy(self.high))).any(-1)
        if not bool(out.any()):
            return 0.0
        beyond = torch.logsumexp(-values[out], 0) - torch.logsumexp(-values, 0)
        return float(beyond.exp())

    @property
    def dim(self) -> int:
        """d."""
        return len(self.axes)

    def normalise(self, log_density: Array) -> Array:
        """A density from its logarithm up to a constant ``[n]``."""
        density = np.exp(log_density - log_density.max())
        return density / (density.sum() * self.volume)  # type: ignore[no-any-return]

    @property
    def prior(self) -> Array:
        """π as a density ``[n]``."""
        return self.normalise(self.log_pi)

    @property
    def target(self) -> Array:
        """``π e^{λ r}`` as a density ``[n]``: the closed form."""
        return self.normalise(-self.potential)

    def mass(self, density: Array) -> float:
        """Total mass."""
        return float(density.sum() * self.volume)

    def marginal(self, density: Array, axis: int) -> Array:
        """Density along one axis ``[cells]``."""
        shaped = density.reshape((self.cells,) * self.dim)
        others = tuple(i for i in range(self.dim) if i != axis)
        return shaped.sum(others) * self.volume / self.steps[axis]  # type: ignore[no-any-return]

    def moments(self, density: Array) -> tuple[Array, Array]:
        """Mean ``[d]`` and covariance ``[d, d]``."""
        x, mass = self.points.numpy(), density * self.volume
        mean = mass @ x
        centred = x - mean
        return mean, (centred * mass[:, None]).T @ centred
