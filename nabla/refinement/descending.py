"""The descent itself: T steps on the rows of some problems (arXiv 2603.04948, Algorithms 2 and 4)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from nabla.core.errors import NablaError
from nabla.engine.initial_rows import InitialRows, joined
from nabla.engine.reports import Refinement
from nabla.estimators.anchors.base import AnchorPoint
from nabla.estimators.base import hard_index
from nabla.refinement.consulting import Consulting
from nabla.refinement.reporting import Reporting
from nabla.refinement.slopes import Slopes
from nabla.refinement.task import Group, Heard, Parts, RefineTask, part
from nabla.schedulers.base import Step


class Descending:
    """Descends on the rows of several problems together: all rows are one parameter of one optimiser.

    No row depends on another problem's: estimators and optimisers work row by row, and noise is drawn per
    problem. The results are those of one descent per problem, and the arithmetic of few rows costs about as
    much as that of one.

    Args:
        parts: settings of the refinement.
        tasks: one a problem.
    """

    def __init__(self, parts: Parts, tasks: Sequence[RefineTask]) -> None:
        self.parts = parts
        self.group = group = _group(parts, tasks)
        self.parameter = parts.parameterization.initial(group.joint).requires_grad_()
        self.optimizer = parts.descent.start(self.parameter)
        held = _held_noise(parts, tasks, group.references)
        self.anchor = AnchorPoint(parts.anchor, group.joint.logits, group.joint.chosen, held)
        heard = Heard.nothing(len(tasks))
        self.consulting = Consulting(parts, group, heard)
        self.slopes = Slopes(parts, group, heard)
        self.reporting = Reporting(parts, group, heard, self.slopes)

    def run(self) -> list[Refinement | NablaError]:
        """T steps. Each one: logits → relaxed rows → what the models say of them → gradient → move."""
        parts = self.parts
        # The rows at which the models were asked last. Both models are frozen: while a problem's rows
        # stay what they were, so does their gradient (Algorithm 4), and only the others are asked again.
        asked: Tensor | None = None
        for index in range(parts.steps):
            step = Step(index, parts.steps)
            logits = parts.parameterization.logits(self.parameter, self.group.joint)
            relaxed = None if parts.pull_back is not None else self._relax(logits, step)
            # With a backward rule in closed form nothing is relaxed: the columns at which the rows stand
            # are all that the models need.
            now = hard_index(logits, self.anchor) if relaxed is None else relaxed.detach()
            moved = self._moved(asked, now)
            if moved:
                self.consulting.consult(moved, now)
                # Rows that were not asked again keep their old values: small moves must add up, or rows
                # could drift away from where they were asked without anybody noticing.
                asked = now if asked is None else self._replaced(asked, now, moved)
            self.reporting.step(step, self.parameter, logits, relaxed, moved)
            # What the models said goes through the estimator at the present logits, asked again or not.
            gradient = self.slopes.gradient(self.parameter, logits, relaxed, step)
            parts.descent.move(self.optimizer, self.parameter, gradient, step)
            if parts.descent.noisy:
                for task, span in zip(self.group.tasks, self.group.spans, strict=True):
                    parts.descent.shake(self.parameter[span], step, task.noise)
        return self.reporting.finish(self.parameter)

    def _relax(self, logits: Tensor, step: Step) -> Tensor:
        """Relaxed rows ``[(draws,) N, K]``; a noisy estimator draws per problem."""
        estimator, tasks = self.parts.estimator, self.group.tasks
        if not estimator.stochastic or len(tasks) == 1:
            return estimator(logits, generator=tasks[0].noise, step=step, anchor=self.anchor)
        each = [
            estimator(logits[span], generator=task.noise, step=step, anchor=self.anchor.of(span))
            for task, span in zip(tasks, self.group.spans, strict=True)
        ]
        return torch.cat(each, dim=-2)

    def _moved(self, asked: Tensor | None, now: Tensor) -> list[int]:
        """The problems for which what was said at ``asked`` is not valid at ``now``."""
        if asked is None:
            return list(range(len(self.group.tasks)))
        exact = self.parts.exact or not now.is_floating_point()  # columns are equal or not
        if exact and torch.equal(asked, now):
            return []
        moved = []
        for i, span in enumerate(self.group.spans):
            old, new = part(asked, span), part(now, span)
            if not (torch.equal(old, new) if exact else self.parts.estimator.reusable(old, new)):
                moved.append(i)
        return moved

    def _replaced(self, asked: Tensor, now: Tensor, moved: Sequence[int]) -> Tensor:
        """Rows of the problems in ``moved`` as they are now, the others as they were asked."""
        asked = asked.clone()
        for i in moved:
            part(asked, self.group.spans[i]).copy_(part(now, self.group.spans[i]))
        return asked


def _group(parts: Parts, tasks: Sequence[RefineTask]) -> Group:
    """The tasks with their initial rows, formed together."""
    workspace = tasks[0].session.workspace
    wanted = [
        t.session.rows_wanted(t.trajectory, parts.rows.positions(t.trajectory), parts.rows.support, t.ahead)
        for t in tasks
    ]
    references = workspace.references(wanted)
    joint = joined(workspace.weights.head, references, [w.account for w in wanted])
    ends = accumulate(len(r.logits) for r in references)
    spans = tuple(slice(end - len(r.logits), end) for end, r in zip(ends, references, strict=True))
    return Group(tuple(tasks), tuple(references), joint, spans, workspace)


def _held_noise(
    parts: Parts, tasks: Sequence[RefineTask], references: Sequence[InitialRows]
) -> Tensor | None:
    """Noise that the anchor holds fixed for the whole refinement, drawn per problem ``[N, K]``."""
    held = [
        parts.anchor.noise(
            reference.logits,
            reference.chosen,
            temperature=task.trajectory.sampling.temperature,
            generator=task.noise,
        )
        for task, reference in zip(tasks, references, strict=True)
    ]
    kept = [h for h in held if h is not None]
    return torch.cat(kept) if kept else None
