"""What a descent follows: the gradient, or something else in its place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nabla.core.errors import ConfigError
from nabla.objectives.base import Objective, trajectory_terms

if TYPE_CHECKING:
    from nabla.core.trajectory import Trajectory
    from nabla.engine.initial_rows import InitialRows
    from nabla.engine.session import Session
    from nabla.estimators.base import Estimator
    from nabla.refinement.rows.base import Rows


class Direction(ABC):
    """Turns the gradient rows of the trajectory terms into the rows that are followed; settings only.

    Terms on the logits alone (KL, entropy) are followed as they are.
    """

    def check(self, estimator: Estimator, objective: Objective, rows: Rows) -> None:
        """Override to raise ConfigError if a refinement of these parts cannot follow this direction."""
        return

    @abstractmethod
    def of(
        self,
        rows: dict[str, Float[Tensor, "rows k"]],
        reference: InitialRows,
        trajectory: Trajectory,
        session: Session,
    ) -> dict[str, Float[Tensor, "rows k"]]:
        """The rows to follow.

        Args:
            rows: each trajectory term's ``∂term/∂y`` over the support, by name; not to be changed in place.
            reference: initial rows.
            trajectory: whose rows they are.
            session: of the problem; gives generators.
        """


class Gradient(Direction):
    """The gradient itself."""

    def of(
        self,
        rows: dict[str, Float[Tensor, "rows k"]],
        reference: InitialRows,
        trajectory: Trajectory,
        session: Session,
    ) -> dict[str, Float[Tensor, "rows k"]]:
        return rows


class RandomDirection(Direction):
    """Random directions of the gradients' norms.

    The models are asked (and paid for) as ever; the directions are those of the noise. They stay the same
    over the steps of one refinement, as the gradient's nearly do.
    """

    def check(self, estimator: Estimator, objective: Objective, rows: Rows) -> None:
        """Raises ConfigError for an estimator that asks for values (it has no gradient to replace), and for
        rows of too few candidates."""
        if estimator.feedback != "gradient":
            raise ConfigError(
                "A random direction replaces a gradient, and this estimator asks for values",
                got=type(estimator).__name__,
                fix="Choose an estimator with gradient feedback, e.g. 'straight-through'.",
            )
        terms, support = len(trajectory_terms(objective)), rows.support
        if support is not None and support <= terms:
            raise ConfigError(
                "A row needs more candidates than the objective has terms",
                got=support,
                fix=f"Set the rows' support to at least {terms + 1}.",
            )

    def of(
        self,
        rows: dict[str, Float[Tensor, "rows k"]],
        reference: InitialRows,
        trajectory: Trajectory,
        session: Session,
    ) -> dict[str, Float[Tensor, "rows k"]]:
        noise = session.generator("direction", trajectory.committed, session.requests)
        return turned(rows, reference.logits > float("-inf"), noise)


def turned(
    terms: dict[str, Float[Tensor, "rows k"]], usable: Bool[Tensor, "rows k"], noise: torch.Generator
) -> dict[str, Float[Tensor, "rows k"]]:
    """The rows of all terms turned by one random rotation per row.

    Every row keeps its mean over the usable candidates, and the norm of what is left; so do all weighted
    sums of the terms, because the angles between terms stay too. The mean has no effect on a softmax
    (SPEC section 5): were it turned too, it would come back as a step that the gradient never takes.

    Args:
        terms: gradient rows by name.
        usable: candidates that can have weight; the others get 0.
        noise: explicit randomness.
    """
    rows = torch.stack(list(terms.values()), -1)  # [R, K, m]
    mask = usable.unsqueeze(-1).to(torch.float64)
    count = mask.sum(1, keepdim=True)

    def centred(x: Tensor) -> tuple[Tensor, Tensor]:
        mean = (x * mask).sum(1, keepdim=True) / count
        return (x - mean) * mask, mean * mask

    residual, mean = centred(rows.double())
    # A frame of random directions, and the root of the Gram matrix: same norms, same angles.
    draws = torch.randn(rows.shape, generator=noise, dtype=torch.float64).to(rows.device)
    frame, triangle = torch.linalg.qr(centred(draws)[0])
    # QR alone prefers some signs; with a positive diagonal the frame is uniform (math-ph/0609050).
    frame = frame * triangle.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    squares, axes = torch.linalg.eigh(residual.mT @ residual)
    root = axes @ (squares.clamp_min(0).sqrt().unsqueeze(-1) * axes.mT)
    new = ((frame @ root + mean) * mask).to(rows.dtype)
    return {name: new[..., i].contiguous() for i, name in enumerate(terms)}
