"""What a refinement works on, as values: its settings, its problems, and what the models have said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from nabla.core.errors import NablaError
from nabla.core.trajectory import Trajectory
from nabla.engine.initial_rows import InitialRows
from nabla.engine.session import Session
from nabla.engine.workspace import Workspace
from nabla.estimators.anchors.base import Anchor
from nabla.estimators.base import Estimator, closed_form
from nabla.objectives.base import LogitObjective, Objective, Term, TrajectoryObjective
from nabla.refinement.descent import Descent
from nabla.refinement.directions import Direction
from nabla.refinement.parameterizations.base import Parameterization
from nabla.refinement.rows.base import Rows


@dataclass(frozen=True, eq=False)
class Parts:
    """The settings of a refinement: those of :class:`~nabla.refinement.dto.DTO`, which explains them.

    Args:
        terms: of the objective.
    """

    estimator: Estimator
    objective: Objective
    terms: tuple[Term, ...]
    anchor: Anchor
    parameterization: Parameterization
    rows: Rows
    steps: int
    descent: Descent
    closed_form: bool

    @cached_property
    def exact(self) -> bool:
        """What the models said serves equal rows only; False where the estimator declares another rule."""
        return type(self.estimator).reusable is Estimator.reusable

    @cached_property
    def pull_back(self) -> Callable[..., Tensor] | None:
        """The estimator's backward rule in closed form, if it has one and is to be used. A hard row is then
        its column: no one-hot row, no graph."""
        return closed_form(self.estimator) if self.closed_form and self.exact else None

    @cached_property
    def logit_terms(self) -> tuple[Term, ...]:
        """Terms on the logits alone that can have a weight."""
        return tuple(t for t in self.terms if isinstance(t.objective, LogitObjective) and t.active)

    @cached_property
    def trajectory_terms(self) -> tuple[Term, ...]:
        """Terms that need the models and can have a weight."""
        return tuple(t for t in self.terms if isinstance(t.objective, TrajectoryObjective) and t.active)


@dataclass(frozen=True, eq=False)
class RefineTask:
    """One refinement: a trajectory of one problem.

    Args:
        session: of the problem.
        trajectory: refined from its first uncommitted position on.
        ahead: positions that will probably be refined next.
        noise: source of every draw.
        direction: what the descent follows.
    """

    session: Session
    trajectory: Trajectory
    ahead: tuple[int, ...]
    noise: torch.Generator
    direction: Direction


@dataclass(frozen=True, eq=False)
class Group:
    """Problems whose rows are refined as one parameter.

    Args:
        tasks: one a problem.
        references: initial rows of each.
        joint: all of them as one reference.
        spans: rows of each in the joint one.
        workspace: answers requests.
    """

    tasks: tuple[RefineTask, ...]
    references: tuple[InitialRows, ...]
    joint: InitialRows
    spans: tuple[slice, ...]
    workspace: Workspace


@dataclass(eq=False)
class Heard:
    """What the models have said at the rows where they were asked last. The only state of a refinement
    beside its parameter and the optimiser's.

    Args:
        numbers: with value feedback, each trajectory term's value at every draw, per problem and by term.
        values: each trajectory term's value, per problem and by term.
        recomputed: how often the models were asked, per problem.
        rows: with gradient feedback, ``∂term/∂y`` over the support of the joint rows, by term ``[N, K]``.
        errors: of problems that failed, by their index in the group.
        version: grows whenever ``rows`` or ``numbers`` change.
    """

    numbers: list[dict[str, Tensor]]
    values: list[dict[str, float]]
    recomputed: list[int]
    rows: dict[str, Tensor] = field(default_factory=dict)
    errors: dict[int, NablaError] = field(default_factory=dict)
    version: int = 0

    @classmethod
    def nothing(cls, problems: int) -> Heard:
        """Before the models are asked."""
        return cls([{} for _ in range(problems)], [{} for _ in range(problems)], [0] * problems)


def part(rows: Tensor, span: slice) -> Tensor:
    """One problem's part of relaxed rows ``[(draws,) N, K]``, or of columns ``[N]``."""
    return rows[..., span, :] if rows.is_floating_point() else rows[span]
