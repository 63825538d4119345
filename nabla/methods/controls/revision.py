"""Sequential revision by re-sampling, without a gradient: the control of ∇-Reasoner (SPEC section 10)."""

from __future__ import annotations

from typing import Any

from nabla.acceptance.base import Acceptance
from nabla.core.sampling import Sampling
from nabla.methods.base import methods
from nabla.methods.sources import Own
from nabla.methods.sweep import Sweep
from nabla.objectives.base import Objective
from nabla.proposals.base import Proposal
from nabla.selectors.base import Selector


@methods.register("revision")
def revision(
    selector: Selector | str | dict[str, Any] = "entropy",
    proposal: Proposal | str | dict[str, Any] = "sample",
    acceptance: Acceptance | str | dict[str, Any] = "strict",
    sampling: Sampling | dict[str, Any] | None = None,
    max_rollouts: int | None = 8,
    rounds: int = 1,
    objective: Objective | str | dict[str, Any] | None = None,
    width: int = 1,
) -> Sweep:
    """∇-Reasoner with a gradient of zero: tokens are drawn again from the language model's own row.

    Same positions, same draws, same acceptance (arXiv 2603.04948, Algorithm 3 at a learning rate of 0);
    a proposal costs one product with the head and no pass through a model.

    Args:
        selector, proposal, acceptance, sampling, max_rollouts, rounds, width: as in ``nabla-reasoner``.
        objective: only for selectors that look at its gradient, which then costs what it costs there.
    """
    return Sweep(Own(objective), selector, proposal, acceptance, sampling, max_rollouts, rounds, width)
