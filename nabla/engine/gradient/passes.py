"""The language model over the free part of texts, once per gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nabla.engine.gradient.values import GradientTask
from nabla.models.body import Chunk
from nabla.models.head import Head


@dataclass(eq=False)
class _LanguagePass:
    """One LM pass over the free part of a text."""

    leaf: Tensor
    chunk: Chunk | None
    values: Tensor
    normalisers: Tensor
    hidden: Tensor


def _log_likelihood(head: Head, hidden: Tensor, task: GradientTask) -> tuple[Tensor, Tensor]:
    """``y_i^T log π(.|y_<i)`` and log-normalisers of the free rows; hard rows need one logit each."""

    def part(rows: slice, tokens: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        return head.log_likelihood(hidden[rows], tokens, weights)

    def hard(rows: slice) -> tuple[Tensor, Tensor]:
        tokens = task.tokens[task.start :][rows].unsqueeze(-1)
        return part(rows, tokens, torch.ones_like(tokens, dtype=hidden.dtype))

    count = len(hidden)
    if task.soft is None:
        return hard(slice(0, count))
    begin = task.soft.start - task.start
    end = begin + len(task.soft.weights)
    candidates = task.soft.candidates
    if candidates is None:
        candidates = torch.arange(head.usable).expand(end - begin, -1)
    pieces = [
        hard(slice(0, begin)),
        part(slice(begin, end), candidates, task.soft.weights),
        hard(slice(end, count)),
    ]
    return torch.cat([v for v, _ in pieces]), torch.cat([n for _, n in pieces])
