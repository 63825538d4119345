"""Bytes of a graph before it is built, beside those that torch keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nabla.models.activations import graph_bytes
from nabla.models.body import Body, Chunk
from tests import tiny
from tests.models.test_body import prefix, tokens

#: Wide enough for the numbers that grow with the width to be most of them.
WIDE: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip


def body(arch: str, dtype: torch.dtype = torch.float32, **settings: Any) -> Body:
    model = tiny.build(arch, "ForCausalLM", vocab=100, **{**WIDE, **settings})
    model = model.to(dtype).eval().requires_grad_(False)
    return Body(model.base_model, model.config)


def saved(part: Body, rows: int, count: int, context: int) -> int:
    """Bytes that torch keeps for the way back, weights apart."""
    weights = {p.untyped_storage().data_ptr() for p in part.module.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return x

    chunks = [
        Chunk(prefix(part, tokens(context, row)), part.embed(tokens(count, row)).requires_grad_())
        for row in range(rows)
    ]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        part.run(chunks)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize(("rows", "count", "context"), [(1, 48, 0), (1, 24, 100), (3, 16, 40)])
@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3"])
def test_the_estimate_is_what_torch_keeps(arch: str, rows: int, count: int, context: int) -> None:
    part = body(arch)
    found = saved(part, rows, count, context)
    assert graph_bytes(part, rows, count, context) == pytest.approx(found, rel=0.25)


def test_half_precision_keeps_norms_in_single_precision() -> None:
    part = body("llama", torch.bfloat16)
    found = saved(part, 1, 48, 16)
    assert graph_bytes(part, 1, 48, 16) == pytest.approx(found, rel=0.25)
    assert graph_bytes(part, 1, 48, 16) > graph_bytes(body("llama"), 1, 48, 16) / 2


def test_checkpointed_layers_keep_their_inputs_alone() -> None:
    part = body("llama")
    part.checkpoint = True
    assert graph_bytes(part, 1, 48, 16) == 48 * 3 * 64 * 4
    assert saved(part, 1, 48, 16) < 3 * graph_bytes(part, 1, 48, 16)


def test_written_out_attention_keeps_its_probabilities() -> None:
    fused, plain = body("llama"), body("llama")
    plain.config._attn_implementation = "eager"
    assert graph_bytes(plain, 1, 48, 0) - graph_bytes(fused, 1, 48, 0) == 2 * 4 * 3 * 48 * 48 * 4
