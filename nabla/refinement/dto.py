"""Differentiable Textual Optimization: the inner loop (arXiv 2603.04948, Algorithms 2 and 4)."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.errors import ConfigError, NablaError, NumericalError
from nabla.core.trajectory import Trajectory
from nabla.engine.gradient.values import RowsRequest, TrajectoryGradient
from nabla.engine.initial_rows import Block, InitialRows, joined
from nabla.engine.reports import COLLAPSE, Refinement, StepReport, TermReport
from nabla.engine.requests import GradientRequest
from nabla.engine.session import Session
from nabla.estimators.anchors.base import Anchor, AnchorPoint, anchors
from nabla.estimators.base import Estimator, estimators, hard_index
from nabla.objectives.base import LogitObjective, Objective, TrajectoryObjective, objectives, trajectory_terms
from nabla.objectives.kl import kl_rows
from nabla.refinement.descent import Descent
from nabla.refinement.parameterizations.base import Parameterization, parameterizations
from nabla.refinement.rows.base import Rows
from nabla.refinement.rows.base import rows as rows_registry
from nabla.rewards.base import SoftTokens
from nabla.schedulers.base import Schedule, Step

log = logging.getLogger(__name__)

#: Numbers of logits refined as one parameter, at most; several tensors of that size exist.
JOINT_ELEMENTS = 1 << 23








@dataclass(frozen=True, eq=False)
class Task:
    """One refinement: a trajectory of one problem.

    Args:
        session: of the problem.
        trajectory: refined from its first uncommitted position on.
        ahead: positions that will probably be refined next.
        noise: source of every draw.
    """

    session: Session
    trajectory: Trajectory
    ahead: tuple[int, ...]
    noise: torch.Generator


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
        optimizer, optimizer_arguments, learning_rate, langevin: see
            :class:`~nabla.refinement.descent.Descent`; langevin 1 with SGD is the dynamics of Theorem 4.1.
        closed_form: use the estimator's own backward rule where it has one; False differentiates its
            rows by autograd (slower, the same numbers: for measurements).
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
        closed_form: bool = True,
    ) -> None:
        self.estimator = estimators.build(estimator)
        self.objective = objectives.build(objective)
        self.anchor = anchors.build(anchor)
        self.parameterization = parameterizations.build(parameterization)
        self.rows = rows_registry.build(rows)
        if steps < 1:
            raise ConfigError("steps must be at least 1", got=steps)
        self.steps, self.closed_form = steps, closed_form
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

    async def refine(
        self, trajectory: Trajectory, session: Session, ahead: Sequence[int] = ()
    ) -> Refinement:
        """Refines the rows at the first uncommitted position (Algorithm 2).

        Args:
            trajectory: the current response.
            session: of its problem.
            ahead: positions that will probably be refined next, if this one's proposal is rejected.

        Raises NumericalError if a gradient or the refined logits are not finite.
        """
        noise = session.generator("refine", trajectory.committed, session.requests)
        task = Task(session, trajectory, tuple(ahead), noise)
        if self.descent.elementwise:
            found: Refinement = await session.jointly(self.refine_together, task)
        else:  # an optimiser that mixes the numbers of a parameter gets one per problem
            found = await session.jointly(lambda tasks: self.refine_together(tasks), task)
        return found

    def refine_together(self, tasks: Sequence[Task]) -> list[Refinement | NablaError]:
        """Refines rows of several problems in step; each comes out as it would alone."""
        usable = tasks[0].session.workspace.lm.head.usable
        width = usable if self.rows.support is None else min(self.rows.support, usable)
        groups: list[list[Task]] = []
        held = 0
        for task in tasks:
            positions = self.rows.positions(task.trajectory)
            size = width * (positions.stop - positions.start)
            if not groups or held + size > JOINT_ELEMENTS:
                groups.append([])
                held = 0
            groups[-1].append(task)
            held += size
        return [found for group in groups for found in Descending(self, group).run()]

    def feedback(
        self,
        rows: dict[str, Float[Tensor, "rows k"]],
        task: Task,  # noqa: ARG002
        reference: InitialRows,  # noqa: ARG002
    ) -> dict[str, Float[Tensor, "rows k"]]:
        """What the descent follows, given each trajectory term's ``∂term/∂y``: that itself. A control
        overrides it (a random direction, say)."""
        return rows


class Descending:
    """The descent of some problems' rows as one parameter, in step.

    A row is refined by itself: estimators and optimisers work row by row, and noise is drawn per problem.
    Together they cost what one costs, as long as their rows are short.
    """

    def __init__(self, dto: DTO, tasks: Sequence[Task]) -> None:
        self.dto, self.tasks = dto, tasks
        self.workspace = tasks[0].session.workspace
        wanted = [
            t.session.rows_wanted(t.trajectory, dto.rows.positions(t.trajectory), dto.rows.support, t.ahead)
            for t in tasks
        ]
        self.references = self.workspace.references(wanted)
        self.joint = joined(self.workspace.lm.head, self.references, [w.account for w in wanted])
        ends = list(accumulate(len(r.logits) for r in self.references))
        self.spans = [slice(e - len(r.logits), e) for e, r in zip(ends, self.references, strict=True)]
        self.parameter = dto.parameterization.initial(self.joint).requires_grad_()
        self.optimizer = dto.descent.start(self.parameter)
        self.anchor = AnchorPoint(dto.anchor, self.joint.logits, self.joint.chosen, self._held())
        self.trajectory_terms = [t for t in dto.terms if isinstance(t.objective, TrajectoryObjective)]
        #: ``∂term/∂y`` per row, or the values of each problem's draws, by term.
        self.rows: dict[str, Tensor] = {}
        self.numbers: list[dict[str, Tensor]] = [{} for _ in tasks]
        self.values: list[dict[str, float]] = [{} for _ in tasks]
        self.recomputed = [0] * len(tasks)
        self.errors: dict[int, NablaError] = {}
        self.first: list[StepReport] = []
        self._weighted: tuple[tuple[float, ...], Tensor] | None = None

    def _held(self) -> Tensor | None:
        """Noise that the anchor holds fixed, drawn per problem."""
        held = [
            self.dto.anchor.noise(
                reference.logits,
                reference.chosen,
                temperature=task.trajectory.sampling.temperature,
                generator=task.noise,
            )
            for task, reference in zip(self.tasks, self.references, strict=True)
        ]
        kept = [h for h in held if h is not None]
        return torch.cat(kept) if kept else None

    def run(self) -> list[Refinement | NablaError]:
        """T steps."""
        dto = self.dto
        # In closed form a hard row is its column: no one-hot row, no graph.
        exact = type(dto.estimator).reusable is Estimator.reusable
        closed = dto.closed_form and exact and dto.estimator.pull_back is not None
        wants_steps = any(t.session.events.hears("on_refine_step") for t in self.tasks)
        cached: Tensor | None = None
        for index in range(dto.steps):
            step = Step(index, dto.steps)
            logits = dto.parameterization.logits(self.parameter, self.joint)
            relaxed = None if closed else self._relax(logits, step)
            now = hard_index(logits, self.anchor) if relaxed is None else relaxed.detach()
            moved = self._moved(cached, now)
            if moved:
                self._consult(moved, now)
                cached = now if cached is None else self._replaced(cached, now, moved)
            if index == 0 or wants_steps:
                self._report(step, logits, relaxed, moved, wants_steps)
            gradient = self._gradient(step, logits, relaxed)
            dto.descent.move(self.optimizer, self.parameter, gradient, step)
            if dto.descent.noisy:
                for task, span in zip(self.tasks, self.spans, strict=True):
                    dto.descent.shake(self.parameter[span], step, task.noise)
        return self._finish()

    # -- Algorithm 4: when the models are asked ----------------------------------------------------

    def _relax(self, logits: Tensor, step: Step) -> Tensor:
        """Relaxed rows ``[(draws,) N, K]``; a noisy estimator draws per problem."""
        estimator = self.dto.estimator
        if not estimator.stochastic or len(self.tasks) == 1:
            return estimator(logits, generator=self.tasks[0].noise, step=step, anchor=self.anchor)
        parts = [
            estimator(logits[span], generator=task.noise, step=step, anchor=self.anchor.of(span))
            for task, span in zip(self.tasks, self.spans, strict=True)
        ]
        return torch.cat(parts, dim=-2)

    def _part(self, rows: Tensor, span: slice) -> Tensor:
        """One problem's part of relaxed rows, or of columns."""
        return rows[..., span, :] if rows.is_floating_point() else rows[span]

    def _moved(self, cached: Tensor | None, now: Tensor) -> list[int]:
        """The problems whose gradient at ``cached`` is not valid at ``now``."""
        if cached is None:
            return list(range(len(self.tasks)))
        estimator = self.dto.estimator
        exact = not now.is_floating_point() or type(estimator).reusable is Estimator.reusable
        if exact and torch.equal(cached, now):
            return []
        moved = []
        for i, span in enumerate(self.spans):
            old, new = self._part(cached, span), self._part(now, span)
            if not (torch.equal(old, new) if exact else estimator.reusable(old, new)):
                moved.append(i)
        return moved

    def _replaced(self, cached: Tensor, now: Tensor, moved: Sequence[int]) -> Tensor:
        cached = cached.clone()
        for i in moved:
            self._part(cached, self.spans[i]).copy_(self._part(now, self.spans[i]))
        return cached

    def _consult(self, moved: Sequence[int], now: Tensor) -> None:
        """What the models say at the rows, for every trajectory term: ``∂term/∂y`` over the support
        (Algorithm 4), or the term's value at each draw."""
        for i in moved:
            self.recomputed[i] += 1
        if not trajectory_terms(self.dto.objective):  # logit terms need no model
            return
        live = [i for i in moved if i not in self.errors]
        if self.dto.estimator.feedback == "value":
            self._consult_values(live, now)
        else:
            self._consult_gradients(live, now)
        self._weighted = None

    def _consult_values(self, moved: Sequence[int], now: Tensor) -> None:
        plans = []
        for i in moved:
            task, reference = self.tasks[i], self.references[i]
            draws = self._part(now, self.spans[i]).reshape(self.dto.estimator.draws, *reference.logits.shape)
            texts = [_text(task.trajectory, reference, draw.argmax(-1)) for draw in draws]
            account = task.session.account("gradient")
            plan = task.session.memory.plan_values(task.trajectory, self.dto.objective, texts, account)
            plans.append(plan)
        answers = iter(self.workspace.answer([request for plan in plans for request in plan.requests]))
        for i, plan in zip(moved, plans, strict=True):
            own = [next(answers) for _ in plan.requests]
            failure = next((a for a in own if isinstance(a, NablaError)), None)
            if failure is not None:
                self.errors[i] = failure
                continue
            found = self.tasks[i].session.memory.keep_values(plan, own)
            self.numbers[i] = {name: self.parameter.new_tensor(row) for name, row in found.items()}
            self.values[i] = {name: float(row.mean()) for name, row in self.numbers[i].items()}

    def _consult_gradients(self, moved: Sequence[int], now: Tensor) -> None:
        plans = [self._plan(i, self._part(now, self.spans[i])) for i in moved]
        requests = [plan for plan in plans if not isinstance(plan, TrajectoryGradient)]
        answers = iter(self.workspace.answer(requests))
        gradients: dict[int, TrajectoryGradient] = {}
        for i, plan in zip(moved, plans, strict=True):
            if isinstance(plan, TrajectoryGradient):
                gradients[i] = plan
                continue
            answer = next(answers)
            if isinstance(answer, NablaError):
                self.errors[i] = answer
            else:
                gradients[i] = self.tasks[i].session.memory.keep_gradient(plan, answer)
        for i, found in self._rows_of(gradients).items():
            terms = self.dto.feedback(found, self.tasks[i], self.references[i])
            self.values[i] = {name: gradients[i].terms[name].value for name in terms}
            for name, part in terms.items():
                if len(self.tasks) == 1:
                    self.rows[name] = part
                    continue
                if name not in self.rows:
                    self.rows[name] = torch.zeros_like(self.joint.logits)
                self.rows[name][self.spans[i]] = part

    def _plan(self, i: int, now: Tensor) -> TrajectoryGradient | GradientRequest:
        task, reference = self.tasks[i], self.references[i]
        memory, account = task.session.memory, task.session.account("gradient")
        if self.dto.estimator.hard:
            index = now.argmax(-1) if now.is_floating_point() else now
            tokens = _text(task.trajectory, reference, index)
            return memory.plan_gradient(task.trajectory, self.dto.objective, account, tokens=tokens)
        begin = reference.positions.start
        soft = SoftTokens(begin, reference.candidates, now)
        return memory.plan_gradient(
            task.trajectory, self.dto.objective, account, start=begin, soft=soft
        )

    def _rows_of(self, gradients: dict[int, TrajectoryGradient]) -> dict[int, dict[str, Tensor]]:
        """``∂term/∂y`` over the support of each problem's rows. All that is not known is formed by one
        product per matrix, with rows for the positions ahead where the text is the trajectory's own."""
        wanted: list[RowsRequest] = []
        known: dict[tuple[int, str], Tensor] = {}
        makers: list[tuple[int, str, Block | None]] = []
        for i, gradient in gradients.items():
            task, reference = self.tasks[i], self.references[i]
            account = task.session.account("gradient")
            first = reference.positions.start
            block = None
            if reference.candidates is None:
                block = task.session.rows.block_of(task.trajectory, first)
            own = gradient.hard and torch.equal(gradient.tokens, task.trajectory.tokens)
            if block is not None and (not own or min(block.places) < gradient.start):
                block = None
            for name, part in gradient.terms.items():
                if block is not None and (id(gradient), name) in block.feedback:
                    rows = block.feedback[id(gradient), name]
                    known[i, name] = rows[block.places[first] : block.places[first] + 1]
                    continue
                if block is not None:
                    places = torch.tensor(list(block.places)) - gradient.start
                    entry = gradient.rows_wanted(part, places, None, account)
                    entry = replace(entry, logits=block.logits, normalisers=block.normalisers)
                else:
                    places = torch.arange(first, reference.positions.stop) - gradient.start
                    entry = gradient.rows_wanted(part, places, reference.candidates, account)
                    if reference.normalisers is not None and _same_contexts(gradient, task, reference):
                        entry = replace(
                            entry, logits=reference.logits, normalisers=reference.normalisers
                        )
                wanted.append(entry)
                makers.append((i, name, block))
        formed = self.workspace.gradients.rows_of(wanted) if wanted else []
        for (i, name, block), rows in zip(makers, formed, strict=True):
            if block is not None:
                block.feedback[id(gradients[i]), name] = rows
                block.gradients[id(gradients[i])] = gradients[i]
                row = block.places[self.references[i].positions.start]
                rows = rows[row : row + 1]
            known[i, name] = rows
        return {i: {name: known[i, name] for name in g.terms} for i, g in gradients.items()}

    # -- one step ----------------------------------------------------------------------------------

    def _gradient(self, step: Step, logits: Tensor, relaxed: Tensor | None) -> Tensor:
        """Of the objective in the parameter."""
        if relaxed is None and not self.dto.logit_terms:
            assert self.dto.estimator.pull_back is not None
            slope = self.dto.estimator.pull_back(logits.detach(), self._feedback(step), step)
            if logits is self.parameter:
                return slope
            (gradient,) = torch.autograd.grad(logits, self.parameter, slope)
            return gradient
        total = logits.new_zeros(())
        for i in self._groups():
            total = total + self._loss(i, logits, relaxed, self._weights(step), step)
        for term in self.dto.logit_terms:
            assert isinstance(term.objective, LogitObjective)
            total = total + term.weight(step) * term.objective.value(logits, self.joint.logits)
        (gradient,) = torch.autograd.grad(total, self.parameter)
        return gradient

    def _groups(self) -> list[int | None]:
        """Rows whose loss is taken at once: all, or each problem's (values belong to a problem's draws)."""
        return list(range(len(self.tasks))) if self.dto.estimator.feedback == "value" else [None]

    def _loss(
        self, i: int | None, logits: Tensor, relaxed: Tensor | None, weights: dict[str, float], step: Step
    ) -> Tensor:
        """A scalar whose gradient in the logits is the estimator's, for the weighted trajectory terms."""
        estimator = self.dto.estimator
        if i is not None:
            assert relaxed is not None
            numbers = self.numbers[i]
            feedback = logits.new_zeros(estimator.draws)
            feedback = sum((w * numbers[n] for n, w in weights.items() if n in numbers), feedback)
            return estimator.loss(logits[self.spans[i]], self._part(relaxed, self.spans[i]), feedback)
        feedback = self._combined(weights)
        if relaxed is None:
            assert estimator.pull_back is not None
            return (logits * estimator.pull_back(logits.detach(), feedback, step)).sum()
        return estimator.loss(logits, relaxed, feedback)

    def _weights(self, step: Step) -> dict[str, float]:
        return {term.name: term.weight(step) for term in self.trajectory_terms if term.active}

    def _combined(self, weights: dict[str, float]) -> Tensor:
        parts = [(w, self.rows[name]) for name, w in weights.items() if name in self.rows]
        if not parts:
            return torch.zeros_like(self.joint.logits)
        total = parts[0][0] * parts[0][1]
        for weight, rows in parts[1:]:
            total.add_(rows, alpha=weight)
        return total

    def _feedback(self, step: Step) -> Tensor:
        """The weighted sum of the terms' rows; kept while neither weights nor rows change."""
        weights = self._weights(step)
        key = tuple(weights.values())
        if self._weighted is None or self._weighted[0] != key:
            self._weighted = (key, self._combined(weights))
        return self._weighted[1]

    # -- reports -----------------------------------------------------------------------------------

    def _report(
        self, step: Step, logits: Tensor, relaxed: Tensor | None, moved: Sequence[int], tell: bool
    ) -> None:
        """Each term's value, unit, weight and share of the gradient, by one small backward each."""
        total = torch.zeros_like(self.parameter)
        norms: dict[str, list[float]] = {}
        values: dict[str, list[float]] = {}
        terms = [term for term in self.dto.terms if term.active]
        for term in terms:
            if isinstance(term.objective, LogitObjective):
                each = [
                    term.objective.value(logits[s], r.logits)
                    for s, r in zip(self.spans, self.references, strict=True)
                ]
                values[term.name] = [float(v.detach()) for v in each]
                loss = torch.stack(each).sum()
            else:
                values[term.name] = [v.get(term.name, math.nan) for v in self.values]
                one = {term.name: 1.0}
                parts = [self._loss(i, logits, relaxed, one, step) for i in self._groups()]
                loss = torch.stack(parts).sum()
            (slope,) = torch.autograd.grad(loss, self.parameter, retain_graph=True)
            weighted = term.weight(step) * slope
            total += weighted
            norms[term.name] = self._norms(weighted)
        whole = self._norms(total)
        for i, task in enumerate(self.tasks):
            scale = sum(norms[t.name][i] for t in terms) or 1.0
            found = {
                t.name: TermReport(
                    values[t.name][i], t.objective.unit, t.weight(step), norms[t.name][i] / scale
                )
                for t in terms
            }
            report = StepReport(step, found, whole[i], i in moved)
            if step.index == 0:
                self.first.append(report)
            if tell and i not in self.errors:
                position = self.references[i].positions.start
                task.session.events.on_refine_step(task.session.prompt, position, report)

    def _norms(self, gradient: Tensor) -> list[float]:
        """Of each problem's part."""
        squared = gradient.detach().square().sum(-1)
        if len(squared) == len(self.spans):
            return [float(x) for x in squared.sqrt().tolist()]
        return [float(squared[span].sum().sqrt()) for span in self.spans]

    def _finish(self) -> list[Refinement | NablaError]:
        with torch.no_grad():
            refined = self.dto.parameterization.logits(self.parameter, self.joint).detach()
            finite = (refined.amax(-1) < math.inf).tolist()  # NaN is not smaller either
            divergence = kl_rows(refined, self.joint.logits)
        largest = divergence.tolist()
        dropped = self.joint.dropped_mass.tolist()
        results: list[Refinement | NablaError] = []
        for i, (task, span) in enumerate(zip(self.tasks, self.spans, strict=True)):
            position = self.references[i].positions.start
            if i in self.errors:
                results.append(self.errors[i])
                continue
            if not all(finite[span]) or not math.isfinite(self.first[i].gradient_norm):
                results.append(
                    NumericalError(
                        "Refinement gave NaN logits",
                        got=f"position {position}",
                        fix="Lower learning_rate, or check the models' dtype.",
                    )
                )
                continue
            result = Refinement(
                self.references[i],
                refined[span],
                divergence[span],
                self.first[i],
                self.recomputed[i],
                max(dropped[span]),
            )
            self._announce(task, position, result, max(largest[span]))
            results.append(result)
        return results

    def _announce(self, task: Task, position: int, result: Refinement, largest: float) -> None:
        session = task.session
        session.meter.count("refined_positions")
        session.meter.count("refine_steps", self.dto.steps)
        if largest > COLLAPSE:
            session.meter.count("collapsed_refinements")
            log.warning(
                "Problem %s, position %d: refined rows are up to %.2f nats from the language model; "
                "lower the learning rate, steps or reward weight, or add a 'kl' term",
                session.prompt.id,
                position,
                largest,
            )
        session.events.on_refine(session.prompt, position, result)


def _same_contexts(gradient: TrajectoryGradient, task: Task, reference: InitialRows) -> bool:
    """Whether the gradient's rows are predicted by the reference's states: nothing before the last of
    them differs from the trajectory."""
    last = reference.positions.stop - 1
    if len(reference.logits) == 1:  # whatever was refined stands here or later
        return True
    return gradient.hard and torch.equal(gradient.tokens[:last], task.trajectory.tokens[:last])


def _text(
    trajectory: Trajectory, reference: InitialRows, index: Int[Tensor, " rows"]
) -> Int[Tensor, " length"]:
    """The trajectory's tokens with those at some columns of the support in place."""
    tokens = trajectory.tokens.clone()
    own = (
        index if reference.candidates is None else reference.candidates.gather(-1, index.unsqueeze(-1))[:, 0]
    )
    tokens[reference.positions] = own.to(tokens)
    return tokens
