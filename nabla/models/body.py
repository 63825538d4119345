"""A frozen transformer body run on embeddings behind cached prefixes.

Everything that touches a model's layers goes through :class:`Body`: rollouts, rewards and gradients.
Rows of different lengths form one padded batch, prefixes padded on the left, chunks on the right.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nabla.core.errors import ConfigError
from nabla.models.architecture import (
    attended,
    attention_width,
    attention_windows,
    context_length,
    count_parameters,
    input_embedding,
)
from nabla.models.keys import Keys
from nabla.models.keys import KeyValues as KeyValues
from nabla.models.keys import left_padded as left_padded


@dataclass(frozen=True, eq=False)
class Prefix:
    """Tokens before a chunk, with their keys and values where the model can reuse them.

    ``lost`` counts tokens behind them that were stored once and gave way: they are run again.
    """

    tokens: Int[Tensor, " prefix"]
    keys: Keys | None
    lost: int = 0

    def __len__(self) -> int:
        return int(self.tokens.shape[0])


EMPTY = Prefix(torch.empty(0, dtype=torch.long), None)


@dataclass(frozen=True, eq=False)
class Chunk:
    """Embeddings to run behind a prefix."""

    prefix: Prefix
    embeddings: Float[Tensor, "n hidden"]

    def __len__(self) -> int:
        return int(self.embeddings.shape[0])


@dataclass(frozen=True, eq=False)
class BodyOutput:
    """Last hidden states of a chunk, and the keys and values of prefix and chunk if asked for."""

    hidden: Float[Tensor, "n hidden"]
    keys: KeyValues | None


#: In the names of the classes of a layer's parts that see one token at a time.
_TOKENWISE = ("MLP", "Norm")


def cache_name(module: nn.Module) -> str:
    """What a model calls the keys and values that it takes and returns: ``cache`` since transformers 5.24,
    ``past_key_values`` before; empty where it has none."""
    accepted = inspect.signature(module.forward).parameters
    return next((name for name in ("past_key_values", "cache") if name in accepted), "")


class Body:
    """The layers of a frozen decoder, without its head.

    Args:
        module: a transformers base model (``model.base_model``) that takes ``inputs_embeds``.
        config: its configuration.
        reuse_prefix: whether keys and values may be cached; otherwise prefixes are run in full.

    Attribute ``checkpoint`` (off) trades a second forward pass of each layer for the memory of its
    activations, in passes with a gradient. :meth:`compile` is off too.
    """

    def __init__(self, module: nn.Module, config: Any, *, reuse_prefix: bool = True) -> None:
        self.module = module
        self.config = config.get_text_config()
        self.reuse_prefix = reuse_prefix
        self.checkpoint = False
        self._compiled: dict[nn.Module, Any] = {}
        self._use_compiled = False
        self.embedding = input_embedding(module)
        self.hidden_size = int(self.config.hidden_size)
        self.layers = int(self.config.num_hidden_layers)
        self.attention_width = attention_width(self.config)
        #: Numbers that are kept of a token, in keys and values; None until they have been seen.
        self.kept_numbers: int | None = None
        #: Numbers of weights without the embeddings; those that one token meets (experts that it is not sent
        #: to left out).
        self.parameters, self.active_parameters = count_parameters(module, self.config)
        self.windows = attention_windows(self.config)
        accepted = inspect.signature(module.forward).parameters
        self._takes_positions = "position_ids" in accepted
        self.cache_name = cache_name(module)
        self._takes_cache = self.cache_name != "" and "use_cache" in accepted
        #: A recurrence's own state would be kept, and changed in place while a gradient needs it (RWKV).
        self._keeps_state = "use_cache" in accepted and not self._takes_cache
        # Llama 4 scales queries by their place in the cache, padding on the left included.
        if not self._takes_cache or getattr(self.config, "attn_temperature_tuning", False):
            self.reuse_prefix = False

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        return next(self.embedding.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of embeddings and hidden states."""
        return next(self.embedding.parameters()).dtype

    @cached_property
    def context_length(self) -> int | None:
        """Largest number of positions that is right; None if unlimited."""
        return context_length(self.config)

    def compile(self, on: bool = True) -> None:
        """Compiles the parts of each layer that see one token at a time (feed-forward, norms), or goes back.

        Their inputs differ in size only, so that one graph with symbolic sizes serves every layer and every
        length. Attention is left as it is: caches and masks change their structure from one call to the next,
        and each change would compile again. Sums may run in another order: results differ in the last bits.

        Raises ConfigError for a model without such parts.
        """
        if on and not self._compiled:
            from torch._functorch import config
            from transformers.modeling_layers import GradientCheckpointingLayer

            # A graph whose backward pass has failed is differentiated again, so none may give its buffers
            # away; torch asks for this when it compiles and when it differentiates.
            config.donated_buffer = False

            self._compiled = {
                part: torch.compile(part._call_impl, dynamic=True)
                for layer in self.module.modules()
                if isinstance(layer, GradientCheckpointingLayer)
                for part in layer.modules()
                if any(name in type(part).__name__ for name in _TOKENWISE)
            }
            if not self._compiled:
                raise ConfigError(
                    "This model's layers have no part that can be compiled by itself",
                    got=type(self.module).__name__,
                    fix="Run without compile_layers.",
                )
        self._use_compiled = on

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        """Puts the compiled parts in while this body runs: the modules may belong to other bodies too."""
        parts = self._compiled if self._use_compiled else {}
        for part, compiled in parts.items():
            part._compiled_call_impl = compiled  # what nn.Module.compile() sets
        try:
            yield
        finally:
            for part in parts:
                part._compiled_call_impl = None

    def embed(self, tokens: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch hidden"]:
        """Input embeddings of token ids, with whatever scaling the model's embedding applies."""
        embedded: Tensor = self.embedding(tokens.to(self.device))
        return embedded.detach()

    def flops(self, tokens: int, context: int) -> float:
        """Forward FLOPs of ``tokens`` tokens behind ``context`` tokens: 2·active parameters per token plus
        4·layers·width per attended position (SPEC section 13), of which a sliding window has so many."""
        return 2.0 * self.active_parameters * tokens + 4.0 * self._attention(tokens, context)

    def _attention(self, tokens: int, context: int) -> float:
        """Layers × width × positions attended to."""
        return sum(
            count * self.attention_width * attended(tokens, context, window)
            for window, count in self.windows.items()
        )

    def backward_flops(self, tokens: int, context: int) -> float:
        """FLOPs of an input-only backward: the linear maps once more, attention (two operands) twice."""
        return 2.0 * self.active_parameters * tokens + 8.0 * self._attention(tokens, context)

    def cache_bytes(self, tokens: int) -> float:
        """Of keys and values of so many tokens; from the configuration where none have been kept yet (an
        estimate: layers may keep other things)."""
        heads = getattr(self.config, "num_attention_heads", None) or 1
        width = self.attention_width * (getattr(self.config, "num_key_value_heads", None) or heads) // heads
        return float(self.kept_numbers or 2 * self.layers * width) * self.dtype.itemsize * tokens

    def computed(self, chunk: Chunk) -> tuple[int, int]:
        """(tokens run, tokens only attended to) for a chunk, prefix reuse considered."""
        if chunk.prefix.keys is None:
            return len(chunk.prefix) + len(chunk), 0
        return len(chunk), len(chunk.prefix)

    def run(self, chunks: Sequence[Chunk], *, keep: bool = False) -> list[BodyOutput]:
        """One padded batch. Differentiable in the chunks' embeddings.

        Args:
            chunks: rows to run; each has at least one token.
            keep: return keys and values of prefix and chunk (None where they cannot be reused), never with a
                graph.
        """
        reuse = self.reuse_prefix and all(
            chunk.prefix.keys is not None or len(chunk.prefix) == 0 for chunk in chunks
        )
        embeddings = [
            chunk.embeddings
            if reuse or len(chunk.prefix) == 0
            else torch.cat([self.embed(chunk.prefix.tokens), chunk.embeddings])
            for chunk in chunks
        ]
        before = [len(chunk.prefix) if reuse else 0 for chunk in chunks]
        lengths = [e.shape[0] for e in embeddings]
        longest, deepest = max(lengths), max(before)
        padded = nn.utils.rnn.pad_sequence(embeddings, batch_first=True)
        device = padded.device

        column = torch.arange(deepest + longest, device=device)
        start = deepest - torch.tensor(before, device=device).unsqueeze(1)
        end = deepest + torch.tensor(lengths, device=device).unsqueeze(1)
        # Padding on the right stays visible: no real token attends to what comes after it, and padding
        # that sees nothing (beyond a sliding window) would be NaN and spread.
        mask = (column >= start).long()
        positions = torch.minimum(column, end - 1).sub(start)[:, deepest:]

        arguments: dict[str, Any] = {"inputs_embeds": padded, "attention_mask": mask}
        if self._takes_positions:
            arguments["position_ids"] = positions
        if self._keeps_state:
            arguments["use_cache"] = False
        if self._takes_cache:
            arguments["use_cache"] = keep and self.reuse_prefix
            if reuse and deepest > 0:
                arguments[self.cache_name] = self._stack(chunks, deepest, keep)
                arguments["use_cache"] = True
            elif arguments["use_cache"]:
                arguments[self.cache_name] = self._empty_cache()
        checkpointed = self.checkpoint and torch.is_grad_enabled()
        with self._in_place(), self._checkpointed() if checkpointed else nullcontext():
            output = self.module(**arguments)
        # A model spread over devices ends on another one than it begins on: states come back to the first,
        # where embeddings and the states of other passes are.
        hidden = output.last_hidden_state.to(device)
        cache = getattr(output, self.cache_name, None) if keep and self.reuse_prefix else None

        # All rows of a layer at once: many small views take longer than a small model's layer.
        layers = [] if cache is None else [tuple(x.unbind() for x in _made(one)) for one in cache.layers]
        results = []
        for row, (states, chunk) in enumerate(zip(hidden.unbind(), chunks, strict=True)):
            rows = states[lengths[row] - len(chunk) : lengths[row]]
            keys = None
            if cache is not None:
                first, count = deepest - before[row], before[row] + lengths[row]
                keys = KeyValues(
                    tuple(
                        (made[row].narrow(1, first, count), other[row].narrow(1, first, count))
                        for made, other in layers
                    )
                )
            results.append(BodyOutput(rows, keys))
        return results

    @contextmanager
    def _checkpointed(self) -> Iterator[None]:
        """Layers keep their inputs only and are run again on the way back (arXiv 1604.06174).

        transformers' own switch is for training and gives up the cache.
        """
        from transformers.modeling_layers import GradientCheckpointingLayer

        layers = [m for m in self.module.modules() if isinstance(m, GradientCheckpointingLayer)]
        if not layers:
            raise ConfigError(
                "This model's layers cannot be checkpointed",
                got=type(self.module).__name__,
                fix="Run without checkpoint_activations.",
            )
        for layer in layers:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward

    def _stack(self, chunks: Sequence[Chunk], deepest: int, keep: bool) -> Any:
        """Left-padded keys and values of all rows, as transformers' ``Cache``."""
        from transformers import Cache, DynamicCache

        from nabla.models.layers import GivenLayer, RecordingLayer

        layers = left_padded([chunk.prefix.keys for chunk in chunks], deepest)
        if keep and torch.is_grad_enabled():
            return Cache(layers=[RecordingLayer(keys, values) for keys, values in layers])
        if keep:
            return DynamicCache(ddp_cache_data=layers)
        return Cache(layers=[GivenLayer(keys, values) for keys, values in layers])

    def _empty_cache(self) -> Any:
        """The model's own choice of cache may forget what a sliding window has left behind."""
        from transformers import Cache, DynamicCache

        from nabla.models.layers import RecordingLayer

        if torch.is_grad_enabled():
            return Cache(layers=[RecordingLayer() for _ in range(self.layers)])
        return DynamicCache()

    def step(
        self,
        tokens: Int[Tensor, " rows"],
        mask: Int[Tensor, "rows length"],
        positions: Int[Tensor, " rows"],
        cache: Any,
    ) -> Float[Tensor, "rows hidden"]:
        """One decoding step: hidden states of one new token per row; ``cache`` (transformers') grows."""
        arguments: dict[str, Any] = {
            "inputs_embeds": self.embed(tokens.unsqueeze(1)),
            "attention_mask": mask,
            self.cache_name: cache,
            "use_cache": True,
        }
        if self._takes_positions:
            arguments["position_ids"] = positions.unsqueeze(1)
        with self._in_place():
            hidden: Tensor = self.module(**arguments).last_hidden_state[:, -1]
        return hidden.to(self.device)


def _made(layer: Any) -> tuple[Tensor, Tensor]:
    """Keys and values of a layer that has run; without the graph of a pass that keeps one."""
    return getattr(layer, "seen", None) or (layer.keys, layer.values)
