"""Asking the models at the rows of a refinement (arXiv 2603.04948, Algorithm 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from nabla.core.errors import NablaError
from nabla.core.trajectory import Trajectory
from nabla.core.values import changed
from nabla.engine.gradient.values import RowsRequest, TermGradient, TrajectoryGradient
from nabla.engine.initial_rows import Block, InitialRows
from nabla.engine.requests import GradientRequest
from nabla.refinement.task import Group, Heard, Parts, RefineTask, part
from nabla.rewards.base import SoftTokens


class Consulting:
    """Asks the models what they say at some problems' rows, and writes it down.

    Args:
        parts: settings of the refinement.
        group: whose rows they are.
        heard: where the answers are written.
    """

    def __init__(self, parts: Parts, group: Group, heard: Heard) -> None:
        self.parts, self.group, self.heard = parts, group, heard

    def consult(self, moved: Sequence[int], now: Tensor) -> None:
        """For every trajectory term ``∂term/∂y`` over the support, or the term's value at each draw.

        Args:
            moved: problems whose rows are new.
            now: relaxed rows of all problems, or their columns where they are hard.
        """
        for i in moved:
            self.heard.recomputed[i] += 1
        if not self.parts.trajectory_terms:  # logit terms need no model
            return
        live = [i for i in moved if i not in self.heard.errors]
        if self.parts.estimator.feedback == "value":
            self._values(live, now)
        else:
            self._gradients(live, now)
        self.heard.version += 1

    # -- value feedback ----------------------------------------------------------------------------

    def _values(self, moved: Sequence[int], now: Tensor) -> None:
        plans = []
        for i in moved:
            task, reference = self.group.tasks[i], self.group.references[i]
            draws = part(now, self.group.spans[i])
            draws = draws.reshape(self.parts.estimator.draws, *reference.logits.shape)
            texts = [text_with(task.trajectory, reference, draw.argmax(-1)) for draw in draws]
            account = task.session.account("gradient")
            plan = task.session.memory.plan_values(task.trajectory, self.parts.objective, texts, account)
            plans.append(plan)
        answers = iter(self.group.workspace.answer([request for p in plans for request in p.requests]))
        for i, plan in zip(moved, plans, strict=True):
            own = [next(answers) for _ in plan.requests]
            failure = next((a for a in own if isinstance(a, NablaError)), None)
            if failure is not None:
                self.heard.errors[i] = failure
                continue
            found = self.group.tasks[i].session.memory.keep_values(plan, own)
            numbers = {name: self.group.joint.logits.new_tensor(row) for name, row in found.items()}
            self.heard.numbers[i] = numbers
            self.heard.values[i] = {name: float(row.mean()) for name, row in numbers.items()}

    # -- gradient feedback -------------------------------------------------------------------------

    def _gradients(self, moved: Sequence[int], now: Tensor) -> None:
        group, heard = self.group, self.heard
        gradients = self._known_or_asked(moved, now)
        for i, found in rows_of(group, gradients).items():
            task = group.tasks[i]
            terms = task.direction.of(found, group.references[i], task.trajectory, task.session)
            heard.values[i] = {name: gradients[i].terms[name].value for name in terms}
            for name, rows in terms.items():
                if len(group.tasks) == 1:  # the joint rows are this problem's
                    heard.rows[name] = rows
                    continue
                if name not in heard.rows:
                    heard.rows[name] = torch.zeros_like(group.joint.logits)
                heard.rows[name][group.spans[i]] = rows

    def _known_or_asked(self, moved: Sequence[int], now: Tensor) -> dict[int, TrajectoryGradient]:
        """Each problem's gradient at its rows; those that nobody remembers in one batch."""
        plans = [self._plan(i, part(now, self.group.spans[i])) for i in moved]
        requests = [plan for plan in plans if not isinstance(plan, TrajectoryGradient)]
        answers = iter(self.group.workspace.answer(requests))
        gradients: dict[int, TrajectoryGradient] = {}
        for i, plan in zip(moved, plans, strict=True):
            if isinstance(plan, TrajectoryGradient):
                gradients[i] = plan
                continue
            answer = next(answers)
            if isinstance(answer, NablaError):
                self.heard.errors[i] = answer
            else:
                gradients[i] = self.group.tasks[i].session.memory.keep_gradient(plan, answer)
        return gradients

    def _plan(self, i: int, now: Tensor) -> TrajectoryGradient | GradientRequest:
        task, reference = self.group.tasks[i], self.group.references[i]
        memory, account = task.session.memory, task.session.account("gradient")
        if self.parts.estimator.hard:
            index = now.argmax(-1) if now.is_floating_point() else now
            tokens = text_with(task.trajectory, reference, index)
            return memory.plan_gradient(task.trajectory, self.parts.objective, account, tokens=tokens)
        begin = reference.positions.start
        soft = SoftTokens(begin, reference.candidates, now)
        return memory.plan_gradient(
            task.trajectory, self.parts.objective, account, start=begin, soft=soft
        )


