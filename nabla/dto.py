"""Differentiable Textual Optimization: the inner loop (arXiv 2603.04948, Algorithms 2 and 4)."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nabla.anchors.base import Anchor, AnchorPoint, anchors
from nabla.descent import Descent
from nabla.engine import Reference, Session, trajectory_terms
from nabla.errors import ConfigError, NumericalError
from nabla.estimators.base import Estimator, estimators
from nabla.objectives.base import LogitObjective, Objective, objectives
from nabla.objectives.kl import kl_rows
from nabla.parameterizations.base import Parameterization, parameterizations
from nabla.rewards.base import SoftTokens
from nabla.rows.base import Rows
from nabla.rows.base import rows as rows_registry
from nabla.schedulers.base import Schedule, Step
from nabla.types import Trajectory

log = logging.getLogger(__name__)

#: KL(p_z || p_ref) per token above which a refinement counts as collapsed, nats (SPEC section 2).
COLLAPSE = 2.0


@dataclass(frozen=True)
class TermReport:
    """One term at one step: unweighted value, its unit, weight, and share of the logit gradient's norm."""

    value: float
    unit: str
    weight: float
    gradient_share: float


@dataclass(frozen=True)
class StepReport:
    """One optimisation step.

    Args:
        step: which.
        terms: by name.
        gradient_norm: of the weighted gradient with respect to the parameter.
        recomputed: whether the models had to be run for it.
    """

    step: Step
    terms: dict[str, TermReport]
    gradient_norm: float
    recomputed: bool


@dataclass(frozen=True, eq=False)
class Refinement:
    """Refined rows.

    Args:
        reference: initial logits and support.
        logits: refined logits ``[R, K]``.
        kl: ``KL(p_z || p_ref)`` per row, nats ``[R]``.
        first: report of the first step.
        recomputed: number of gradients that needed the models.
        dropped_mass: largest probability mass outside the support in any row.
    """

    reference: Reference
    logits: Float[Tensor, "rows k"]
    kl: Float[Tensor, " rows"]
    first: StepReport
    recomputed: int
    dropped_mass: float

    @property
    def collapsed(self) -> bool:
        """Whether a row has left the language model's distribution by more than 2 nats."""
        return bool((self.kl > COLLAPSE).any())


@dataclass(eq=False)
class _Cached:
    """The gradient at the rows it was taken at (Algorithm 4), or with value feedback each term's values."""

    rows: Tensor
    values: dict[str, float]
    terms: dict[str, Tensor]


