"""Double wells: π with two wells and a barrier, and a bounded reward that prefers one of them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from nabla.theory.problems.base import Problem


class DoubleWell(Problem):
    """``π ∝ exp(-a (x₁² - 1)² - ½ |x_{2..d}|²)``, ``r(x) = ½ tanh(2 x₁)``.

    π's constant and the target's are known to quadrature only. Without noise every particle runs to a
    local minimum of L, so the collapsed law is known from π alone: the mass of each basin.

    Args:
        barrier: a; the barrier between the wells is ``e^{-a}``.
        dim: d.
        weight: λ.
        half_width: of the grid's box.
    """

    def __init__(
        self,
        barrier: float = 1.5,
        dim: int = 1,
        weight: float = 2.0,
        half_width: float = 2.9,
        name: str | None = None,
    ) -> None:
        self.barrier = barrier
        box = ((-half_width, half_width),) + ((-7.0, 7.0),) * (dim - 1)
        super().__init__(name or f"double well {dim}-D", dim, weight, box)

    def log_pi(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        return -self.barrier * (x[:, 0] ** 2 - 1) ** 2 - 0.5 * (x[:, 1:] ** 2).sum(-1)

    def reward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        return 0.5 * torch.tanh(2 * x[:, 0])

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
        edge = self.box[0][1] + 0.6
        grid = torch.linspace(-edge, edge, 20001, dtype=torch.float64)
        density = torch.exp(-self.barrier * (grid**2 - 1) ** 2)
        cumulative = torch.cumsum((density[1:] + density[:-1]) / 2, 0)
        cumulative = torch.cat([cumulative.new_zeros(1), cumulative / cumulative[-1]])
        u = torch.rand(count, generator=generator, dtype=torch.float64)
        at = torch.searchsorted(cumulative, u).clamp(1, len(grid) - 1)
        span = (cumulative[at] - cumulative[at - 1]).clamp_min(1e-300)
        first = grid[at - 1] + (grid[at] - grid[at - 1]) * (u - cumulative[at - 1]) / span
        rest = torch.randn(count, self.dim - 1, generator=generator, dtype=torch.float64)
        return torch.cat([first[:, None], rest], -1)
