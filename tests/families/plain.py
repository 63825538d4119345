"""What transformers itself says of a text: forward passes of ``input_ids``, and dense gradients through them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot


@contextmanager
def relaxed(model: Any, ids: Tensor, rows: slice, y: Tensor) -> Iterator[None]:
    """While it lasts, ``ids[rows]`` are embedded as ``y @ E``; the model is still called with ids."""
    module = model.get_input_embeddings()
    count = y.shape[-1]
    with torch.no_grad():
        table = module(torch.arange(count))
    hard = one_hot(ids[rows], count).to(y)

    def instead(_: Any, __: Any, output: Tensor) -> Tensor:
        change = torch.zeros_like(output)
        change[0, rows] = (y - hard) @ table
        return output + change

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
    y = one_hot(ids[rows], usable).double().requires_grad_()
    with relaxed(model, ids, rows, y):
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


def reward_rows(model: Any, ids: Tensor, places: Tensor | None, usable: int) -> Tensor:
    """``∂ reward / ∂y`` of every token ``[n, V]``."""
    rows = slice(0, len(ids))
    y = one_hot(ids, usable).double().requires_grad_()
    with relaxed(model, ids, rows, y):
        value = _value(model(input_ids=ids[None]).logits[0], places)
    (grad,) = torch.autograd.grad(value, y)
    return grad
