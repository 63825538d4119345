"""Outcome reward models: one scalar per response."""

from __future__ import annotations

from typing import Any, Literal

from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.errors import ModelError
from nabla.models.precision import exact_scores
from nabla.rewards.base import rewards
from nabla.rewards.reading import Layout
from nabla.rewards.transformer import TransformerReward


@rewards.register("outcome")
class OutcomeReward(TransformerReward):
    """``AutoModelForSequenceClassification`` with one label, read where transformers reads it: at the last
    token that is not the padding token (Skywork-Reward and the like); the unit is the head's logit.

    Args:
        label: for a head with several labels: which one is the reward, or ``log-odds``: of two labels, the
            second's logit minus the first's.
    """

    auto = "AutoModelForSequenceClassification"
    reads_whole_response = False

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        label: int | Literal["log-odds"] | None = None,
        **arguments: Any,
    ) -> None:
        labels = int(getattr(model.config, "num_labels", 1))
        if labels != 1 and label is None:
            raise ModelError(
                "An outcome reward model has one label",
                got=labels,
                fix="Say which one is the reward (label=0, ..., or label='log-odds' for a classifier of "
                "wrong and right), load it with num_labels=1, or use rewards/process for a per-token one.",
            )
        if (label == "log-odds" and labels != 2) or (
            label not in (None, "log-odds") and not (isinstance(label, int) and 0 <= label < labels)
        ):
            raise ModelError(f"The outcome reward model has {labels} labels", got=label)
        self.label = label
        super().__init__(model, tokenizer, **arguments)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, path: str, *, label: int | Literal["log-odds"] | None = None, **arguments: Any
    ) -> OutcomeReward:
        """As :meth:`TransformerReward.from_pretrained`, with this class's own arguments."""
        found = super().from_pretrained(path, settings={"label": label}, **arguments)
        assert isinstance(found, OutcomeReward)
        return found

    def _stop(self, tokens: Int[Tensor, " n"]) -> int:
        pad = self.config_pad
        if pad is None:
            return len(tokens)
        real = (tokens != pad).nonzero()[:, 0]
        return int(real[-1]) + 1 if len(real) else 1

    def _expected(self, ids: Int[Tensor, " n"]) -> Tensor:
        scores: Tensor = self.model(input_ids=ids[None].to(self.body.device)).logits[0]
        return scores

    def _read(self, hidden: Float[Tensor, "n hidden"]) -> Tensor:
        return exact_scores(self.head, hidden[-1:])[0]

    def _reward(self, hidden: Float[Tensor, "n hidden"], layout: Layout) -> Float[Tensor, ""]:
        return self.token_rewards(hidden[-1:])[0]

    @property
    def reads_every_token(self) -> bool:
        return True

    def token_rewards(self, hidden: Float[Tensor, "n hidden"]) -> Float[Tensor, " n"]:
        """Behind a prefix the head was trained nowhere but at an answer's end: a guess."""
        scores = exact_scores(self.head, hidden)
        if self.label == "log-odds":
            return scores[:, 1] - scores[:, 0]
        return scores[:, self.label or 0]
