"""Soft embedding: the expected embedding, no discretisation."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from nabla.estimators.anchors.base import AnchorPoint
from nabla.estimators.base import Estimator, estimators
from nabla.schedulers.base import Step


@estimators.register("soft-embedding")
class SoftEmbedding(Estimator):
    """``softmax(z/τ)``: the model reads a mixture of embeddings (SPEC section 3)."""

    hard = False
    stochastic = False

    def relax(
        self,
        logits: Float[Tensor, "*batch k"],
        *,
        generator: torch.Generator,
        step: Step,
        anchor: AnchorPoint | None,
    ) -> Float[Tensor, "*batch k"]:
        return (logits / self.temperature(step)).softmax(-1)
