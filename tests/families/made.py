"""Tiny models of any class of transformers, with weights that show what is left out, and tokenizers of the
classes that people have."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
import transformers as hf
from torch import Tensor

from nabla.testing.tiny import random_model

#: What the tokenizers are trained on.
CORPUS = (
    "What is 12*7? The answer is 84.\n\nFirst, 12*7 is 84. So x = 84; the sum is 3 + 4 = 7.",
    "user: hello\nassistant: Yes, I think so.\n<think>\nwell\n</think>\n",
    "Solve x^2 = 4 for x > 0, then say why. " + "".join(map(chr, range(32, 127))),
)
#: A conversation without names of control tokens, which every class of tokenizers can write.
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] + ':\\n' + m['content'] + (eos_token or '') + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:\\n' }}{% endif %}"
)

#: Names of settings that mean the same in most configurations, for small models.
SMALL: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "initializer_range": 0.3,
}  # fmt: skip


@cache
def tokenizer(name: str = "Qwen2Tokenizer", template: str | None = TEMPLATE) -> Any:
    """A tokenizer of a class of transformers, trained on a few lines."""
    tok = getattr(hf, name)().train_new_from_iterator(CORPUS * 3, vocab_size=330, show_progress=False)
    if tok.eos_token is None:
        tok.add_special_tokens({"eos_token": "</s>"})
    if tok.pad_token is None:
        tok.add_special_tokens({"pad_token": "<pad>"})
    tok.chat_template = template
    return tok


def with_template(tok: Any, template: str | None) -> Any:
    """A copy of a tokenizer that writes by another template (None: its own)."""
    other = copy.copy(tok)
    other.chat_template = tok.chat_template if template is None else template
    return other


def build(config: str, model: str, tok: Any, settings: Mapping[str, Any], *, seed: int = 0) -> Any:
    """A model in evaluation mode; see :func:`nabla.testing.tiny.random_model`."""
    rows = max(tok.get_vocab().values()) + 1
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    ids = {name: value for name in names if (value := getattr(tok, name)) is not None}
    given = getattr(hf, config)(**{"vocab_size": rows, **ids, **settings})
    given._experts_implementation = "eager"  # transformers' grouped product has no float64
    return random_model(getattr(hf, model), given, seed=seed, constants=True).double().eval()


def draw(tok: Any, count: int, seed: int) -> Tensor:
    """Ids of a response: ordinary tokens, and the end of a sequence."""
    special = set(tok.all_special_ids)
    ordinary = [i for t, i in sorted(tok.get_vocab().items()) if i not in special and not t.startswith("<")]
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(ordinary), (count,), generator=generator).tolist()
    return torch.tensor([*(ordinary[i] for i in chosen), tok.eos_token_id])
