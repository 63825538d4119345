"""The language model, frozen: ``π(y|x)``."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from nabla.core.errors import ModelError
from nabla.core.prompt import Prompt
from nabla.models.body import EMPTY, Body, Chunk, Prefix
from nabla.models.head import EmbeddingTable, Head
from nabla.models.loading import freeze, load, unwrap
from nabla.models.vocabulary import Vocabulary, usable_ids

log = logging.getLogger(__name__)


class CausalLM:
    """A transformers causal language model with its tokenizer, frozen on entry.

    Args:
        model: any ``*ForCausalLM`` of transformers, PEFT-wrapped or not.
        tokenizer: its tokenizer.
        chat_template, template_arguments, special_tokens: see :class:`~nabla.models.chat.ChatFormat`.
        reuse_prefix: cache keys and values of prefixes; False runs them in full.

    Raises ModelError if the model's logits are not what its body and head give (an architecture this
    adapter does not know would otherwise yield wrong gradients silently).
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        chat_template: str | None = None,
        template_arguments: Mapping[str, Any] | None = None,
        special_tokens: str = "text",
        reuse_prefix: bool = True,
    ) -> None:
        self.model = freeze(unwrap(model))
        output = self.model.get_output_embeddings()
        if output is None:
            raise ModelError(
                "The language model has no output embedding",
                got=type(self.model).__name__,
                fix="Load it with a language-model head (AutoModelForCausalLM).",
            )
        self.body = Body(self.model.base_model, self.model.config, reuse_prefix=reuse_prefix)
        rows = int(next(self.body.embedding.parameters()).shape[0])
        usable = min(usable_ids(tokenizer), rows)
        self.head = Head(output, self.model.config, usable)
        self.table = EmbeddingTable(self.body.embedding, self.head.usable)
        limit = getattr(self.body.config, "max_position_embeddings", None)
        self.vocabulary = Vocabulary(
            tokenizer,
            chat_template=chat_template,
            eos_ids=self._eos_ids(tokenizer),
            usable=self.head.usable,
            context_length=int(limit) if limit else None,
            template_arguments=template_arguments,
            special_tokens=special_tokens,
        )
        self._verify()

    @classmethod
    def from_pretrained(
        cls,
        path: str,
        *,
        chat_template: str | None = None,
        template_arguments: Mapping[str, Any] | None = None,
        special_tokens: str = "text",
        reuse_prefix: bool = True,
        **arguments: Any,
    ) -> CausalLM:
        """From a folder, a ``.gguf`` file or a hub id; ``arguments`` are
        :func:`nabla.models.loading.load`'s (dtype, device, device_map, adapter, tokenizer, revision, ...).
        Raises ModelError."""
        from transformers import AutoModelForCausalLM

        model, tokenizer = load(AutoModelForCausalLM, str(path), role="language model", **arguments)
        return cls(
            model,
            tokenizer,
            chat_template=chat_template,
            template_arguments=template_arguments,
            special_tokens=special_tokens,
            reuse_prefix=reuse_prefix,
        )

    def view(self) -> CausalLM:
        """The same weights with a mask of tokens and settings of its own."""
        made = copy.copy(self)
        made.body, made.head = copy.copy(self.body), copy.copy(self.head)
        made.head.blocked = None
        return made

    def _eos_ids(self, tokenizer: Any) -> tuple[int, ...]:
        found: list[int] = []
        generation = getattr(self.model, "generation_config", None)
        for source in (generation, self.model.config, tokenizer):
            value = getattr(source, "eos_token_id", None)
            entries: Iterable[int] = value if isinstance(value, list | tuple) else [value]  # type: ignore[list-item]
            found += [int(e) for e in entries if e is not None and int(e) not in found]
        return tuple(found)

    @property
    def tokenizer(self) -> Any:
        """Of the vocabulary."""
        return self.vocabulary.tokenizer

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """End-of-sequence tokens."""
        return self.vocabulary.eos_ids

    def encode(self, prompt: Prompt) -> Int[Tensor, " prompt"]:
        """Prompt ids, see :meth:`~nabla.models.vocabulary.Vocabulary.encode`."""
        return self.vocabulary.encode(prompt)

    def decode(self, tokens: Int[Tensor, " n"] | list[int]) -> str:
        """Text of response ids, special tokens removed."""
        return self.vocabulary.decode(tokens)

    @property
    def candidates(self) -> Int[Tensor, " k"]:
        """Ids that may be written: known to the tokenizer and not blocked."""
        ids = torch.arange(self.head.usable, device=self.head.device)
        return ids if self.head.blocked is None else ids[~self.head.blocked]

    @torch.no_grad()
    def _verify(self) -> None:
        ids = torch.arange(self.head.usable)[: min(9, self.head.usable)].flip(0)
        expected = self.model(input_ids=ids[None].to(self.body.device)).logits[0, :, : self.head.usable]
        (output,) = self.body.run([Chunk(EMPTY, self.body.embed(ids))])
        check_close(self.head.logits(output.hidden), expected, "its logits", type(self.model).__name__)
        verify_prefix_reuse(self.body, ids)


def check_close(value: Tensor, expected: Tensor, what: str, name: str) -> None:
    """Raises ModelError unless two results of the same model agree to its precision."""
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-3}.get(expected.dtype, 5e-2)
    value, expected = value.double().cpu(), expected.double().cpu()
    if not torch.isfinite(value).all():
        raise ModelError(
            f"The model {name} returns NaN or infinity",
            fix="The checkpoint is broken, or its dtype overflows: try dtype='float32'.",
        )
    error = float((value - expected).norm() / expected.norm().clamp_min(1e-12))
    if error > tolerance:
        raise ModelError(
            f"The body and head of {name} do not give {what} (relative error {error:.1e})",
            fix="This architecture transforms its output in a way that nabla does not know yet; "
            "please report the model's name.",
        )


@torch.no_grad()
def verify_prefix_reuse(body: Body, ids: Int[Tensor, " n"]) -> None:
    """Turns prefix reuse off, with a warning, where a cached prefix changes the result."""
    if not body.reuse_prefix or len(ids) < 4:
        return
    embedded = body.embed(ids)
    reason = "the model returns no key/value cache"
    half = len(ids) // 2
    try:
        (full,) = body.run([Chunk(EMPTY, embedded)], keep=True)
        if full.keys is not None:
            prefix = Prefix(ids[:half], full.keys.crop(half))
            short = Prefix(ids[:1], full.keys.crop(1))
            both = body.run([Chunk(prefix, embedded[half:]), Chunk(short, embedded[1:])])
            check_close(both[0].hidden, full.hidden[half:], "the same states from a prefix", "body")
            check_close(both[1].hidden, full.hidden[1:], "the same states from a prefix", "body")
            return
    except Exception as error:  # caches of other kinds fail in many ways
        reason = str(error)
    body.reuse_prefix = False
    log.warning(
        "%s: prefixes will be run in full, caching does not work here: %s", type(body.module).__name__, reason
    )
