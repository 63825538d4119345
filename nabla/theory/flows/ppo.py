"""Route 5 on samples: PPO's clipped surrogate (Schulman et al., arXiv 1707.06347) with the KL in the reward,
``A = λ r + log π - log ρ_old``, for a Gaussian policy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nabla.core.errors import ConfigError
from nabla.theory.flows.families import Affine
from nabla.theory.problems.base import Problem


@dataclass(frozen=True)
class ClippedPPO:
    """Rounds of sampling from the policy and a few epochs on the clipped surrogate.

    Args:
        samples: per round.
        rounds: number of rounds.
        epochs: gradient steps per round.
        rate: Adam's learning rate, falling linearly to zero over the rounds.
        clip: the ratio is clipped to ``1 ± clip``.
    """

    samples: int = 2000
    rounds: int = 120
    epochs: int = 4
    rate: float = 0.03
    clip: float = 0.2

    def advantage(
        self, problem: Problem, x: Float[Tensor, "n d"], log_old: Float[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """``λ r + log π - log ρ_old`` minus its mean (the baseline)."""
        with torch.no_grad():
            found = problem.weight * problem.reward(x) + problem.log_pi(x) - log_old
            return found - found.mean()

    def run(
        self,
        problem: Problem,
        mean: Float[Tensor, " d"],
        covariance: Float[Tensor, "d d"],
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
        """Mean and covariance of the policy, averaged over the last quarter of the rounds."""
        if self.samples < 100 or self.rounds < 4:
            raise ConfigError("PPO needs at least 100 samples and 4 rounds", got=(self.samples, self.rounds))
        family = Affine(problem.dim)
        theta = family.start(mean, covariance).requires_grad_()
        solver = torch.optim.Adam([theta], lr=self.rate)
        kept = []
        for round_ in range(self.rounds):
            for group in solver.param_groups:
                group["lr"] = self.rate * (1 - round_ / self.rounds)
            noise = torch.randn(self.samples, problem.dim, generator=generator, dtype=torch.float64)
            with torch.no_grad():
                x = family.push(theta, noise)
                log_old = family.log_density(theta, x)
            advantage = self.advantage(problem, x, log_old)
            for _ in range(self.epochs):
                ratio = (family.log_density(theta, x) - log_old).exp()
                clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
                loss = -torch.minimum(ratio * advantage, clipped * advantage).mean()
                solver.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                solver.step()
            if round_ >= 3 * self.rounds // 4:
                kept.append(theta.detach().clone())
        return family.moments(torch.stack(kept).mean(0))
