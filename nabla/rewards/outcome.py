"""Outcome reward models: one scalar per response."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.errors import ModelError, require_one_of
from nabla.models.precision import exact_scores
from nabla.models.runner import Runner
from nabla.rewards.base import Reading, Response, rewards
from nabla.rewards.reading import Layout
from nabla.rewards.transformer import TransformerReward


@rewards.register("outcome")
class OutcomeReward(TransformerReward):
    """``AutoModelForSequenceClassification`` with one label, read where transformers reads it: at the last
    token that is not the padding token (Skywork-Reward and the like); the unit is the head's logit.

    Args:
        label: for a head with several labels: which one is the reward, or ``log-odds``: of two labels, the
            second's logit minus the first's.
        read: of a prefix's value: ``inner``, at its last token within the text, where the head was trained
            nowhere but at an answer's end; ``closed``, behind what the template writes at an answer's end,
            which is run once more for each token that is read (and counted): the score that the prefix would
            have as an answer.

    Raises ModelError or ConfigError.
    """

    auto = "AutoModelForSequenceClassification"
    reads_whole_response = False

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        label: int | Literal["log-odds"] | None = None,
        read: Literal["inner", "closed"] = "inner",
        **arguments: Any,
    ) -> None:
        require_one_of(read, ("inner", "closed"), "Unknown reading of a prefix", "Readings")
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
        self.label, self.read = label, read
        super().__init__(model, tokenizer, **arguments)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        path: str,
        *,
        label: int | Literal["log-odds"] | None = None,
        read: Literal["inner", "closed"] = "inner",
        **arguments: Any,
    ) -> OutcomeReward:
        """As :meth:`TransformerReward.from_pretrained`, with this class's own arguments."""
        found = super().from_pretrained(path, settings={"label": label, "read": read}, **arguments)
        assert isinstance(found, OutcomeReward)
        return found

    def _stop(self, tokens: Int[Tensor, " n"]) -> int:
        pad = self.config_pad
        if pad is None or (len(tokens) and int(tokens[-1]) != pad):
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

    def values(self, texts: Sequence[Reading], runner: Runner) -> list[list[float]]:
        return self.closed_values(texts, runner) if self.read == "closed" else super().values(texts, runner)

    def together(self, values: Sequence[float], response: Response | None = None) -> float | None:
        """Read ``closed``, a text's last value is its score."""
        return values[-1] if self.read == "closed" and values else None

    def token_rewards(self, hidden: Float[Tensor, "n hidden"]) -> Float[Tensor, " n"]:
        """Behind a prefix the head was trained nowhere but at an answer's end: a guess."""
        scores = exact_scores(self.head, hidden)
        if self.label == "log-odds":
            return scores[:, 1] - scores[:, 0]
        return scores[:, self.label or 0]
