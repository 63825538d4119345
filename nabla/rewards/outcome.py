"""Outcome reward models: one scalar per response."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.errors import ModelError
from nabla.models.head import work_dtype
from nabla.rewards.base import rewards
from nabla.rewards.transformer import Layout, TransformerReward


@rewards.register("outcome")
class OutcomeReward(TransformerReward):
    """``AutoModelForSequenceClassification`` with one label, read at the last token (Skywork-Reward and
    the like); the unit is the head's logit."""

    auto = "AutoModelForSequenceClassification"
    reads_whole_response = False

    def __init__(self, model: Any, tokenizer: Any, **arguments: Any) -> None:
        if getattr(model.config, "num_labels", 1) != 1:
            raise ModelError(
                "An outcome reward model has one label",
                got=model.config.num_labels,
                fix="Load it with num_labels=1, or use rewards/process for a per-token classifier.",
            )
        super().__init__(model, tokenizer, **arguments)

    def _expected(self, ids: Int[Tensor, " n"]) -> Tensor:
        scores: Tensor = self.model(input_ids=ids[None].to(self.body.device)).logits[0]
        return scores

    def _read(self, hidden: Float[Tensor, "n hidden"]) -> Tensor:
        scores: Tensor = self.head(hidden[-1:])[0]
        return scores

    def _reward(self, hidden: Float[Tensor, "n hidden"], layout: Layout) -> Float[Tensor, ""]:
        scores = self._read(hidden)
        return scores.to(work_dtype(scores.dtype))[0]
