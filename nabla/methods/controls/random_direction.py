"""A random direction in place of the gradient: does the gradient's direction matter? (SPEC section 10)"""

from __future__ import annotations

from typing import Any

from nabla.acceptance.base import Acceptance
from nabla.core.sampling import Sampling
from nabla.methods.base import methods
from nabla.methods.sources import Refined
from nabla.methods.sweep import Sweep
from nabla.proposals.base import Proposal
from nabla.refinement.directions import RandomDirection
from nabla.refinement.dto import DTO
from nabla.selectors.base import Selector


@methods.register("random-direction")
def random_direction(
    dto: DTO | dict[str, Any] | None = None,
    selector: Selector | str | dict[str, Any] = "entropy",
    proposal: Proposal | str | dict[str, Any] = "sample",
    acceptance: Acceptance | str | dict[str, Any] = "strict",
    sampling: Sampling | dict[str, Any] | None = None,
    max_rollouts: int | None = 8,
    rounds: int = 1,
    width: int = 1,
) -> Sweep:
    """∇-Reasoner with its gradient rows replaced by random ones of equal norm.

    Everything else is ∇-Reasoner's (arXiv 2603.04948), its cost too: the gradient is computed for its norm.
    Terms on the logits alone (KL, entropy) stay as they are.

    Args:
        dto: the inner loop.
        selector, proposal, acceptance, sampling, max_rollouts, rounds, width: as in ``nabla-reasoner``.
    """
    rows = Refined(dto, RandomDirection())
    return Sweep(rows, selector, proposal, acceptance, sampling, max_rollouts, rounds, width)
