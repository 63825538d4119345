"""Common random numbers: a token changes only where refinement moved the distribution."""

from __future__ import annotations

from jaxtyping import Int
from torch import Tensor

from nabla.proposals.base import Proposal, ProposalView, proposals


@proposals.register("coupled")
class Coupled(Proposal):
    """``argmax(filter(z̃) + g)`` with the rollout's own noise g and sampling settings.

    The current token stays unless that draw differs from the same draw at the unrefined logits, so
    that a changed token is the gradient's doing: not the draw's (the control that SPEC section 10
    asks for is built in), nor that of a top-p taken over a support of candidates instead of the
    vocabulary.
    """

    def index(self, view: ProposalView) -> Int[Tensor, ""]:
        trajectory = view.trajectory
        noise = trajectory.noise(view.position, view.candidates).to(view.logits)
        before = trajectory.sampling.draw(view.reference, noise)
        after = trajectory.sampling.draw(view.logits, noise)
        own = (view.candidates == trajectory.tokens[view.position]).nonzero()
        return own[0, 0] if bool(before == after) and len(own) else after
