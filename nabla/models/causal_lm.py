"""The language model, frozen: ``π(y|x)``."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from nabla.core.errors import ConfigError, ModelError, NablaError
from nabla.core.prompt import Prompt
from nabla.models.architecture import batch_dependent
from nabla.models.body import EMPTY, Body, Chunk, Prefix
from nabla.models.causality import require_causal
from nabla.models.head import EmbeddingTable, Head
from nabla.models.loading import freeze, load, unwrap
from nabla.models.refusals import reason
from nabla.models.vocabulary import Vocabulary, usable_ids

log = logging.getLogger(__name__)


class CausalLM:
    """A transformers causal language model with its tokenizer, frozen on entry.

    Args:
        model: any ``*ForCausalLM`` of transformers, PEFT-wrapped or not.
        tokenizer: its tokenizer.
        chat_template: see :class:`~nabla.models.chat.ChatFormat`.
        template_arguments: likewise.
        special_tokens: likewise.
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
        name = type(self.model).__name__
        try:
            self._take(tokenizer, chat_template, template_arguments, special_tokens, reuse_prefix)
        except NablaError:
            raise
        except Exception as error:
            raise ModelError(
                f"The language model {name} cannot be run by nabla: {type(error).__name__}: "
                f"{reason(error)}",
                fix="Use a causal decoder of transformers whose body takes inputs_embeds (docs/models.md).",
            ) from error

    def _take(
        self,
        tokenizer: Any,
        chat_template: str | None,
        template_arguments: Mapping[str, Any] | None,
        special_tokens: str,
        reuse_prefix: bool,
    ) -> None:
        output = self.model.get_output_embeddings()
        if output is None:
            raise ModelError(
                "The language model has no output embedding",
                got=type(self.model).__name__,
                fix="Load it with a language-model head (AutoModelForCausalLM).",
            )
        module = body_of(self.model)
        require_supported(self.model)
        self.body = Body(module, self.model.config, reuse_prefix=reuse_prefix)
        rows = int(next(self.body.embedding.parameters()).shape[0])
        usable = min(usable_ids(tokenizer), rows)
        self.head = Head(output, self.model.config, usable)
        self.table = EmbeddingTable(self.body.embedding, self.head.usable)
        self.vocabulary = Vocabulary(
            tokenizer,
            chat_template=chat_template,
            eos_ids=self._eos_ids(tokenizer),
            usable=self.head.usable,
            context_length=self.body.context_length,
            template_arguments=template_arguments,
            special_tokens=special_tokens,
        )
        for most, why in batch_dependent(self.body.config).items():
            log.warning("%s is used up to %d positions: beyond them %s", type(self.model).__name__, most, why)
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
        name = type(self.model).__name__
        ids = torch.arange(self.head.usable)[: min(9, self.head.usable)].flip(0)
        expected = self.model(input_ids=ids[None].to(self.body.device)).logits[0, :, : self.head.usable]
        try:
            (output,) = self.body.run([Chunk(EMPTY, self.body.embed(ids))])
        except Exception as error:
            raise ModelError(
                f"The language model {name} cannot be run by nabla: on embeddings in the place of token ids "
                f"it fails with {type(error).__name__}: {reason(error)}",
                fix="Use a model that embeds its ids once, at the beginning, and does not look at them again "
                "(to choose experts by them, say).",
            ) from error
        require_causal(self.body, ids, name)
        coarsest = max(expected.dtype, self.head.module.weight.dtype, key=lambda d: torch.finfo(d).eps)
        tolerance = {torch.float64: 1e-9, torch.float32: 1e-3}.get(coarsest, 5e-2)
        check_close(self.head.logits(output.hidden), expected, "its logits", name, tolerance)
        self._verify_head(ids)
        verify_prefix_reuse(self.body, ids)

    def _verify_head(self, ids: Int[Tensor, " n"]) -> None:
        """The model's own head on states of the head's choosing: at the size of logits that random weights
        have, a cap is as good as none, and half precision hides the rest."""
        width = int(self.head.module.weight.shape[1])
        noise = torch.randn(len(ids), width, generator=torch.Generator().manual_seed(0))
        typical = float(self.head.module.weight[: self.head.usable].float().std()) * width**0.5
        for size in (1.0, 60.0):
            states = (noise * size / max(typical * self.head.scale, 1e-6)).to(self.head.device)
            states = states.to(self.head.module.weight.dtype)

            expected = self._logits_of(states, ids)
            if expected is None:  # the model runs its layers in a way of its own
                return
            coarsest = max(expected.dtype, states.dtype, key=lambda d: torch.finfo(d).eps)
            tolerance = {torch.float64: 1e-9, torch.float32: 1e-4}.get(coarsest, 1.5e-2)
            what = f"its logits of size {size:g}"
            check_close(self.head.logits(states), expected, what, type(self.model).__name__, tolerance)

    def _logits_of(self, states: Tensor, ids: Int[Tensor, " n"]) -> Tensor | None:
        """What the model itself makes of last hidden states; None if its layers do not give them apart."""
        met = []

        def instead(_: Any, __: Any, output: Any) -> Any:
            met.append(True)
            output.last_hidden_state = states[None].to(output.last_hidden_state.device)
            return output

        modules = [self.body.module]
        decoder = self.model.get_decoder() if hasattr(self.model, "get_decoder") else None
        if isinstance(decoder, torch.nn.Module) and decoder not in (self.body.module, self.model):
            modules.append(decoder)  # OPT runs a part of its body
        hooks = [module.register_forward_hook(instead) for module in modules]
        try:
            logits: Tensor = self.model(input_ids=ids[None].to(self.body.device)).logits
        finally:
            for hook in hooks:
                hook.remove()
        return logits[0, :, : self.head.usable] if met else None


