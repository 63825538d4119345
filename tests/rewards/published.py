"""Tokenizers as published, from beside the repository; tests that use them skip where they are not."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer

from nabla.core.costs import Account, CostMeter
from nabla.core.prompt import Prompt
from nabla.models.vocabulary import Vocabulary, usable_ids
from nabla.rewards.base import RelaxedResponse, Response, SoftTokens
from tests import tiny

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "tokenizers"
QUESTION = "What is 12*7?"


@cache
def published(name: str) -> Any:
    """A tokenizer; skips where it is not on this machine."""
    if not (FOLDER / name).is_dir():
        pytest.skip(f"the tokenizer {name} is not on this machine")
    return AutoTokenizer.from_pretrained(FOLDER / name, trust_remote_code=False)


def model(tok: Any, kind: str = "outcome", **changes: Any) -> Any:
    """A tiny classifier over a published vocabulary."""
    suffix = {"outcome": "ForSequenceClassification", "process": "ForTokenClassification"}.get(kind, kind)
    settings = {"pad_token_id": tok.pad_token_id, "max_position_embeddings": 1024, **changes}
    labels = {} if kind == "ForCausalLM" else {"num_labels": 1}
    return tiny.build("llama", suffix, vocab=usable_ids(tok), **{**labels, **settings})


def vocabulary(tok: Any) -> Vocabulary:
    """Of a language model with this tokenizer."""
    return Vocabulary(tok, chat_template="plain" if tok.chat_template is None else None)


def tokens(tok: Any, text: str) -> Tensor:
    """An answer's ids, as a model writes them behind its prompt."""
    return tiny.ids(tok, text)


def response(ids: Tensor, question: str = QUESTION) -> Response:
    return Response(Prompt.of(question), ids, Account("p", CostMeter(), "reward"))


def whole(tok: Any, text: str, template: str | None = None, question: str = QUESTION) -> Tensor:
    """Ids of the whole rendering, as transformers tokenises it."""
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": text}]
    rendered = tok.apply_chat_template(turns, tokenize=False, chat_template=template)
    return tiny.ids(tok, rendered)


def forward(reward: Any, ids: Tensor) -> Tensor:
    """transformers' own logits of one sequence."""
    with torch.no_grad():
        return reward.model(input_ids=ids[None]).logits[0]


def slopes(reward: Any, item: Response, start: int = 0, soft: SoftTokens | None = None) -> Tensor:
    """``∂r/∂y`` over all usable ids ``[n, V]``."""
    from nabla.models.runner import Runner

    (found,) = reward.relaxed([RelaxedResponse(item, start, soft)], Runner())
    grads = torch.autograd.grad(found.value, found.leaves, allow_unused=True)
    places = torch.arange(len(item.tokens) - start)
    total = torch.zeros(len(places), reward.table.usable, dtype=torch.float64)
    for channel, grad in zip(reward.channels(), grads, strict=True):
        if grad is not None:
            total = total + channel.pull(grad).rows(places, None)
    return total


def dense(reward: Any, ids: Tensor, read: int, label: int | None = 0) -> Tensor:
    """``∂ score / ∂ embedding`` at every token of a sequence, read at one of them ``[n, H]``."""
    module = reward.model
    leaf = module.get_input_embeddings()(ids[None]).detach().requires_grad_()
    states = module.base_model(inputs_embeds=leaf).last_hidden_state[0]
    scores = reward.head(states)[read]
    value = scores[1] - scores[0] if label is None else scores[label]
    return torch.autograd.grad(value, leaf)[0][0]