@dataclass(frozen=True, eq=False)
class _Missing:
    """Rows of one term of one problem that have to be formed, and the block that will keep them."""

    problem: int
    term: str
    request: RowsRequest
    block: Block | None


def rows_of(
    group: Group, gradients: dict[int, TrajectoryGradient]
) -> dict[int, dict[str, Tensor]]:
    """``∂term/∂y`` over the support of each problem's rows, by problem and term.

    A row is a product with a whole embedding matrix. The product costs nearly the same for one row as for a
    dozen. Therefore:

    1. All rows that are missing are formed by one product per matrix, for all problems together.
    2. A gradient at the trajectory's own text also serves later positions. Its rows are formed for every
       position of the block of initial rows, and kept in the block.
    """
    known: dict[tuple[int, str], Tensor] = {}
    missing: list[_Missing] = []
    for i, gradient in gradients.items():
        task, reference = group.tasks[i], group.references[i]
        first = reference.positions.start
        block = _block(gradient, task, reference)  # None: only the rows at hand are worth forming
        for name, term in gradient.terms.items():
            if block is not None and (gradient, name) in block.feedback:  # formed at an earlier position
                row = block.places[first]
                known[i, name] = block.feedback[gradient, name][row : row + 1]
            elif block is not None:
                missing.append(_Missing(i, name, _block_request(gradient, term, task, block), block))
            else:
                request = _request(gradient, term, task, reference)
                missing.append(_Missing(i, name, request, None))
    # One call for all problems and terms: it groups the requests by embedding matrix.
    formed = group.workspace.gradients.rows_of([m.request for m in missing]) if missing else []
    for entry, rows in zip(missing, formed, strict=True):
        i, block = entry.problem, entry.block
        if block is not None:  # the whole block is kept, the row at hand is used
            block.feedback[gradients[i], entry.term] = rows
            row = block.places[group.references[i].positions.start]
            rows = rows[row : row + 1]
        known[i, entry.term] = rows
    return {i: {name: known[i, name] for name in g.terms} for i, g in gradients.items()}


def _block(gradient: TrajectoryGradient, task: RefineTask, reference: InitialRows) -> Block | None:
    """The problem's block, if the gradient's rows at all its positions are worth forming: the rows are
    whole, the text is the trajectory's own, and the gradient covers the block."""
    if reference.candidates is not None:
        return None
    block = task.session.rows.block_of(task.trajectory, reference.positions.start)
    own = gradient.hard and torch.equal(gradient.tokens, task.trajectory.tokens)
    if block is None or not own or min(block.places) < gradient.start:
        return None
    return block


def _block_request(
    gradient: TrajectoryGradient, term: TermGradient, task: RefineTask, block: Block
) -> RowsRequest:
    places = torch.tensor(list(block.places)) - gradient.start
    request = gradient.rows_wanted(term, places, None, task.session.account("gradient"))
    return changed(request, logits=block.logits, normalisers=block.normalisers)


def _request(
    gradient: TrajectoryGradient, term: TermGradient, task: RefineTask, reference: InitialRows
) -> RowsRequest:
    """For the rows at hand; with their initial logits where these belong to the gradient's text, too."""
    rows = reference.positions
    places = torch.arange(rows.start, rows.stop) - gradient.start
    account = task.session.account("gradient")
    request = gradient.rows_wanted(term, places, reference.candidates, account)
    if reference.normalisers is None or not _same_contexts(gradient, task, reference):
        return request
    return changed(request, logits=reference.logits, normalisers=reference.normalisers)


def _same_contexts(gradient: TrajectoryGradient, task: RefineTask, reference: InitialRows) -> bool:
    """Whether the gradient's rows are predicted by the reference's states: nothing before the last of
    them differs from the trajectory."""
    last = reference.positions.stop - 1
    if len(reference.logits) == 1:  # whatever was refined stands here or later
        return True
    return gradient.hard and torch.equal(gradient.tokens[:last], task.trajectory.tokens[:last])


def text_with(
    trajectory: Trajectory, reference: InitialRows, index: Int[Tensor, " rows"]
) -> Int[Tensor, " length"]:
    """The trajectory's tokens with those at some columns of the support in place."""
    tokens = trajectory.tokens.clone()
    own = (
        index if reference.candidates is None else reference.candidates.gather(-1, index.unsqueeze(-1))[:, 0]
    )
    tokens[reference.positions] = own.to(tokens)
    return tokens
