"""Route 3: Langevin particles, which is DTO's update with noise.

Gradient and step are nabla's own: the loss is built from an :class:`~nabla.objectives.base.Objective`'s
terms on a :class:`~nabla.objectives.base.TrajectoryView` whose numbers are ``log π(x_n)`` per particle and
``Σ_n r(x_n)``, and the step is that of DTO, :class:`nabla.refinement.descent.Descent` (SGD, ``langevin=1``).
The adjusted scheme (MALA; Roberts and Tweedie, 1996) uses that very step as its proposal, and has no
bias in the step size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nabla.core.errors import ConfigError, NumericalError
from nabla.objectives.base import Objective, TrajectoryObjective, TrajectoryView
from nabla.refinement.descent import Descent
from nabla.schedulers.base import Step
from nabla.theory.problems.base import Problem, check_stability


@dataclass(frozen=True)
class Chain:
    """Particles at a time.

    Args:
        x: positions ``[n, d]``.
        acceptance: share of accepted moves so far (1 for the unadjusted scheme).
        moved: mean squared displacement of a step.
    """

    x: Float[Tensor, "n d"]
    acceptance: float
    moved: float


@dataclass(frozen=True)
class Langevin:
    """Particles under ``dx = -∇L dt + √2 dW`` (Theorem 4.1).

    Args:
        step: dt, the learning rate.
        adjusted: accept or reject each move by Metropolis and Hastings' rule for ``e^{-L}``.
        temperature: of the noise; 1 is the theorem's, 0 deterministic DTO.
    """

    step: float = 0.05
    adjusted: bool = False
    temperature: float = 1.0

    def descent(self) -> Descent:
        """nabla's optimiser step."""
        return Descent("SGD", learning_rate=self.step, langevin=self.temperature)

    def objective(self, problem: Problem) -> Objective:
        """nabla's objective."""
        return problem.objective()

    def run(
        self, problem: Problem, x: Float[Tensor, "n d"], times: Sequence[float], generator: torch.Generator
    ) -> Iterator[Chain]:
        """Particles at increasing times.

        Raises ConfigError for an unstable step or times that are no multiples of it, and NumericalError
        for particles that diverge.
        """
        check_stability(problem, self.step)
        descent, objective = self.descent(), self.objective(problem)
        parameter = x.clone().requires_grad_()
        optimizer = descent.start(parameter)
        done, accepted, travelled = 0, 0.0, 0.0
        losses, grad = evaluate(problem, objective, parameter.detach())
        for time in times:
            count = round(time / self.step)
            if abs(count * self.step - time) > 1e-9:
                raise ConfigError("Times must be multiples of the step", got=(time, self.step))
            while done < count:
                before = parameter.detach().clone()
                descent.step(optimizer, parameter, grad.clone(), Step(done, max(count, 1)), generator)
                self.confine(parameter)
                new_losses, new_grad = evaluate(problem, objective, parameter.detach())
                if self.adjusted:
                    kept = self._accept(
                        before, grad, losses, parameter.detach(), new_grad, new_losses, generator
                    )
                    with torch.no_grad():
                        parameter[~kept] = before[~kept]
                    new_grad[~kept], new_losses[~kept] = grad[~kept], losses[~kept]
                    accepted += float(kept.double().mean())
                else:
                    accepted += 1.0
                losses, grad = new_losses, new_grad
                travelled += float((parameter.detach() - before).pow(2).sum(-1).mean())
                done += 1
            if not bool(torch.isfinite(parameter).all()):
                raise NumericalError(
                    f"Particles diverged on {problem.name}", got=f"dt = {self.step}", fix="Lower the step."
                )
            steps = max(done, 1)
            yield Chain(parameter.detach().clone(), accepted / steps if done else 1.0, travelled / steps)

    def confine(self, parameter: Tensor) -> None:
        """Nothing: clamping particles at a boundary would pile mass up there (SPEC section 10)."""

    def _accept(
        self, x: Tensor, gx: Tensor, lx: Tensor, y: Tensor, gy: Tensor, ly: Tensor, generator: torch.Generator
    ) -> Bool[Tensor, " n"]:
        """``log u < L(x) - L(y) + log q(x|y) - log q(y|x)``, ``q(y|x) = N(x - dt ∇L(x), 2 dt)``."""
        forward = (y - x + self.step * gx).pow(2).sum(-1) / (4 * self.step)
        backward = (x - y + self.step * gy).pow(2).sum(-1) / (4 * self.step)
        ratio = lx - ly + forward - backward
        draw = torch.rand(len(x), generator=generator, dtype=torch.float64)
        return draw.log() < ratio

    def final(
        self, problem: Problem, x: Float[Tensor, "n d"], time: float, generator: torch.Generator
    ) -> Chain:
        """Particles at ``time`` (rounded up to a multiple of the step)."""
        check_stability(problem, self.step)
        rounded = math.ceil(time / self.step - 1e-9) * self.step
        return next(iter(self.run(problem, x, [rounded], generator)))


def evaluate(
    problem: Problem, objective: Objective, x: Float[Tensor, "n d"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
    """L per particle and ``∇L``, both through nabla's objective terms (weights at step 0).

    The terms see all particles as one response of n tokens; each particle's L follows from the terms'
    derivatives, as in :mod:`nabla.engine.gradient.stages`. Exact for terms that are linear in the view's
    numbers, which likelihood and reward are.
    """
    leaf = x.detach().requires_grad_()
    log_pi, reward = problem.log_pi(leaf), problem.reward(leaf)
    context, total = log_pi.detach().requires_grad_(), reward.sum().detach().requires_grad_()
    view = TrajectoryView(context, context, total)
    value = x.new_zeros(())
    for term in objective.terms():
        if not isinstance(term.objective, TrajectoryObjective):
            raise ConfigError("Langevin particles need trajectory terms", got=term.name)
        value = value + term.weight(Step()) * term.objective.value(view)
    per_token, per_reward = torch.autograd.grad(value, [context, total], allow_unused=True)
    losses = x.new_zeros(len(x))
    if per_token is not None:
        losses = losses + per_token * log_pi
    if per_reward is not None:
        losses = losses + per_reward * reward
    (grad,) = torch.autograd.grad(losses.sum(), leaf)
    return losses.detach(), grad
