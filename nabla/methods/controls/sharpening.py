"""Sharpening matched in KL: is the gradient more than a lower temperature? (SPEC section 10)"""

from __future__ import annotations

from typing import Any

from nabla.acceptance.base import Acceptance
from nabla.core.sampling import Sampling
from nabla.methods.base import methods
from nabla.methods.sources import Sharpened
from nabla.methods.sweep import Sweep
from nabla.proposals.base import Proposal
from nabla.refinement.dto import DTO
from nabla.selectors.base import Selector


@methods.register("kl-matched-sharpening")
def kl_matched_sharpening(
    dto: DTO | dict[str, Any] | None = None,
    selector: Selector | str | dict[str, Any] = "entropy",
    proposal: Proposal | str | dict[str, Any] = "sample",
    acceptance: Acceptance | str | dict[str, Any] = "strict",
    sampling: Sampling | dict[str, Any] | None = None,
    max_rollouts: int | None = 8,
    rounds: int = 1,
    width: int = 1,
) -> Sweep:
    """∇-Reasoner's steps with the language model's own row sharpened as far as refinement would move it.

    Every position is refined, and paid for, as in ∇-Reasoner; what is proposed from is
    :class:`~nabla.methods.sources.Sharpened`'s row of the same KL.

    Args:
        dto: the inner loop.
        selector, proposal, acceptance, sampling, max_rollouts, rounds, width: as in ``nabla-reasoner``.
    """
    return Sweep(Sharpened(dto), selector, proposal, acceptance, sampling, max_rollouts, rounds, width)
