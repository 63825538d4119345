"""Common random numbers: a token changes only where refinement moved the distribution."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.errors import ConfigError
from nabla.core.random import gumbel
from nabla.core.trajectory import Trajectory
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
        noise = noise_of(trajectory, view.position, view.candidates).to(view.logits)
        before = trajectory.sampling.draw(view.reference, noise)
        after = trajectory.sampling.draw(view.logits, noise)
        own = (view.candidates == trajectory.tokens[view.position]).nonzero()
        return own[0, 0] if bool(before == after) and len(own) else after


def noise_of(trajectory: Trajectory, position: int, tokens: Int[Tensor, " k"]) -> Float[Tensor, " k"]:
    """The Gumbel noise with which the token at ``position`` was drawn.

    Raises ConfigError for a response that was not drawn from nabla's Gumbel field.
    """
    if trajectory.noise_keys is None:
        raise ConfigError(
            "A coupled proposal uses the noise that the response was drawn with, and this response was drawn "
            "elsewhere",
            fix="Choose another proposal, e.g. 'sample', or a rollout that draws in this process.",
        )
    where = torch.tensor([position])
    return gumbel(trajectory.noise_keys[position : position + 1].cpu(), where, tokens.cpu())[0]
