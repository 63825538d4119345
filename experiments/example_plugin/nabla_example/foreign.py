"""A reward model with a tokenizer of its own: it reads text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from nabla.core.costs import Usage
from nabla.core.trajectory import Score
from nabla.rewards.base import Response, Reward

if TYPE_CHECKING:
    from nabla.models.runner import Runner


class ForeignReward(Reward):
    """Any sequence classifier of one label over the whole conversation as text; no gradient."""

    def __init__(self, path: str) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=1).eval()
        self.size = sum(p.numel() for p in self.model.parameters())

    def score(self, responses: Sequence[Response], runner: Runner) -> list[Score]:
        return [Score(self._one(response)) for response in responses]

    @torch.no_grad()
    def _one(self, response: Response) -> float:
        turns = [{"role": m.role, "content": m.content} for m in response.prompt.messages]
        turns.append({"role": "assistant", "content": self.text(response)})
        text = self.tokenizer.apply_chat_template(turns, tokenize=False)
        ids = self.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        usage = Usage(forward_passes=1, tokens=ids.numel(), flops=2.0 * self.size * ids.numel())
        response.account.add(usage)
        return float(self.model(input_ids=ids).logits[0, 0])
