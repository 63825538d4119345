"""A small GGUF file, as llama.cpp stores it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
HEADS, WIDTH = 2, 64


def words() -> tuple[list[str], list[str]]:
    """Tokens and merges of a byte-level vocabulary."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    merges = ["Ġ 1", "1 2", "= =", "Ġ x"]
    return [*SPECIAL, *bytes_to_unicode().values(), *(m.replace(" ", "") for m in merges)], merges


def write(path: Path) -> Any:
    """A Llama of two layers in 8-bit blocks, as llama.cpp stores it; returns transformers' model of the same
    (rounded) weights."""
    gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")
    from transformers import LlamaConfig, LlamaForCausalLM

    tokens, merges = words()
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=WIDTH,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=1,
        max_position_embeddings=128,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).float().eval()
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(2)
    writer.add_feed_forward_length(96)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, weight in model.named_parameters():
        values = weight.detach().numpy()
        heads = {"q_proj": HEADS, "k_proj": 1}.get(name.split(".")[-2])
        if heads:  # llama.cpp turns pairs that are beside each other
            values = values.reshape(heads, 2, -1, WIDTH).swapaxes(1, 2).reshape(values.shape)
        kind = gguf.GGMLQuantizationType.Q8_0 if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        stored = gguf.quantize(values.copy(), kind)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), stored, raw_dtype=kind)
        back = gguf.dequantize(stored, kind).reshape(values.shape)
        if heads:
            back = back.reshape(heads, -1, 2, WIDTH).swapaxes(1, 2).reshape(values.shape)
        weight.data = torch.from_numpy(back.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model
