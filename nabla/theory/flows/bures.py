"""Route 4: for Gaussians the flow is an ODE for mean and covariance, the gradient flow in the
Bures-Wasserstein metric (Särkkä, 2007; Lambert et al., arXiv 2205.15902):

``dm/dt = -E[∇L]``, ``dΣ/dt = 2I - E[∇²L] Σ - Σ E[∇²L]``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.integrate import solve_ivp

from nabla.core.errors import NumericalError
from nabla.theory.arrays import Array
from nabla.theory.problems.base import Problem, gradient, hessians


class BuresFlow:
    """Mean and covariance of ρ_t, exact where L is quadratic (expectations are then values at the mean).

    Args:
        problem: with a quadratic L.
        tolerance: of the Runge-Kutta integrator, relative and absolute.
    """

    def __init__(self, problem: Problem, tolerance: float = 1e-11) -> None:
        self.problem, self.tolerance = problem, tolerance

    def velocity(self, mean: Array, covariance: Array) -> tuple[Array, Array]:
        """``(dm/dt, dΣ/dt)``."""
        at = torch.from_numpy(mean)[None]
        slope = gradient(self.problem, at)[0].numpy()
        curvature = hessians(self.problem, at)[0].numpy()
        return -slope, 2 * np.eye(len(mean)) - curvature @ covariance - covariance @ curvature

    def run(self, mean: Array, covariance: Array, times: Sequence[float]) -> list[tuple[Array, Array]]:
        """(mean, covariance) at increasing times. Raises NumericalError if the integrator fails."""
        d = len(mean)

        def rate(_: float, state: Array) -> Array:
            dm, ds = self.velocity(state[:d].copy(), state[d:].reshape(d, d))
            return np.concatenate([dm, ds.ravel()])

        start = np.concatenate([mean, covariance.ravel()])
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
            raise NumericalError(f"The Bures-Wasserstein ODE could not be integrated: {found.message}")
        return [(y[:d], y[d:].reshape(d, d)) for y in found.y.T]
