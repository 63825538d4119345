"""Route 5, the PPO side: descend the RL objective ``L_PPO(θ) = F(ρ_θ)`` over a family of laws.

Gaussians (affine maps) follow the continuous-time policy gradient; mixtures are minimised by quasi-Newton;
the simplex of all grid laws, the non-parametric limit, by natural policy gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy.integrate import solve_ivp
from torch import Tensor

from nabla.core.errors import ConfigError, NumericalError
from nabla.theory.arrays import Array
from nabla.theory.flows.families import Affine, gauss_hermite
from nabla.theory.functionals.grid import GridEnergy
from nabla.theory.grids import Grid
from nabla.theory.problems.base import Problem
from nabla.theory.problems.mixture import mixture_log_density


class GaussianPolicy:
    """``dθ/dt = -∇_θ L_PPO`` for ``x = m + A ξ``: plain policy gradient in (m, A).

    In these coordinates its law follows the Bures-Wasserstein flow: ``dA/dt = -E[∇L ξᵀ] + A^{-T}`` gives
    ``dΣ/dt = 2I - E[∇L (x-m)ᵀ] - (…)ᵀ``.

    Args:
        problem: one- or two-dimensional.
        nodes: of Gauss-Hermite quadrature per axis.
        tolerance: of the integrator.
    """

    def __init__(self, problem: Problem, nodes: int = 12, tolerance: float = 1e-10) -> None:
        self.problem, self.tolerance = problem, tolerance
        self.family = Affine(problem.dim)
        self.noise, self.weights = gauss_hermite(problem.dim, nodes)

    def gradient(self, theta: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
        """``∇_θ L_PPO`` by autograd."""
        leaf = theta.detach().requires_grad_()
        (found,) = torch.autograd.grad(self.family.energy(self.problem, leaf, self.noise, self.weights), leaf)
        return found

    def run(
        self, mean: Float[Tensor, " d"], covariance: Float[Tensor, "d d"], times: Sequence[float]
    ) -> list[tuple[Array, Array]]:
        """(mean, covariance) at increasing times."""
        start = self.family.start(mean, covariance).numpy()

        def rate(_: float, theta: Array) -> Array:
            return -self.gradient(torch.from_numpy(theta.copy())).numpy()  # type: ignore[no-any-return]

        found = solve_ivp(
            rate,
            (0.0, max(times)),
            start,
            t_eval=list(times),
            rtol=self.tolerance,
            atol=self.tolerance,
            method="DOP853",
        )
        if not found.success:
            raise NumericalError(f"The policy gradient flow could not be integrated: {found.message}")
        pairs = [self.family.moments(torch.from_numpy(theta.copy())) for theta in found.y.T]
        return [(m.numpy(), s.numpy()) for m, s in pairs]


class MixturePolicy:
    """argmin of L_PPO over mixtures of K Gaussians of a common scale, on the line, by L-BFGS.

    Args:
        grid: quadrature points.
        energy: F on the grid.
    """

    def __init__(self, grid: Grid, energy: GridEnergy | None = None) -> None:
        if grid.dim != 1:
            raise ConfigError("The mixture policy is for the line", got=grid.dim)
        self.grid, self.energy = grid, energy or GridEnergy(grid)

    def density(self, theta: Float[Tensor, " p"]) -> Float[Tensor, " n"]:
        """ρ_θ at the grid's points; θ = (K logits, K means, log scale)."""
        k = (len(theta) - 1) // 2
        logs = mixture_log_density(
            self.grid.points,
            theta[:k].log_softmax(0),
            theta[k : 2 * k, None],
            float(theta[-1].detach().exp()),
        )
        return logs.exp()

    def _loss(self, theta: Tensor) -> Tensor:
        k = (len(theta) - 1) // 2
        x, scale = self.grid.points[:, 0], theta[-1].exp()
        z = (x[:, None] - theta[k : 2 * k]) / scale
        logs = torch.logsumexp(theta[:k].log_softmax(0) - 0.5 * z**2, -1) - theta[-1] - 0.9189385332046727
        # F is linear in the policy apart from ρ log ρ: its gradient is E[(δF/δρ) ∇ρ], as in the theorem.
        density = logs.detach().exp()
        variation = torch.from_numpy(self.energy.first_variation(density.numpy()))
        value = torch.tensor(self.energy.value(density.numpy()))
        surrogate = (density * logs * (variation - 1) * self.grid.volume).sum()
        return surrogate - surrogate.detach() + value

    def minimise(self, theta: Float[Tensor, " p"], iterations: int = 200) -> Float[Tensor, " p"]:
        """θ of the minimum, from a start."""
        leaf = theta.clone().requires_grad_()
        solver = torch.optim.LBFGS(
            [leaf],
            max_iter=iterations,
            tolerance_grad=1e-10,
            tolerance_change=1e-14,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            solver.zero_grad()
            loss = self._loss(leaf)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        solver.step(closure)  # type: ignore[no-untyped-call]
        if not bool(torch.isfinite(leaf).all()):
            raise NumericalError("The mixture policy diverged", got=leaf.detach().tolist())
        return leaf.detach()


class SimplexPolicy:
    """Natural policy gradient over all grid laws, ``ρ = softmax(θ)``: ``θ ← θ - η δF/δρ``.

    Its plain gradient is ``ρ (δF/δρ - E_ρ δF/δρ)``, Eq. 25; Fisher's metric divides by ρ.

    Args:
        grid: all its laws.
        energy: F on the grid.
        rate: η in (0, 1); log(ρ/ρ*) shrinks by 1 - η per step.
    """

    def __init__(self, grid: Grid, energy: GridEnergy | None = None, rate: float = 0.5) -> None:
        if not 0 < rate <= 1:
            raise ConfigError("η must be in (0, 1]", got=rate)
        self.grid, self.energy, self.rate = grid, energy or GridEnergy(grid), rate

    def minimise(self, density: Array, iterations: int = 60) -> Array:
        """ρ after a number of steps."""
        logs = np.log(np.maximum(density, 1e-300))
        for _ in range(iterations):
            logs = logs - self.rate * self.energy.first_variation(density)
            logs = logs - logs.max()
            density = np.exp(logs)
            density = density / (density.sum() * self.grid.volume)
            logs = np.log(np.maximum(density, 1e-300))
        return density
