"""The most likely token of the refined row."""

from __future__ import annotations

from jaxtyping import Int
from torch import Tensor

from nabla.proposals.base import Proposal, ProposalView, proposals


@proposals.register("argmax")
class Argmax(Proposal):
    """The argmax of the refined row: no draw at all."""

    def index(self, view: ProposalView) -> Int[Tensor, ""]:
        return view.logits.argmax(-1)
