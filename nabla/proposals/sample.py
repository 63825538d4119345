"""The paper's proposal: an independent draw from the refined distribution."""

from __future__ import annotations

from jaxtyping import Int
from torch import Tensor

from nabla.core.random import gumbel_like
from nabla.core.sampling import Sampling
from nabla.proposals.base import Proposal, ProposalView, proposals


@proposals.register("sample")
class Sample(Proposal):
    """``ỹ ~ softmax(z̃/τ)`` with top-k and top-p (arXiv 2603.04948, Algorithm 1; τ = 0.5)."""

    def __init__(self, temperature: float = 0.5, top_k: int = 0, top_p: float = 1.0) -> None:
        self.sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)

    @property
    def dense(self) -> bool:
        return self.sampling.temperature > 0

    def log_density(self, view: ProposalView, column: int) -> float:
        return float(self.sampling.filter(view.logits).log_softmax(-1)[column])

    def index(self, view: ProposalView) -> Int[Tensor, ""]:
        return self.sampling.draw(view.logits, gumbel_like(view.logits, view.generator))