def body_of(model: Any) -> Any:
    """The layers of a language model, without its head. Raises ModelError if they cannot be had apart."""
    body = model.base_model
    if body is model or not _has_embedding(body):
        # The model's class names another part than it has (Llama 4, Mllama), or a shell around it (BART).
        body = model.get_decoder() if hasattr(model, "get_decoder") else None
        if body is None or body is model:
            body = getattr(model, "model", None)
    if body is None or body is model or not _has_embedding(body):
        raise ModelError(
            f"The layers of {type(model).__name__} cannot be run apart from its head",
            fix="Use a causal decoder of transformers (docs/models.md).",
        )
    return body


def _has_embedding(body: Any) -> bool:
    try:
        return body.get_input_embeddings() is not None
    except (AttributeError, NotImplementedError):
        return False


def require_supported(model: Any) -> None:
    """Raises ModelError for what would give wrong numbers."""
    config = model.config.get_text_config()
    name = type(model).__name__
    if getattr(config, "hidden_size_per_layer_input", None):
        raise ModelError(
            f"{name} reads each token a second time, by an embedding of every layer; a relaxed token has "
            "none",
            got=f"hidden_size_per_layer_input={config.hidden_size_per_layer_input}",
            fix="Use a model with one input embedding (Gemma 3 rather than Gemma 3n or Gemma 4 E).",
        )
    attention = getattr(config, "_attn_implementation", None)
    if getattr(config, "attn_logit_softcapping", None) and attention == "sdpa":
        raise ModelError(
            f"{name} caps its attention's logits, which attn_implementation='sdpa' leaves out",
            fix="Load it with attn_implementation='eager'.",
        )


def require_lm(lm: CausalLM | None, what: str) -> CausalLM:
    """The language model. Raises ConfigError where there is a vocabulary alone.

    Args:
        lm: of the run.
        what: why its weights are needed, the beginning of the message.
    """
    if lm is None:
        raise ConfigError(
            f"{what}: a local language model is needed, and there is a vocabulary alone",
            fix="Pass the language model itself (a CausalLM) where the vocabulary is, beside the rollout; "
            "sampling, greedy, self-consistency, best-of-n and searches over steps need none.",
        )
    return lm


def check_close(
    value: Tensor, expected: Tensor, what: str, name: str, tolerance: float | None = None
) -> None:
    """Raises ModelError unless two results of the same model agree to its precision."""
    tolerance = tolerance or {torch.float64: 1e-9, torch.float32: 1e-3}.get(expected.dtype, 5e-2)
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
    """Turns prefix reuse off, with a warning, where a cached prefix changes the result; notes how much is
    kept of a token where it does not."""
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
            body.kept_numbers = full.keys.bytes_per_token // body.dtype.itemsize
            return
    except Exception as error:  # caches of other kinds fail in many ways
        reason = str(error)
    body.reuse_prefix = False
    log.warning(
        "%s: prefixes will be run in full, caching does not work here: %s", type(body.module).__name__, reason
    )
