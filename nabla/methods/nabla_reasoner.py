"""∇-Reasoner (Wang et al., ICLR 2026, arXiv 2603.04948): Algorithms 1 to 4 as a composition of parts."""

from __future__ import annotations

from typing import Any

from nabla.acceptance.base import Acceptance
from nabla.core.sampling import Sampling
from nabla.methods.base import methods
from nabla.methods.sources import Refined
from nabla.methods.sweep import Sweep
from nabla.proposals.base import Proposal
from nabla.refinement.dto import DTO
from nabla.selectors.base import Selector


@methods.register("nabla-reasoner")
def nabla_reasoner(
    dto: DTO | dict[str, Any] | None = None,
    selector: Selector | str | dict[str, Any] = "entropy",
    proposal: Proposal | str | dict[str, Any] = "sample",
    acceptance: Acceptance | str | dict[str, Any] = "strict",
    sampling: Sampling | dict[str, Any] | None = None,
    max_rollouts: int | None = 8,
    rounds: int = 1,
    width: int = 1,
) -> Sweep:
    """Refine, propose, accept, commit: one token at a time.

    With ``selector="all"`` and ``max_rollouts=None`` this is Algorithm 1, with a selector Algorithm 3;
    rollout reuse and gradient caching (Algorithm 4) are the engine's and always exact.

    Args:
        dto: the inner loop.
        selector: positions worth refining; the others are committed as they are.
        proposal: refined row → token.
        acceptance: whether a proposal replaces the current response.
        sampling: of rollouts.
        max_rollouts: N_max; after that many in a round the rest is committed unrefined. None: no limit.
        rounds: sweeps, each from a fresh rollout; the best round's response by reward is the answer.
            Under budgets there are as many rounds as these allow.
        width: proposals of a position that are rolled out in one batch; the best of them is offered.
    """
    return Sweep(Refined(dto), selector, proposal, acceptance, sampling, max_rollouts, rounds, width)


#: The name from when this was a class.
NablaReasonerMethod = nabla_reasoner
