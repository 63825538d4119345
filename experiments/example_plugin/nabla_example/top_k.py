"""Soft embedding over the most likely tokens only."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from nabla.core.errors import ConfigError
from nabla.estimators.anchors.base import AnchorPoint
from nabla.estimators.base import Estimator
from nabla.schedulers.base import Step


class TopKSoftEmbedding(Estimator):
    """``softmax(z/τ)`` over the ``k`` most likely tokens, zero elsewhere."""

    hard = False  # rows are mixtures, not one-hot
    stochastic = False  # no random draws

    def __init__(self, k: int = 8, temperature: float = 1.0) -> None:
        super().__init__(temperature)
        if k < 2:
            raise ConfigError("k must be at least 2", got=k, fix="One token alone has no gradient.")
        self.k = k

    def relax(
        self,
        logits: Float[Tensor, "*batch k"],
        *,
        generator: torch.Generator,
        step: Step,
        anchor: AnchorPoint | None,
    ) -> Float[Tensor, "*batch k"]:
        lowest = logits.topk(min(self.k, logits.shape[-1]), dim=-1).values[..., -1:]
        kept = logits.masked_fill(logits < lowest, float("-inf"))
        return (kept / self.temperature(step)).softmax(-1)
