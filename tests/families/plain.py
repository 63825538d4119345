"""What transformers itself says of a text: passes of ``input_ids``, and dense gradients through them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot


@contextmanager
def relaxed(model: Any, rows: slice, change: Tensor, candidates: Tensor) -> Iterator[None]:
    """While it lasts, the embeddings of the ids at ``rows`` are moved by ``change @ E[candidates]``; the
    model is still called with ids."""
    module = model.get_input_embeddings()
    with torch.no_grad():
        table = module(candidates)

    def instead(_: Any, __: Any, output: Tensor) -> Tensor:
        moved = torch.zeros_like(output)
        moved[0, rows] = change @ table
        return output + moved

    hook = module.register_forward_hook(instead)
    try:
        yield
    finally:
        hook.remove()


def log_probs(model: Any, ids: Tensor, usable: int) -> Tensor:
    """``log π(. | before)`` behind each token ``[n, V]``."""
    with torch.no_grad():
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :, :usable]
    return logits.log_softmax(-1)


def likelihood_rows(model: Any, ids: Tensor, first: int, usable: int) -> Tensor:
    """``∂ -Σ y_i·log π(. | y_<i) / ∂y`` of the tokens from ``first`` on ``[L, V]``."""
    rows = slice(first, len(ids))
    hard = one_hot(ids[rows], usable).double()
    y = hard.clone().requires_grad_()
    with relaxed(model, rows, y - hard, torch.arange(usable)):
        logits = model(input_ids=ids[None], use_cache=False).logits[0, first - 1 : -1, :usable]
    total = -(y * logits.log_softmax(-1)).sum()
    (grad,) = torch.autograd.grad(total, y)
    return grad


def _value(logits: Tensor, places: Tensor | None) -> Tensor:
    """A sequence classifier's only score; a token classifier's log-odds, summed over places."""
    return logits[0] if places is None else (logits[places, 1] - logits[places, 0]).sum()


def reward(model: Any, ids: Tensor, places: Tensor | None) -> Tensor:
    """Of one conversation, by itself."""
    with torch.no_grad():
        return _value(model(input_ids=ids[None]).logits[0], places)


def padded(model: Any, texts: Sequence[Tensor], places: Sequence[Tensor | None]) -> list[Tensor]:
    """The same in one batch, as people run transformers: padding on the right, and a mask."""
    pad = model.config.get_text_config().pad_token_id
    ids = torch.nn.utils.rnn.pad_sequence(list(texts), batch_first=True, padding_value=pad)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(t) for t in texts], batch_first=True)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask).logits
    return [_value(row, at) for row, at in zip(logits, places, strict=True)]


def reward_rows(model: Any, ids: Tensor, places: Tensor | None, candidates: Tensor) -> Tensor:
    """``∂ reward / ∂y`` of every token, over some candidates ``[n, K]``."""
    change = torch.zeros(len(ids), len(candidates), dtype=torch.float64, requires_grad=True)
    with relaxed(model, slice(0, len(ids)), change, candidates):
        value = _value(model(input_ids=ids[None]).logits[0], places)
    (grad,) = torch.autograd.grad(value, change)
    return grad
