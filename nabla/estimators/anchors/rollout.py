"""The default: the gradient is evaluated at the text that was written."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.estimators.anchors.base import Anchor, anchors, argmax


@anchors.register("rollout")
class RolloutAnchor(Anchor):
    """Stand at the rollout's own token until the argmax leaves its initial value (SPEC section 3)."""

    def index(
        self,
        scores: Float[Tensor, "*batch k"],
        reference_scores: Float[Tensor, "*batch k"],
        chosen: Int[Tensor, "*batch"],
    ) -> Int[Tensor, "*batch"]:
        now, then = argmax(scores), argmax(reference_scores)
        return torch.where(now == then, chosen, now)
