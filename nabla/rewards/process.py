"""Process reward models: one score per token or step, aggregated to a response's reward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.errors import ConfigError, ModelError
from nabla.core.trajectory import Score
from nabla.models.head import work_dtype
from nabla.rewards.base import rewards
from nabla.rewards.reading import Layout
from nabla.rewards.transformer import TransformerReward

AGGREGATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": torch.sum,
    "mean": torch.mean,
    "min": torch.min,
    "last": lambda steps: steps[-1],
}


@rewards.register("process")
class ProcessReward(TransformerReward):
    """``AutoModelForTokenClassification``: the reward of each prefix, aggregated over the steps
    (SPEC section 1; ``sum`` is the paper's appendix B.2).

    Args:
        aggregation: ``sum``, ``mean``, ``min`` or ``last`` over the steps.
        step_separators: a step ends at a token whose text contains one of these, and at the answer's
            last token; empty: every token is a step.
        label: which of the head's labels is the reward.
    """

    auto = "AutoModelForTokenClassification"
    reads_whole_response = True

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        aggregation: Literal["sum", "mean", "min", "last"] = "min",
        step_separators: Sequence[str] = (),
        label: int = 0,
        **arguments: Any,
    ) -> None:
        if aggregation not in AGGREGATIONS:
            raise ConfigError("Unknown aggregation", got=aggregation, fix=f"Use {', '.join(AGGREGATIONS)}.")
        labels = int(getattr(model.config, "num_labels", 1))
        if not 0 <= label < labels:
            raise ModelError(f"The process reward model has {labels} labels", got=label)
        self.aggregation, self.label = aggregation, label
        self.step_separators = tuple(step_separators)
        self._ends: dict[int, bool] = {}
        super().__init__(model, tokenizer, **arguments)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        path: str,
        *,
        aggregation: Literal["sum", "mean", "min", "last"] = "min",
        step_separators: Sequence[str] = (),
        label: int = 0,
        **arguments: Any,
    ) -> ProcessReward:
        """As :meth:`TransformerReward.from_pretrained`, with this class's own arguments."""
        found = super().from_pretrained(
            path,
            settings={
                "aggregation": aggregation,
                "step_separators": step_separators,
                "label": label,
            },
            **arguments,
        )
        assert isinstance(found, ProcessReward)
        return found

    def _expected(self, ids: Int[Tensor, " n"]) -> Tensor:
        scores: Tensor = self.model(input_ids=ids[None].to(self.body.device)).logits[0]
        return scores

    def _read(self, hidden: Float[Tensor, "n hidden"]) -> Tensor:
        scores: Tensor = self.head(hidden)
        return scores

    def _ends_step(self, token: int) -> bool:
        if token not in self._ends:
            text = self.tokenizer.decode([token]) if token >= 0 else ""  # -1: no such token here
            self._ends[token] = any(separator in text for separator in self.step_separators)
        return self._ends[token]

    def steps(self, layout: Layout) -> Int[Tensor, " steps"]:
        """Positions in the answer at which a step's score is read."""
        if layout.visible == 0:
            return torch.zeros(0, dtype=torch.long)
        if not self.step_separators:
            return torch.arange(layout.visible)
        ends = [i for i, t in enumerate(layout.answer.tolist()) if self._ends_step(t)]
        if not ends or ends[-1] != layout.visible - 1:
            ends.append(layout.visible - 1)
        return torch.tensor(ends)

    def _reward(self, hidden: Float[Tensor, "n hidden"], layout: Layout) -> Float[Tensor, ""]:
        return AGGREGATIONS[self.aggregation](self._steps(hidden, layout))

    def _judge(self, hidden: Float[Tensor, "n hidden"], layout: Layout) -> Score:
        steps = self._steps(hidden, layout)
        value = float(AGGREGATIONS[self.aggregation](steps))
        return Score(value, tuple(steps.tolist()), tuple(self.steps(layout).tolist()))

    def _steps(self, hidden: Float[Tensor, "n hidden"], layout: Layout) -> Float[Tensor, " steps"]:
        """The score of each step."""
        steps = self.steps(layout)
        if len(steps) == 0:  # an empty answer: the score of the question's last token
            steps = torch.tensor([-1])
        first = len(hidden) - len(layout.after) - len(layout.answer)
        index = steps + first
        scores = self._read(hidden[index.to(hidden.device)])[:, self.label]
        return scores.to(work_dtype(scores.dtype))
