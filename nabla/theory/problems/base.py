"""A problem: a prior law π and a reward r on R^d, with as many exact answers as it has."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from nabla.core.errors import ConfigError, NumericalError
from nabla.objectives.base import Objective
from nabla.objectives.weighted_sum import WeightedSum


class Problem(ABC):
    """``π`` and ``r`` in R^d, and λ. The target is ``ρ* ∝ π e^{λ r} = e^{-L}`` (SPEC section 2).

    ``loss`` is written out from ``log_pi`` and ``reward``; it is the reference that
    :mod:`nabla.objectives` is compared against and is used by the grid routes alone.

    Args:
        name: for reports.
        dim: d.
        weight: λ > 0.
        box: interval per axis ``(low, high)`` for grids.
    """

    def __init__(self, name: str, dim: int, weight: float, box: tuple[tuple[float, float], ...]) -> None:
        if not (weight > 0 and math.isfinite(weight)):
            raise ConfigError("λ must be positive and finite", got=weight)
        if len(box) != dim or any(not low < high for low, high in box):
            raise ConfigError("The box needs one interval (low, high) per dimension", got=box)
        self.name, self.dim, self.weight, self.box = name, dim, weight, box

    @abstractmethod
    def log_pi(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """``log π`` at points, nats, normalised or not."""

    @abstractmethod
    def reward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """``r`` at points."""

    @abstractmethod
    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """Independent draws from π: x⁰ of Theorem 4.1."""

    def sample_target(self, count: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """Independent draws from ``π e^{λ r}``. Raises ConfigError where there is no closed form."""
        raise ConfigError(f"{self.name} has no closed-form target", fix="Use the grid's law.")

    def loss(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """``L = -λ r - log π``, nats (Eq. 2)."""
        return -self.weight * self.reward(x) - self.log_pi(x)

    def objective(self) -> Objective:
        """The same loss as nabla's own objective, for Langevin particles and DTO."""
        return WeightedSum({"reward": self.weight, "likelihood": 1.0})


def gradient(problem: Problem, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """``∇L`` at points by autograd on ``loss``."""
    leaf = x.detach().requires_grad_()
    (found,) = torch.autograd.grad(problem.loss(leaf).sum(), leaf)
    return found


def hessians(problem: Problem, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d d"]:
    """``∇²L`` at points."""
    leaf = x.detach().requires_grad_()
    (first,) = torch.autograd.grad(problem.loss(leaf).sum(), leaf, create_graph=True)
    rows = []
    for i in range(problem.dim):
        total = first[:, i].sum()
        if total.requires_grad:
            (row,) = torch.autograd.grad(total, leaf, retain_graph=True, allow_unused=True)
            rows.append(torch.zeros_like(x) if row is None else row)
        else:
            rows.append(torch.zeros_like(x))
    return torch.stack(rows, 1)


def check_integrable(problem: Problem, *, rays: int = 64, octaves: int = 8, tail: float = 1e-6) -> None:
    """Raises NumericalError unless ``∫ e^{-L} dx`` converges, as far as rays from the box can tell.

    Along each ray from the box's centre the integral of ``r^{d-1} e^{-L}`` is taken out to ``2^octaves``
    box radii; the last octave of radii may hold at most ``tail`` of it.
    """
    low, high = (torch.tensor(side, dtype=torch.float64) for side in zip(*problem.box, strict=True))
    centre, size = (low + high) / 2, float((high - low).norm() / 2)
    directions = torch.randn(
        rays, problem.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    axes = torch.eye(problem.dim, dtype=torch.float64)
    directions = torch.cat([directions, axes, -axes])
    directions = directions / directions.norm(dim=-1, keepdim=True)
    inside = torch.linspace(1e-3, 1, 400, dtype=torch.float64)
    outside = 2 ** torch.linspace(0, octaves, 60 * octaves + 1, dtype=torch.float64)[1:]
    radii = size * torch.cat([inside, outside])
    with torch.no_grad():
        points = centre + directions[:, None] * radii[:, None]
        logs = -problem.loss(points.reshape(-1, problem.dim)).reshape(len(directions), -1)
    if bool(torch.isnan(logs).any()) or bool((logs == float("inf")).any()):
        raise NumericalError(
            f"L of {problem.name} is NaN or -infinity near its box", fix="Check the reward and π."
        )
    widths = torch.diff(radii, append=radii[-1:])
    logs = logs + (problem.dim - 1) * radii.log()
    cells = logs[:, :-1] + widths[:-1].log()
    total = torch.logsumexp(cells, -1)
    last = torch.logsumexp(cells[:, -60:], -1)
    share = float((last - torch.logsumexp(total, 0)).exp().sum())
    if share > tail:
        raise NumericalError(
            f"e^(-L) of {problem.name} does not look integrable: the outermost radii hold {share:.1e} of it",
            got=f"λ = {problem.weight}",
            fix="π must decay faster than e^(λ r) grows: lower λ or bound the reward.",
        )


def check_stability(problem: Problem, step: float, *, points: int = 512) -> None:
    """Raises ConfigError if a gradient step of size ``step`` diverges at a typical point: dt · λ_max >= 2,
    with the largest eigenvalue of ``∇²L`` over draws of π."""
    if not (step > 0 and math.isfinite(step)):
        raise ConfigError("A time step must be positive and finite", got=step)
    draws = problem.sample(points, torch.Generator().manual_seed(0))
    largest = float(torch.linalg.eigvalsh(hessians(problem, draws)).amax())
    if step * largest >= 2:
        raise ConfigError(
            f"The time step is beyond stability on {problem.name}: dt · λ_max = {step * largest:.2f} >= 2",
            got=step,
            fix=f"Use a step below {2 / largest:.3g}.",
        )
