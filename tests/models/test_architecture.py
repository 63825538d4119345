"""What configurations and modules say: factors of embeddings and logits, and how far a row is its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf
from torch.utils.flop_counter import FlopCounterMode

from nabla.core.errors import PromptError
from nabla.core.prompt import Prompt
from nabla.models.architecture import (
    ScaledEmbedding,
    batch_dependent,
    context_length,
    input_embedding,
    logit_scale,
)
from nabla.models.body import EMPTY, Body, Chunk, Prefix
from nabla.models.causal_lm import CausalLM
from nabla.testing.tiny import random_model
from tests import tiny
from tests.cases import close

V = len(tiny.TOKENS)
_COMMON: dict[str, Any] = {
    "vocab_size": V, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24,
    "num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.3, "eos_token_id": 2,
    "pad_token_id": 0,
}  # fmt: skip


def made(family: str, **settings: Any) -> Any:
    config = getattr(hf, f"{family}TextConfig", None) or getattr(hf, f"{family}Config")
    return random_model(getattr(hf, f"{family}ForCausalLM"), config(**{**_COMMON, **settings})).eval()


FALCON = {
    "mamba_d_ssm": 16, "mamba_n_heads": 4, "mamba_d_head": 4, "mamba_d_state": 4, "head_dim": 8,
    "embedding_multiplier": 2.5, "bos_token_id": None,
}  # fmt: skip


def test_a_factor_that_is_for_ids_alone() -> None:
    """Falcon-H1 takes given embeddings as they are; Granite multiplies them, too."""
    falcon, granite = made("FalconH1", **FALCON), made("Granite", embedding_multiplier=2.5)
    scaled = input_embedding(falcon.base_model)
    assert isinstance(scaled, ScaledEmbedding)
    ids = torch.arange(12) % V
    close(scaled(ids).detach(), 2.5 * falcon.get_input_embeddings()(ids).detach(), 1e-6)
    assert input_embedding(granite.base_model) is granite.get_input_embeddings()
    for model in (falcon, granite):
        lm = CausalLM(model, tiny.tokenizer())
        with torch.no_grad():
            (output,) = lm.body.run([Chunk(EMPTY, lm.body.embed(ids))])
            close(lm.head.logits(output.hidden), model(input_ids=ids[None]).logits[0], 1e-5)
    # The rows that a gradient is formed from are scaled, too.
    lm = CausalLM(falcon, tiny.tokenizer())
    one = torch.eye(16)[:1]
    close(lm.table.products(one), 2.5 * falcon.get_input_embeddings().weight.detach()[:, :1].T, 1e-6)


def test_hyperclova_multiplies_where_granite_divides() -> None:
    assert logit_scale(hf.GraniteConfig(logits_scaling=4.0)) == 0.25
    assert logit_scale(hf.HyperCLOVAXConfig(logits_scaling=4.0)) == 4.0


def test_sparse_attention_is_used_where_it_sees_all(caplog: pytest.LogCaptureFixture) -> None:
    """Beyond, a word that comes twice is chosen once, which one depends on the width of the batch."""
    assert context_length(hf.DeepseekV32Config(index_topk=64)) == 64
    assert context_length(hf.DeepseekV32Config(index_topk=64, max_position_embeddings=48)) == 48
    assert list(batch_dependent(hf.DogeConfig(keep_window_size=32))) == [32]
    assert batch_dependent(hf.LlamaConfig()) == {}
    doge = made("Doge", keep_window_size=16, head_dim=8)
    lm = CausalLM(doge, tiny.tokenizer())
    assert "used up to 16 positions: beyond them which of equal positions" in caplog.text
    with pytest.raises(PromptError, match="context holds 16"):
        lm.encode(Prompt.of("1+1+1+1+1+1+1+1+1="))
    # What it is about: transformers' own states of a row, alone and beside a longer one.
    ids = tiny.ids(lm.tokenizer, "1+1+1+1+1+1+1+1+1+1+1+1+1+1=")
    doge = doge.double()
    for layer in doge.model.layers:
        layer.self_attn.A.data.fill_(-2.0)
    wide = torch.zeros(2, 60, dtype=torch.long)
    wide[0, : len(ids)], mask = ids, torch.ones(2, 60, dtype=torch.long)
    mask[0, len(ids) :] = 0
    with torch.no_grad():
        alone = doge.model(input_ids=ids[None]).last_hidden_state[0]
        beside = doge.model(input_ids=wide, attention_mask=mask).last_hidden_state[0, : len(ids)]
    assert float((alone - beside).abs().max()) > 1e-3


def test_llama_4_does_not_read_cached_prefixes() -> None:
    """It takes a query's position from the cache, padding on the left included, and scales by it from
    ``floor_scale`` on: far behind what is probed at load."""
    settings = {"intermediate_size_mlp": 24, "num_local_experts": 2, "bos_token_id": None, "head_dim": 8}
    settings |= {"floor_scale": 16, "no_rope_layers": [0, 0], "attn_scale": 0.5}
    model = made("Llama4", **settings)
    body = CausalLM(model, tiny.tokenizer()).body
    assert not body.reuse_prefix
    untuned = made("Llama4", **settings, attn_temperature_tuning=False)
    assert CausalLM(untuned, tiny.tokenizer()).body.reuse_prefix
    body.reuse_prefix = True  # what it is about
    long, short = torch.arange(40) % V, torch.arange(24) % V
    with torch.no_grad():
        rows = body.run([Chunk(EMPTY, body.embed(t)) for t in (long, short)], keep=True)
        alone = rows[1].hidden
        chunks = []
        for text, row, cut in ((long, rows[0], 36), (short, rows[1], 4)):
            assert row.keys is not None
            chunks.append(Chunk(Prefix(text[:cut], row.keys.crop(cut)), body.embed(text[cut:])))
        cached = body.run(chunks)[1].hidden
    assert float((cached - alone[4:]).abs().max()) > 1e-3


def test_a_recurrence_keeps_no_state_while_a_gradient_is_formed() -> None:
    settings = {"attention_hidden_size": 16, "context_length": 64}
    kept = {k: v for k, v in _COMMON.items() if "heads" not in k}
    model = random_model(hf.RwkvForCausalLM, hf.RwkvConfig(**kept, **settings)).eval()
    model.requires_grad_(False)
    body = Body(model.base_model, model.config)
    leaf = body.embed(torch.arange(6)).requires_grad_()
    (output,) = body.run([Chunk(EMPTY, leaf)])
    (slope,) = torch.autograd.grad(output.hidden.square().sum(), leaf)
    assert float(slope.abs().min(-1).values.max()) > 0


LATENT: dict[str, Any] = {
    "q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 12, "qk_rope_head_dim": 4, "v_head_dim": 6,
    "num_attention_heads": 4, "num_key_value_heads": 4, "hidden_size": 32, "intermediate_size": 40,
    "num_hidden_layers": 2, "first_k_dense_replace": 2, "n_routed_experts": 2, "vocab_size": V,
}  # fmt: skip


def latent() -> Any:
    """Keys and values of other sizes than head_dim says, and neither of them kept."""
    return hf.DeepseekV3ForCausalLM(hf.DeepseekV3Config(**LATENT, eos_token_id=2, initializer_range=0.2))


def multi_query() -> Any:
    """All heads share keys and values, of which the configuration names no number."""
    config = hf.FalconConfig(
        vocab_size=V, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, eos_token_id=2
    )
    return hf.FalconForCausalLM(config)


@pytest.mark.parametrize(
    "make", [lambda: tiny.lm_model("gpt2", tiny.tokenizer()), latent], ids=["gpt2", "latent"]
)
def test_flops_are_those_of_the_operations(make: Any) -> None:
    """A table of positions is looked up, and latent attention's heads are as wide as they are."""
    model = make().float().eval()
    model.set_attn_implementation("eager")  # all of the positions' products, masked or not
    body = Body(model.base_model, model.config)

    def run(length: int) -> int:
        embedded = torch.zeros(1, length, body.hidden_size)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            body.module(inputs_embeds=embedded, use_cache=False)
        return int(counter.get_total_flops())

    once, twice = run(32), run(64)
    assert (twice - 2 * once) / (2 * 32**2) == 4 * body.layers * body.attention_width
    vectors = sum(p.numel() for p in model.base_model.parameters() if p.dim() == 1)  # norms and biases
    assert (4 * once - twice) / (2 * 32) == 2 * (body.active_parameters - vectors)


@pytest.mark.parametrize("make", [latent, multi_query, lambda: tiny.lm_model("llama", tiny.tokenizer())],
                         ids=["latent", "multi-query", "grouped"])  # fmt: skip
def test_bytes_of_keys_and_values_are_those_that_are_kept(make: Any) -> None:
    lm = CausalLM(make().eval(), tiny.tokenizer())
    with torch.no_grad():
        (output,) = lm.body.run([Chunk(EMPTY, lm.body.embed(torch.arange(7)))], keep=True)
    assert output.keys is not None
    held = sum(part.numel() * part.element_size() for layer in output.keys.layers for part in layer)
    assert lm.body.cache_bytes(7) == held
