"""Check 4: amortised = deamortised. The policy gradient of PPO is the particle velocity of DTO, pulled back
through the policy: ``∇_θ F = -E[(∂_θ f_θ)ᵀ v]``, ``v = -∇δF/δρ = -(∇L + ∇log ρ)``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nabla.core.random import generator
from nabla.objectives.base import Objective
from nabla.theory.distances import bures, sample_moments
from nabla.theory.duality.base import Check, checks
from nabla.theory.figures import Figure, Line, Panel
from nabla.theory.flows.bures import BuresFlow
from nabla.theory.flows.families import Affine, Family, Sine, trapezoid
from nabla.theory.flows.langevin import Langevin, evaluate
from nabla.theory.flows.policy import GaussianPolicy
from nabla.theory.problems import DoubleWell, GaussianProblem, MixtureProblem, Problem
from nabla.theory.problems.gaussian import correlated
from nabla.theory.report import Findings

TIMES = (0.1, 0.2, 0.4, 0.8, 1.2, 2.0)


@checks.register("amortised")
@dataclass(frozen=True)
class Amortised(Check):
    """Three gradients of the same L_PPO(θ), none computed from another.

    (a) the reparametrised loss ``E[L(f_θ(ξ)) - log|det ∂f_θ|]`` by autograd; (b) REINFORCE,
    ``E[(L + log ρ_θ) ∇_θ log ρ_θ]``, as PPO computes it; (c) the velocity of DTO's particles, whose ``∇L``
    comes from nabla's own objective, through ``(∂_θ f_θ)ᵀ``. Expectations are trapezoidal
    sums, which converge geometrically; the noise floor is what another number of nodes changes.

    Args:
        nodes: per axis.
        particles, step: of the Langevin moments.
        times: where moments are compared.
        tolerance: relative, float64.
        langevin, objective: the parts under test.
    """

    claim = "∇_θ L_PPO = -E[(∂_θ f_θ)ᵀ v]: the policy gradient is the pushed-forward particle velocity"
    nodes: int = 120
    particles: int = 500_000
    step: float = 0.025
    times: tuple[float, ...] = TIMES
    tolerance: float = 1e-10
    tolerance_particles: float = 0.012
    langevin: Callable[[float], Langevin] = Langevin
    objective: Callable[[Problem], Objective] = Problem.objective
    bures_flow: type[BuresFlow] = BuresFlow

    @classmethod
    def quick(cls) -> Amortised:
        return cls(particles=50_000, tolerance_particles=0.035)

    def run(self, seed: int) -> Findings:
        found = self.findings()
        cases: list[tuple[str, Problem, Family, Tensor]] = [
            ("Gaussian 2-D, affine policy", correlated(), Affine(2), _affine(seed)),
            ("Gaussian 2-D, sine policy", correlated(), Sine(2), _sine(2)),
            ("double well 1-D, affine policy", DoubleWell(), Affine(1), torch.tensor([0.2, 0.5])),
            ("mixture 1-D, sine policy", MixtureProblem(), Sine(1), _sine(1)),
        ]
        for name, problem, family, theta in cases:
            nodes = self.nodes if family.dim == 2 else 5 * self.nodes
            rough, fine = (self._gradients(problem, family, theta.double(), n) for n in (nodes - 20, nodes))
            scale = float(fine["reparametrised"].norm())
            for label in ("REINFORCE", "velocity"):
                gap = float((fine[label] - fine["reparametrised"]).norm()) / scale
                moved = max(float((fine[k] - rough[k]).norm()) for k in ("reparametrised", label)) / scale
                shown = {"REINFORCE": "score-function gradient", "velocity": "-E[(∂_θ f)ᵀ v]"}[label]
                found.add(
                    f"{name}: ∇_θ F = {shown}",
                    gap,
                    floor=max(moved, 1e-15),
                    tolerance=self.tolerance,
                    unit="relative",
                )
        self._moments(found, seed)
        return found

    def _gradients(
        self, problem: Problem, family: Family, theta: Float[Tensor, " p"], nodes: int
    ) -> dict[str, Float[Tensor, " p"]]:
        noise, weights = trapezoid(family.dim, nodes)
        leaf = theta.clone().requires_grad_()
        (direct,) = torch.autograd.grad(family.energy(problem, leaf, noise, weights), leaf)

        x = family.push(theta, noise).detach()
        leaf = theta.clone().requires_grad_()
        log_density = family.log_density(leaf, x)
        cost = problem.loss(x).detach() + log_density.detach()
        cost = cost - (weights * cost).sum()  # the baseline: E[∇ log ρ] = 0
        (score,) = torch.autograd.grad((weights * cost * log_density).sum(), leaf)

        leaf = theta.clone().requires_grad_()
        velocity = self.velocity(problem, family, theta, x)
        (pushed,) = torch.autograd.grad((weights * (family.push(leaf, noise) * velocity).sum(-1)).sum(), leaf)
        return {"reparametrised": direct, "REINFORCE": score, "velocity": -pushed}

    def velocity(
        self, problem: Problem, family: Family, theta: Float[Tensor, " p"], x: Float[Tensor, "n d"]
    ) -> Float[Tensor, "n d"]:
        """``v = -(∇L + ∇ log ρ_θ)`` at particles; ``∇L`` by nabla's objective, as in DTO."""
        _, drift = evaluate(problem, self.objective(problem), x)
        leaf = x.clone().requires_grad_()
        (spread,) = torch.autograd.grad(family.log_density(theta, leaf).sum(), leaf)
        return -(drift + spread)

    def _moments(self, found: Findings, seed: int) -> None:
        """For Gaussians: PPO's natural (Bures) flow and the moments of DTO's particles, at all t."""
        problem: GaussianProblem = correlated()
        policy = GaussianPolicy(problem, 4).run(problem.mean, problem.covariance, self.times)
        natural = self.bures_flow(problem).run(problem.mean.numpy(), problem.covariance.numpy(), self.times)
        gap = max(bures(*a, *b) for a, b in zip(policy, natural, strict=True))
        found.add(
            "Gaussian 2-D: policy gradient in (m, A) = Bures flow, all t",
            gap,
            floor=2e-7,
            tolerance=1e-5,
            unit="W2",
        )
        runs = []
        for run in range(2):
            x = problem.sample(self.particles, generator("amortised", seed, run))
            pair = [
                [
                    sample_moments(c.x)
                    for c in self.langevin(h).run(
                        problem, x, self.times, generator("amortised", seed, run, h)
                    )
                ]
                for h in (2 * self.step, self.step)
            ]
            runs.append([(2 * f[0] - c[0], 2 * f[1] - c[1]) for c, f in zip(*pair, strict=True)])
        floor = max(bures(*a, *b) for a, b in zip(*runs, strict=True))
        gap = max(bures(*a, *b) for a, b in zip(runs[0], policy, strict=True))
        found.add(
            f"Gaussian 2-D: PPO's policy = moments of DTO's particles, all t, N = {self.particles:,}",
            gap,
            floor=floor,
            tolerance=self.tolerance_particles,
            unit="W2",
        )
        labels = ("mean 1", "mean 2", "variance 1", "covariance", "variance 2")

        def numbers(pair: tuple[object, object]) -> list[float]:
            m, s = pair
            return [m[0], m[1], s[0, 0], s[0, 1], s[1, 1]]  # type: ignore[index]

        lines = []
        for i, label in enumerate(labels):
            lines.append(Line(f"PPO {label}", self.times, tuple(float(numbers(p)[i]) for p in policy), "-"))
            lines.append(Line("", self.times, tuple(float(numbers(p)[i]) for p in runs[0]), "k."))
        panel = Panel("Policy moments (lines) and particles' (dots)", "t", "moment", tuple(lines))
        found.figures.append(Figure("moments", (panel,)))


def _affine(seed: int) -> Float[Tensor, " p"]:
    random = torch.randn(2, generator=generator("affine", seed), dtype=torch.float64)
    return torch.cat([random, torch.tensor([0.9, 0.2, -0.3, 0.7], dtype=torch.float64)])


def _sine(dim: int) -> Float[Tensor, " p"]:
    rows = ([0.3, -0.2], [0.9, 0.7], [0.25, -0.15], [0.0, 0.4])
    return torch.tensor([value for row in rows for value in row[:dim]], dtype=torch.float64)