class DTO:
    """Refines the logits of a response by gradient descent on an objective.

    Every argument takes an instance, a registered name, or a dict of a name and arguments.

    Args:
        estimator: logits → relaxed tokens.
        objective: what to minimise.
        anchor: where a hard forward value stands.
        parameterization: what the optimiser moves.
        rows: which rows, over which candidates.
        steps: T.
        optimizer, optimizer_arguments, learning_rate, langevin: see :class:`~nabla.descent.Descent`;
            langevin 1 with SGD is the dynamics of Theorem 4.1.
    """

    def __init__(
        self,
        estimator: Estimator | str | dict[str, Any] = "straight-through",
        objective: Objective | str | dict[str, Any] = "sum",
        anchor: Anchor | str | dict[str, Any] = "rollout",
        parameterization: Parameterization | str | dict[str, Any] = "logits",
        rows: Rows | str | dict[str, Any] = "first",
        steps: int = 20,
        optimizer: str = "AdamW",
        optimizer_arguments: dict[str, Any] | None = None,
        learning_rate: float | Schedule | str | dict[str, Any] = "cosine",
        langevin: float | Schedule | str | dict[str, Any] = 0.0,
    ) -> None:
        self.estimator = estimators.build(estimator)
        self.objective = objectives.build(objective)
        self.anchor = anchors.build(anchor)
        self.parameterization = parameterizations.build(parameterization)
        self.rows = rows_registry.build(rows)
        if steps < 1:
            raise ConfigError("steps must be at least 1", got=steps)
        self.steps = steps
        self.descent = Descent(optimizer, optimizer_arguments, learning_rate, langevin)
        self.optimizer, self.optimizer_arguments = optimizer, self.descent.arguments
        self.terms = self.objective.terms()
        self.logit_terms = tuple(
            t for t in self.terms if isinstance(t.objective, LogitObjective) and t.active
        )
        if len({t.name for t in self.terms}) < len(self.terms):
            raise ConfigError("Two terms share a name", got=[t.name for t in self.terms])

    @property
    def needs_reward(self) -> bool:
        """Whether a differentiable reward must be there; an estimator with value feedback needs none."""
        differentiated = self.estimator.feedback == "gradient"
        return differentiated and any(t.objective.needs_reward for t in self.terms if t.active)

    async def refine(self, trajectory: Trajectory, session: Session) -> Refinement:
        """Refines the rows at the first uncommitted position (Algorithm 2).

        Raises NumericalError if a gradient or the refined logits are not finite.
        """
        position = trajectory.committed
        reference = session.reference(trajectory, self.rows.positions(trajectory), self.rows.support)
        noise = session.generator("refine", position, session.requests)
        parameter = self.parameterization.initial(reference).requires_grad_()
        optimizer = self.descent.start(parameter)
        held = self.anchor.noise(
            reference.logits,
            reference.chosen,
            temperature=trajectory.sampling.temperature,
            generator=noise,
        )
        anchor = AnchorPoint(self.anchor, reference.logits, reference.chosen, held)
        cached: _Cached | None = None
        first: StepReport | None = None
        recomputed = 0
        wants_steps = session.events.hears("on_refine_step")

        for index in range(self.steps):
            step = Step(index, self.steps)
            logits = self.parameterization.logits(parameter, reference)
            relaxed = self.estimator(logits, generator=noise, step=step, anchor=anchor)
            rows = relaxed.detach()
            fresh = cached is None or not self.estimator.reusable(cached.rows, rows)
            if cached is None or fresh:
                cached = await self._consult(trajectory, reference, rows, session)
                recomputed += 1
            if first is None or wants_steps:
                report = self._report(step, parameter, logits, relaxed, reference, cached, fresh)
                first = first or report
                if wants_steps:
                    session.events.on_refine_step(session.prompt, position, report)
            surrogate = self._surrogate(step, logits, relaxed, reference, cached)
            (gradient,) = torch.autograd.grad(surrogate, parameter)
            self.descent.step(optimizer, parameter, gradient, step, noise)

        with torch.no_grad():
            refined = self.parameterization.logits(parameter, reference).detach()
        if not bool((refined < math.inf).all()) or not math.isfinite(first.gradient_norm if first else 0):
            raise NumericalError(
                "Refinement gave NaN logits",
                got=f"position {position}",
                fix="Lower learning_rate, or check the models' dtype.",
            )
        assert first is not None
        result = Refinement(
            reference,
            refined,
            kl_rows(refined, reference.logits),
            first,
            recomputed,
            float(reference.dropped_mass.max()),
        )
        session.meter.count("refined_positions")
        session.meter.count("refine_steps", self.steps)
        if result.collapsed:
            session.meter.count("collapsed_refinements")
            log.warning(
                "Problem %s, position %d: refined rows are up to %.2f nats from the language model; "
                "lower the learning rate, steps or reward weight, or add a 'kl' term",
                session.prompt.id,
                position,
                float(result.kl.max()),
            )
        session.events.on_refine(session.prompt, position, result)
        return result

    async def _consult(
        self, trajectory: Trajectory, reference: Reference, relaxed: Tensor, session: Session
    ) -> _Cached:
        """What the models say at the rows, for every trajectory term: ``∂term/∂y`` over the support
        (Algorithm 4), or the term's value at each draw."""
        if not trajectory_terms(self.objective):  # logit terms need no model
            return _Cached(relaxed, {}, {})
        if self.estimator.feedback == "value":
            draws = relaxed.reshape(self.estimator.draws, *reference.logits.shape)
            texts = [_text(trajectory, reference, draw) for draw in draws]
            found = await session.values(trajectory, self.objective, texts)
            numbers = {name: relaxed.new_tensor(row) for name, row in found.items()}
            return _Cached(relaxed, {name: float(row.mean()) for name, row in numbers.items()}, numbers)
        if self.estimator.hard:
            tokens = _text(trajectory, reference, relaxed)
            gradient = await session.gradient(trajectory, self.objective, tokens=tokens)
        else:
            begin = reference.positions.start
            soft = SoftTokens(begin, reference.candidates, relaxed)
            gradient = await session.gradient(trajectory, self.objective, start=begin, soft=soft)
        rows = {
            name: session.gradient_rows(gradient, part, reference) for name, part in gradient.terms.items()
        }
        values = {name: part.value for name, part in gradient.terms.items()}
        return _Cached(relaxed, values, rows)

    def _surrogate(
        self, step: Step, logits: Tensor, relaxed: Tensor, reference: Reference, cached: _Cached
    ) -> Tensor:
        """The estimator's (``Σ_i y_i^T g_i``) plus the logit terms: its gradient in the parameter is the
        objective's."""
        values = self.estimator.feedback == "value"
        feedback = sum(
            (t.weight(step) * cached.terms[t.name] for t in self.terms if t.name in cached.terms),
            logits.new_zeros(self.estimator.draws) if values else torch.zeros_like(relaxed),
        )
        total = self.estimator.loss(logits, relaxed, feedback)
        for term in self.logit_terms:
            assert isinstance(term.objective, LogitObjective)
            value = term.objective.value(logits, reference.logits)
            total = total + term.weight(step) * value
        return total

    def _report(
        self,
        step: Step,
        parameter: Tensor,
        logits: Tensor,
        relaxed: Tensor,
        reference: Reference,
        cached: _Cached,
        fresh: bool,
    ) -> StepReport:
        """Each term's value, unit, weight and share of the gradient, by one small backward each."""
        norms: dict[str, float] = {}
        values: dict[str, float] = {}
        total = torch.zeros_like(parameter)
        for term in self.terms:
            if not term.active:
                continue
            if isinstance(term.objective, LogitObjective):
                value = term.objective.value(logits, reference.logits)
            else:
                value = self.estimator.loss(logits, relaxed, cached.terms[term.name])
            (grad,) = torch.autograd.grad(value, parameter, retain_graph=True)
            weighted = term.weight(step) * grad
            total = total + weighted
            norms[term.name] = float(weighted.norm())
            values[term.name] = (
                float(value.detach())
                if isinstance(term.objective, LogitObjective)
                else cached.values[term.name]
            )
        whole = sum(norms.values()) or 1.0
        reports = {
            t.name: TermReport(values[t.name], t.objective.unit, t.weight(step), norms[t.name] / whole)
            for t in self.terms
            if t.name in values
        }
        return StepReport(step, reports, float(total.norm()), fresh)


def _text(trajectory: Trajectory, reference: Reference, rows: Tensor) -> Tensor:
    """The trajectory's tokens with those of one-hot rows ``[R, K]`` in place."""
    index = rows.argmax(-1)
    tokens = trajectory.tokens.clone()
    own = (
        index if reference.candidates is None else reference.candidates.gather(-1, index.unsqueeze(-1))[:, 0]
    )
    tokens[reference.positions] = own.to(tokens)
    return tokens
