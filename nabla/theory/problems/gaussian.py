"""Gaussian π with a linear and quadratic reward: everything is Gaussian, at every t."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from nabla.core.errors import NumericalError
from nabla.theory.problems.base import Problem

Matrix = Sequence[Sequence[float]]


class GaussianProblem(Problem):
    """``π = N(m, C)``, ``r(x) = b·x - ½ xᵀQx``.

    Then ``∇L = P (x - m*)`` with ``P = C⁻¹ + λQ``, ``m* = P⁻¹ (C⁻¹m + λb)``, and the flow from π is an
    Ornstein-Uhlenbeck process: ``m_t = m* + e^{-Pt}(m - m*)``, ``Σ_t = S + e^{-Pt}(C - S)e^{-Pt}``,
    ``S = P⁻¹``.

    Args:
        mean: m ``[d]``.
        covariance: C ``[d, d]``.
        linear: b ``[d]``.
        quadratic: Q ``[d, d]``, symmetric; zero by default.
        weight: λ.
        widths: half-width of the grid's box, in the largest standard deviations.

    Raises NumericalError where P is not positive definite: ``e^{-L}`` is not integrable.
    """

    def __init__(
        self,
        mean: Sequence[float] = (0.0,),
        covariance: Matrix = ((1.0,),),
        linear: Sequence[float] = (1.0,),
        quadratic: Matrix | None = None,
        weight: float = 1.0,
        widths: float = 7.0,
        name: str | None = None,
    ) -> None:
        self.mean = torch.tensor(mean, dtype=torch.float64)
        self.covariance = torch.tensor(covariance, dtype=torch.float64)
        self.linear = torch.tensor(linear, dtype=torch.float64)
        d = len(self.mean)
        zero = torch.zeros(d, d, dtype=torch.float64)
        self.quadratic = zero if quadratic is None else torch.tensor(quadratic, dtype=torch.float64)
        self._inverse = torch.linalg.inv(self.covariance)
        self.precision = self._inverse + weight * self.quadratic
        smallest = float(torch.linalg.eigvalsh(self.precision).amin())
        if smallest <= 1e-12:
            raise NumericalError(
                "e^(-L) is not integrable: C⁻¹ + λQ is not positive definite",
                got=f"smallest eigenvalue {smallest:.3g}",
                fix="Lower λ or use a reward that does not grow faster than -log π.",
            )
        self.target_covariance = torch.linalg.inv(self.precision)
        self.target_mean = self.target_covariance @ (self._inverse @ self.mean + weight * self.linear)
        spread = torch.maximum(self.covariance.diag(), self.target_covariance.diag()).sqrt()
        low = torch.minimum(self.mean, self.target_mean) - widths * spread
        high = torch.maximum(self.mean, self.target_mean) + widths * spread
        box = tuple(zip(low.tolist(), high.tolist(), strict=True))
        super().__init__(name or f"Gaussian {d}-D", d, weight, box)

    def log_pi(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        y = x - self.mean
        return -0.5 * ((y @ self._inverse) * y).sum(-1) - 0.5 * torch.logdet(  # type: ignore[no-any-return]
            6.283185307179586 * self.covariance
        )

    def reward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        return x @ self.linear - 0.5 * ((x @ self.quadratic) * x).sum(-1)

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
        return draw_gaussian(self.mean, self.covariance, count, generator)

    def sample_target(self, count: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
        return draw_gaussian(self.target_mean, self.target_covariance, count, generator)

    def law(self, time: float) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
        """Mean and covariance of ρ_t, started at π."""
        decay = torch.linalg.matrix_exp(-self.precision * time)
        mean = self.target_mean + decay @ (self.mean - self.target_mean)
        spread = decay @ (self.covariance - self.target_covariance) @ decay
        return mean, self.target_covariance + (spread + spread.T) / 2


def draw_gaussian(
    mean: Float[Tensor, " d"], covariance: Float[Tensor, "d d"], count: int, generator: torch.Generator
) -> Float[Tensor, "n d"]:
    """Draws from ``N(mean, covariance)``."""
    noise = torch.randn(count, len(mean), generator=generator, dtype=torch.float64)
    return mean + noise @ torch.linalg.cholesky(covariance).T  # type: ignore[no-any-return]


def correlated() -> GaussianProblem:
    """A correlated Gaussian in the plane and a reward whose curvature does not commute with it."""
    return GaussianProblem(
        (0.0, 0.0),
        ((1.0, 0.4), (0.4, 0.8)),
        (0.5, -0.25),
        ((0.5, 0.1), (0.1, 0.15)),
        weight=2.0,
        name="Gaussian 2-D",
        widths=6.5,
    )
