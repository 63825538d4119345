"""What a decoder's configuration and modules say of it: windows, numbers of weights, context, logits."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)


def attended(tokens: int, context: int, window: int | None) -> float:
    """Positions that ``tokens`` tokens behind ``context`` tokens attend to in all, the token itself one of
    them; each at most ``window``."""
    if window is None or context + tokens <= window:
        return tokens * context + tokens * (tokens + 1) / 2
    growing = max(0, min(tokens, window - context))  # tokens that still see everything before them
    return attended(growing, context, None) + (tokens - growing) * window


def attention_windows(config: Any) -> dict[int | None, int]:
    """Window (None: everything) → number of layers that attend with it. Layers without attention over
    positions (convolutions, recurrences) are left out."""
    layers = int(config.num_hidden_layers)
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None)
    if types is None:
        used = window if window and getattr(config, "use_sliding_window", True) else None
        return {used: layers}
    found: dict[int | None, int] = {}
    for kind in list(types)[:layers]:
        if any(name in kind for name in ("linear", "conv", "mamba", "recurrent", "ssm")):
            continue
        size = None
        if "sliding" in kind:
            size = window
        elif "chunked" in kind:  # half of a chunk on average, counted as a window: an upper bound
            size = getattr(config, "attention_chunk_size", None)
        found[size] = found.get(size, 0) + 1
    return found


def attention_width(config: Any) -> int:
    """Numbers of all heads together that a position is attended to by: the mean of keys' and values', which
    differ where attention is latent (DeepSeek, MiniCPM 3, GLM 4.7)."""
    heads = int(getattr(config, "num_attention_heads", 1))
    size = int(getattr(config, "head_dim", None) or int(config.hidden_size) // heads)
    parts = [getattr(config, name, None) for name in ("qk_nope_head_dim", "qk_rope_head_dim")]
    keys = sum(parts) if all(isinstance(part, int) for part in parts) else size  # type: ignore[arg-type]
    values = getattr(config, "v_head_dim", None)
    return heads * (int(keys) + (values if isinstance(values, int) else size)) // 2


#: Names by which configurations say how many experts a token is sent to.
_TOP = (
    "num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_top_k", "moe_k",
    "num_selected_experts", "experts_per_token",
)  # fmt: skip


def count_parameters(module: nn.Module, config: Any) -> tuple[int, int]:
    """(weights of a body without its embeddings, those of positions included: their rows are looked up; those
    that one token meets); quantised ones by the weights that they stand for, not by what stores them."""
    embedding: Any = module.get_input_embeddings()  # type: ignore[operator]
    tables = [embedding, *(part for part in module.modules() if isinstance(part, nn.Embedding))]
    apart = {id(p) for table in tables for p in table.parameters()}
    stored = {id(p): _weights(p) for p in module.parameters() if id(p) not in apart}
    total = sum(stored.values())
    for layer in module.modules():
        total += _packed(layer)
    idle = 0.0
    top = next((int(v) for n in _TOP if isinstance(v := getattr(config, n, None), int)), None)
    for name, part in module.named_modules():
        if name.split(".")[-1] != "experts":
            continue
        many = len(part) if isinstance(part, nn.ModuleList) else _experts(part)
        if not many:
            continue
        if top is None:
            log.warning(
                "%s has %d experts and does not say to how many a token is sent: FLOPs count them all",
                type(module).__name__,
                many,
            )
            break
        own = sum(_weights(p) for p in part.parameters()) + sum(_packed(layer) for layer in part.modules())
        idle += own * (1 - min(top, many) / many)
    return total, round(total - idle)


def _experts(part: nn.Module) -> int:
    """Number of experts whose weights lie in one tensor each."""
    sizes = {int(p.shape[0]) for p in part.parameters() if p.dim() >= 3}
    return sizes.pop() if len(sizes) == 1 else 0


def _weights(parameter: Tensor) -> int:
    """How many weights a parameter stands for; 4-bit formats keep two in a byte."""
    shape = getattr(getattr(parameter, "quant_state", None), "shape", None)
    return int(torch.Size(shape).numel()) if shape is not None else parameter.numel()


def _packed(layer: nn.Module) -> int:
    """Weights of a linear layer that none of its parameters show: packed into buffers of integers, or into
    parameters of fewer elements."""
    sizes = getattr(layer, "in_features", None), getattr(layer, "out_features", None)
    if not all(isinstance(size, int) for size in sizes):
        return 0
    if any(isinstance(getattr(child, "in_features", None), int) for child in layer.children()):
        return 0  # a wrapper (an adapter's): its own layer is counted
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor):
        weight = None
    shown = 0 if not isinstance(weight, nn.Parameter) else _weights(weight)
    packed = any(not b.is_floating_point() for b in layer.buffers(recurse=False))
    if shown == 0 and not packed:
        return 0
    return max(0, int(sizes[0]) * int(sizes[1]) - shown)  # type: ignore[arg-type]


#: Names of a configuration's largest number of positions; -1 and 0 mean none.
_LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "context_length")


def context_length(config: Any) -> int | None:
    """Largest number of positions of a configuration; None if unlimited.

    Longrope has two tables of frequencies, and the longest row of a batch decides between them: beyond the
    short one's range a row's result would depend on its batch, and its cached keys on when they were made.
    Sparse attention sees so many positions that it chooses; equals among them (a word that comes twice) are
    chosen by the width of the batch. Models are used up to there.
    """
    limits = [int(v) for name in _LIMITS if isinstance(v := getattr(config, name, None), int) and v > 0][:1]
    return min([*limits, *batch_dependent(config)], default=None)


#: Names by which configurations say how many positions sparse attention chooses.
_CHOSEN = ("index_topk", "keep_window_size")


def batch_dependent(config: Any) -> dict[int, str]:
    """Number of positions → why a row of more than these would depend on the others of its batch."""
    found = {}
    short = short_context(config)
    if short is not None:
        found[short] = "its rotary table (longrope) depends on the longest text of a batch"
    for name in _CHOSEN:
        if isinstance(value := getattr(config, name, None), int) and value > 0:
            found[value] = f"which of equal positions its attention sees ({name}) depends on the batch"
    return found


def short_context(config: Any) -> int | None:
    """Positions up to which a longrope model keeps its short table; None for other models."""
    for name in ("rope_parameters", "rope_scaling"):
        given = getattr(config, name, None)
        if not isinstance(given, Mapping):
            continue
        for rope in (given, *(v for v in given.values() if isinstance(v, Mapping))):
            if rope.get("rope_type", rope.get("type")) in ("longrope", "su"):
                value = rope.get("original_max_position_embeddings") or getattr(
                    config, "original_max_position_embeddings", None
                )
                return int(value) if value else None
    return None


def logit_scale(config: Any) -> float:
    """What logits are multiplied by: ``logit_scale``, ``lm_head_multiplier`` and one over
    ``logits_scaling`` (HyperCLOVA X: times it), where a configuration has them."""
    scale = 1.0
    if getattr(config, "logits_scaling", None):
        given = float(config.logits_scaling)
        scale *= given if getattr(config, "model_type", "") == "hyperclovax" else 1 / given
    for name in ("logit_scale", "lm_head_multiplier"):
        if getattr(config, name, None):
            scale *= float(getattr(config, name))
    return scale


def logit_softcap(config: Any) -> float | None:
    """Largest size that logits come near to: ``final_logit_softcapping``, ``logits_soft_cap`` or
    ``output_logit_soft_cap``; None for models without."""
    caps = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
    found = [cap for name in caps if (cap := getattr(config, name, None))]
    return float(found[0]) if found else None


class ScaledEmbedding(nn.Module):
    """An embedding with the factor that its model multiplies it by."""

    def __init__(self, module: nn.Module, factor: float) -> None:
        super().__init__()
        self.module, self.factor = module, factor

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings of ids."""
        embedded: Tensor = self.module(ids) * self.factor
        return embedded


@torch.no_grad()
def input_embedding(module: nn.Module) -> nn.Module:
    """What a body's ids become before its first layer. Falcon-H1 multiplies the embeddings of ids and takes
    given ones as they are; others (Granite) multiply both. The name of the factor does not tell: the model is
    asked, where it has one."""
    embedding: nn.Module = module.get_input_embeddings()  # type: ignore[operator]
    factors = (getattr(module, name, None) for name in ("embedding_multiplier", "embed_scale"))
    factor = next((f for f in factors if isinstance(f, int | float) and f != 1), None)
    if factor is None:
        return embedding
    scaled = ScaledEmbedding(embedding, float(factor))
    ids = torch.arange(3, device=next(embedding.parameters()).device)[None]
    expected = module(input_ids=ids, use_cache=False).last_hidden_state
    errors = [
        float((module(inputs_embeds=part(ids), use_cache=False).last_hidden_state - expected).norm())
        for part in (embedding, scaled)
    ]
    return embedding if errors[0] <= errors[1] else scaled
