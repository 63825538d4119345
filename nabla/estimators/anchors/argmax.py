"""The paper's forward value: argmax of the current logits."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from nabla.estimators.anchors.base import Anchor, anchors, argmax


@anchors.register("argmax")
class ArgmaxAnchor(Anchor):
    """Stand at the argmax of the logits, whatever token the rollout sampled (arXiv 2603.04948)."""

    def index(
        self,
        scores: Float[Tensor, "*batch k"],
        reference_scores: Float[Tensor, "*batch k"],
        chosen: Int[Tensor, "*batch"],
    ) -> Int[Tensor, "*batch"]:
        return argmax(scores)
