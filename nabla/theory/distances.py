"""Distances between laws: W2 by quantiles in 1-D, Bures between Gaussians, sliced W2, and TV on bins.

In 1-D every law is represented by its quantile function at the levels ``s = Φ(u)``, u on a regular grid:
W2 is then a weighted L2 distance (Villani, *Topics in Optimal Transportation*, Thm 2.18), and the tails
are resolved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from scipy import linalg
from scipy.special import ndtr
from torch import Tensor

from nabla.core.errors import ConfigError
from nabla.theory.arrays import Array
from nabla.theory.grids import Grid


@dataclass(frozen=True)
class Levels:
    """Probability levels ``Φ(u_i)`` with weights that sum to 1.

    Args:
        count: M.
        span: u runs from -span to span, in standard deviations.
    """

    count: int = 1601
    span: float = 6.0
    u: Array = field(init=False, repr=False, compare=False)
    s: Array = field(init=False, repr=False, compare=False)
    weights: Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        u = np.linspace(-self.span, self.span, self.count)
        edges = np.concatenate([[-np.inf], (u[1:] + u[:-1]) / 2, [np.inf]])
        object.__setattr__(self, "u", u)
        object.__setattr__(self, "s", ndtr(u))
        upper = ndtr(-edges)  # differences on the side where they keep their digits
        lower = ndtr(edges)
        weights = np.where(u < 0, np.diff(lower), -np.diff(upper))
        object.__setattr__(self, "weights", weights)


LEVELS = Levels()


def grid_quantiles(grid: Grid, density: Array, axis: int = 0, levels: Levels = LEVELS) -> Array:
    """Quantiles of a grid density (linear within a cell), O(h²) accurate ``[M]``."""
    mass = grid.marginal(density, axis) * grid.steps[axis]
    edges = grid.low[axis] + np.arange(grid.cells + 1) * grid.steps[axis]
    left = np.concatenate([[0.0], np.cumsum(mass)])
    right = np.concatenate([np.cumsum(mass[::-1])[::-1], [0.0]])
    low = np.interp(levels.s, left, edges)
    high = np.interp(ndtr(-levels.u), right[::-1], edges[::-1])
    return np.where(levels.u < 0, low, high)  # type: ignore[no-any-return]


def particle_quantiles(x: Float[Tensor, " n"], levels: Levels = LEVELS) -> Array:
    """Empirical quantiles ``[M]``."""
    ordered = torch.sort(x).values.numpy()
    at = np.clip(np.floor(levels.s * len(ordered)).astype(int), 0, len(ordered) - 1)
    return ordered[at].astype(np.float64)  # type: ignore[no-any-return]


def gaussian_quantiles(mean: float, deviation: float, levels: Levels = LEVELS) -> Array:
    """Quantiles of ``N(mean, deviation²)`` ``[M]``."""
    return mean + deviation * levels.u  # type: ignore[no-any-return]


def w2_quantiles(a: Array, b: Array, levels: Levels = LEVELS) -> float:
    """W2 of two laws on the line, in units of x."""
    return float(np.sqrt(np.sum(levels.weights * (a - b) ** 2)))


def w1_quantiles(a: Array, b: Array, levels: Levels = LEVELS) -> float:
    """W1 of two laws on the line, in units of x; for laws with atoms its noise is smaller than W2's."""
    return float(np.sum(levels.weights * np.abs(a - b)))


def bures(mean_a: Array, cov_a: Array, mean_b: Array, cov_b: Array) -> float:
    """W2 of two Gaussians (Dowson and Landau, 1982), in units of x."""
    root = np.real(linalg.sqrtm(cov_a))
    cross = np.real(linalg.sqrtm(root @ cov_b @ root))
    squared = float(np.sum((mean_a - mean_b) ** 2) + np.trace(cov_a + cov_b - 2 * cross))
    return math.sqrt(max(squared, 0.0))


def sample_moments(x: Float[Tensor, "n d"]) -> tuple[Array, Array]:
    """Mean ``[d]`` and covariance ``[d, d]`` of particles."""
    centred = x - x.mean(0)
    return x.mean(0).numpy(), ((centred.T @ centred) / (len(x) - 1)).numpy()


def directions(dim: int, count: int) -> Array:
    """Unit vectors ``[count, d]``, evenly spread over the half circle in 2-D, random (fixed) above."""
    if dim == 1:
        return np.ones((1, 1))
    if dim == 2:
        angle = np.pi * np.arange(count) / count
        return np.stack([np.cos(angle), np.sin(angle)], -1)
    made = np.random.default_rng(0).standard_normal((count, dim))
    return made / np.linalg.norm(made, axis=1, keepdims=True)  # type: ignore[no-any-return]


def sliced_w2(a: list[Array], b: list[Array], levels: Levels = LEVELS) -> float:
    """Root mean square over directions of the W2 of projections, given their quantiles ``[M]`` each."""
    return math.sqrt(float(np.mean([w2_quantiles(p, q, levels) ** 2 for p, q in zip(a, b, strict=True)])))


def sliced_particles(x: Float[Tensor, "n d"], rows: Array, levels: Levels = LEVELS) -> list[Array]:
    """Quantiles of the projections of particles on unit vectors."""
    return [particle_quantiles(x @ torch.from_numpy(row), levels) for row in rows]


def sliced_grid(grid: Grid, density: Array, rows: Array, levels: Levels = LEVELS) -> list[Array]:
    """Quantiles of the projections of a grid law; each cell's mass is spread over its projected width."""
    found = []
    points, mass = grid.points.numpy(), density * grid.volume
    keep = mass > 1e-14
    points, mass = points[keep], mass[keep] / mass[keep].sum()
    corners = np.stack(np.meshgrid(*[(-0.375, -0.125, 0.125, 0.375)] * grid.dim, indexing="ij"), -1)
    offsets = corners.reshape(-1, grid.dim) * grid.steps
    for row in rows:
        at = ((points @ row)[:, None] + offsets @ row).ravel()
        weight = np.repeat(mass / len(offsets), len(offsets))
        order = np.argsort(at)
        cumulative = np.cumsum(weight[order]) - weight[order] / 2
        found.append(np.interp(levels.s, cumulative, at[order]))
    return found


def histogram(x: Float[Tensor, " n"], edges: Array) -> Array:
    """Share of particles per bin ``[bins]``, those beyond the edges in the first and last bin."""
    inner = torch.from_numpy(edges[1:-1])
    index = torch.bucketize(x, inner)
    counts = torch.bincount(index, minlength=len(edges) - 1)
    return (counts.double() / len(x)).numpy()  # type: ignore[no-any-return]


def binned(grid: Grid, density: Array, edges: Array, axis: int = 0) -> Array:
    """Mass of a grid law per bin ``[bins]``, tails in the outer bins."""
    mass = grid.marginal(density, axis) * grid.steps[axis]
    cell_edges = grid.low[axis] + np.arange(grid.cells + 1) * grid.steps[axis]
    cumulative = np.concatenate([[0.0], np.cumsum(mass)])
    inner = np.interp(edges[1:-1], cell_edges, cumulative)
    return np.diff(np.concatenate([[0.0], inner, [cumulative[-1]]]))


def total_variation(p: Array, q: Array) -> float:
    """``½ Σ |p - q|`` over bins or states. Raises ConfigError for different supports."""
    if p.shape != q.shape:
        raise ConfigError("TV needs two laws on the same bins", got=(p.shape, q.shape))
    return float(0.5 * np.abs(p - q).sum())
