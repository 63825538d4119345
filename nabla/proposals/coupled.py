"""Common random numbers: a token changes only where refinement moved the distribution."""

from __future__ import annotations

from jaxtyping import Int
from torch import Tensor

from nabla.proposals.base import Proposal, ProposalView, proposals


@proposals.register("coupled")
class Coupled(Proposal):
    """``argmax(filter(z̃) + g)`` with the rollout's own noise g and sampling settings.

    Unrefined logits give back the rollout's token, so that a changed token is the gradient's doing and
    not the draw's (the control that SPEC section 10 asks for is built in).
    """

    def index(self, view: ProposalView) -> Int[Tensor, ""]:
        noise = view.trajectory.noise(view.position, view.candidates).to(view.logits)
        return view.trajectory.sampling.draw(view.logits, noise)
