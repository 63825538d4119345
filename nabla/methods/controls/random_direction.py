"""A random direction in place of the gradient: does the gradient's direction matter? (SPEC section 10)"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nabla.acceptance.base import Acceptance
from nabla.core.errors import ConfigError
from nabla.core.registry import construct
from nabla.core.sampling import Sampling
from nabla.methods.base import methods
from nabla.methods.sweep import RefiningSweep
from nabla.objectives.base import trajectory_terms
from nabla.proposals.base import Proposal
from nabla.refinement.dto import DTO, Task
from nabla.selectors.base import Selector

if TYPE_CHECKING:
    from nabla.engine.initial_rows import InitialRows


class RandomDirectionDTO(DTO):
    """Refinement along random directions of the gradients' norms.

    Raises ConfigError for an estimator that asks for values (it has no gradient to replace), and for
    rows of too few candidates.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._require()

    @classmethod
    def of(cls, dto: DTO) -> RandomDirectionDTO:
        """With the settings of another inner loop."""
        made = cls.__new__(cls)
        vars(made).update(vars(dto))
        made._require()
        return made

    def _require(self) -> None:
        if self.estimator.feedback != "gradient":
            raise ConfigError(
                "A random direction replaces a gradient, and this estimator asks for values",
                got=type(self.estimator).__name__,
                fix="Choose an estimator with gradient feedback, e.g. 'straight-through'.",
            )
        terms, support = len(trajectory_terms(self.objective)), self.rows.support
        if support is not None and support <= terms:
            raise ConfigError(
                "A row needs more candidates than the objective has terms",
                got=support,
                fix=f"Set the rows' support to at least {terms + 1}.",
            )

    def feedback(
        self, rows: dict[str, Float[Tensor, "rows k"]], task: Task, reference: InitialRows
    ) -> dict[str, Float[Tensor, "rows k"]]:
        """The models are asked (and paid for) as ever; the directions are those of the noise. They stay the
        same over the steps of one refinement, as the gradient's nearly do."""
        session = task.session
        noise = session.generator("direction", task.trajectory.committed, session.requests)
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


@methods.register("random-direction")
class RandomDirection(RefiningSweep):
    """∇-Reasoner with its gradient rows replaced by random ones of equal norm.

    Everything else is ∇-Reasoner's (arXiv 2603.04948), its cost too: the gradient is computed for its norm.
    Terms on the logits alone (KL, entropy) stay as they are.

    Args:
        dto: the inner loop.
        selector, proposal, acceptance, sampling, max_rollouts, rounds: as in ``nabla-reasoner``.
    """

    def __init__(
        self,
        dto: DTO | dict[str, Any] | None = None,
        selector: Selector | str | dict[str, Any] = "entropy",
        proposal: Proposal | str | dict[str, Any] = "sample",
        acceptance: Acceptance | str | dict[str, Any] = "strict",
        sampling: Sampling | dict[str, Any] | None = None,
        max_rollouts: int | None = 8,
        rounds: int = 1,
    ) -> None:
        loop = RandomDirectionDTO.of(construct(DTO, dto))
        super().__init__(loop, selector, proposal, acceptance, sampling, max_rollouts, rounds)
