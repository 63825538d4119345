"""Differentiable Textual Optimization: the inner loop (arXiv 2603.04948, Algorithms 2 and 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from nabla.core.errors import ConfigError, NablaError, require_count
from nabla.core.trajectory import Trajectory
from nabla.engine.reports import Refinement
from nabla.engine.session import Session
from nabla.estimators.anchors.argmax import ArgmaxAnchor
from nabla.estimators.anchors.base import Anchor, anchors
from nabla.estimators.base import Estimator, estimators
from nabla.objectives.base import Objective, objectives
from nabla.refinement.descending import Descending
from nabla.refinement.descent import Descent
from nabla.refinement.directions import Direction, Gradient
from nabla.refinement.parameterizations.base import Parameterization, parameterizations
from nabla.refinement.rows.base import Rows
from nabla.refinement.rows.base import rows as rows_registry
from nabla.refinement.task import Parts, RefineTask
from nabla.schedulers.base import Schedule

#: Numbers of logits refined as one parameter, at most; several tensors of that size exist.
JOINT_ELEMENTS = 1 << 23
#: Steps of a refinement: more would run for days.
MOST = 1_000_000


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
        optimizer: name of a class of torch.optim, see :class:`~nabla.refinement.descent.Descent`.
        optimizer_arguments: of that class, beside the learning rate.
        learning_rate: a number or a schedule.
        langevin: temperature of the noise in each step; 1 with SGD is the dynamics of Theorem 4.1.
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
        require_count("steps", steps, minimum=1, maximum=MOST)
        self.steps, self.closed_form = steps, closed_form
        self.descent = Descent(optimizer, optimizer_arguments, learning_rate, langevin)
        self.optimizer, self.optimizer_arguments = optimizer, self.descent.arguments
        self.terms = self.objective.terms()
        if len({t.name for t in self.terms}) < len(self.terms):
            raise ConfigError("Two terms share a name", got=[t.name for t in self.terms])

    @property
    def needs_reward(self) -> bool:
        """Whether a differentiable reward must be there; an estimator with value feedback needs none."""
        differentiated = self.estimator.feedback == "gradient"
        return differentiated and any(t.objective.needs_reward for t in self.terms if t.active)

    @property
    def at_text(self) -> bool:
        """Whether the first gradient that it asks for is the one at the response itself."""
        stands = self.estimator.hard and self.estimator.feedback == "gradient"
        return stands and not isinstance(self.anchor, ArgmaxAnchor)

    @property
    def parts(self) -> Parts:
        """The settings as one value."""
        return Parts(
            estimator=self.estimator,
            objective=self.objective,
            terms=self.terms,
            anchor=self.anchor,
            parameterization=self.parameterization,
            rows=self.rows,
            steps=self.steps,
            descent=self.descent,
            closed_form=self.closed_form,
        )

    async def refine(
        self,
        trajectory: Trajectory,
        session: Session,
        ahead: Sequence[int] = (),
        direction: Direction | None = None,
    ) -> Refinement:
        """Refines the rows at the first uncommitted position (Algorithm 2).

        Args:
            trajectory: the current response.
            session: of its problem.
            ahead: positions that will probably be refined next, if this one's proposal is rejected.
            direction: what the descent follows; the gradient by default.

        Raises NumericalError if a gradient or the refined logits are not finite.
        """
        (trajectory,) = await session.states([trajectory], phase="gradient")  # where it was written elsewhere
        noise = session.generator("refine", trajectory.committed, session.requests)
        task = RefineTask(session, trajectory, tuple(ahead), noise, direction or Gradient())
        if self.descent.elementwise:
            found: Refinement = await session.jointly(self.refine_together, task)
        else:  # an optimiser that mixes the numbers of a parameter gets one per problem
            found = await session.jointly(lambda tasks: self.refine_together(tasks), task)
        return found

    def refine_together(self, tasks: Sequence[RefineTask]) -> list[Refinement | NablaError]:
        """Refines rows of several problems in step; each comes out as it would alone, also when it is called
        again with the same tasks."""
        tasks = [replace(task, noise=task.noise.clone_state()) for task in tasks]
        usable = tasks[0].session.workspace.weights.head.usable
        width = usable if self.rows.support is None else min(self.rows.support, usable)
        groups: list[list[RefineTask]] = []
        held = 0
        for task in tasks:
            positions = self.rows.positions(task.trajectory)
            size = width * (positions.stop - positions.start)
            if not groups or held + size > JOINT_ELEMENTS:
                groups.append([])
                held = 0
            groups[-1].append(task)
            held += size
        parts = self.parts
        return [found for group in groups for found in Descending(parts, group).run()]
