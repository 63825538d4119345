"""F of particles: the entropy from nearest-neighbour distances."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree
from scipy.special import digamma, gammaln
from torch import Tensor

from nabla.core.errors import ConfigError
from nabla.theory.problems.base import Problem


class ParticleEnergy:
    """F estimated from independent particles, nats, up to the normalisation of ``problem.log_pi``.

    The entropy is Kozachenko and Leonenko's (1987) with the k-th neighbour; bias ``O(N^{-2/d})``.

    Args:
        problem: gives L.
        neighbours: k.
    """

    def __init__(self, problem: Problem, neighbours: int = 4) -> None:
        self.problem, self.neighbours = problem, neighbours

    def entropy(self, x: Float[Tensor, "n d"]) -> float:
        """``-E[log ρ]``, nats. Raises ConfigError for fewer than ten times k particles."""
        count, dim = x.shape
        if count < 10 * self.neighbours:
            raise ConfigError("Too few particles for an entropy", got=count)
        points = x.detach().numpy()
        distances = cKDTree(points).query(points, k=self.neighbours + 1)[0][:, -1]
        distances = np.maximum(distances, 1e-300)
        ball = 0.5 * dim * math.log(math.pi) - gammaln(0.5 * dim + 1)
        logs = float(np.mean(np.log(distances)))
        return float(digamma(count) - digamma(self.neighbours) + ball + dim * logs)

    def value(self, x: Float[Tensor, "n d"]) -> float:
        """``E[L] - H``."""
        return float(self.problem.loss(x).mean()) - self.entropy(x)
