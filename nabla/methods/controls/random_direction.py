"""A random direction in place of the gradient: does the gradient's direction matter? (SPEC section 10)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nabla.acceptance.base import Acceptance
from nabla.core.sampling import Sampling
from nabla.core.trajectory import Trajectory
from nabla.methods.base import methods
from nabla.methods.sweep import RefiningSweep, Row
from nabla.proposals.base import Proposal
from nabla.refinement import directions
from nabla.refinement.dto import DTO
from nabla.selectors.base import Selector

if TYPE_CHECKING:
    from nabla.engine.session import Session


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
        super().__init__(dto, selector, proposal, acceptance, sampling, max_rollouts, rounds)
        self.direction = directions.RandomDirection()
        self.direction.check(self.dto.estimator, self.dto.objective, self.dto.rows)

    async def row(self, session: Session, trajectory: Trajectory, ahead: Sequence[int]) -> Row:
        refinement = await self.dto.refine(trajectory, session, ahead, self.direction)
        return Row(refinement.logits[0], refinement.reference)
