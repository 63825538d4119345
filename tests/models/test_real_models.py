"""Language models as people have them: scalings, caps, experts, windows, precisions, long contexts."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as hf
from peft import IA3Config, LoraConfig, get_peft_model
from torch import nn

from nabla.core.errors import ModelError, PromptError
from nabla.core.prompt import Prompt
from nabla.launch.launcher import place_models
from nabla.models.architecture import attended, attention_windows, context_length
from nabla.models.body import EMPTY, Body, Chunk
from nabla.models.causal_lm import CausalLM
from nabla.models.head import EmbeddingTable, Head
from nabla.models.loading import cast, move
from nabla.models.precision import exact_scores
from tests import tiny
from tests.cases import close
from tests.tiny import TOKENS, tokenizer

#: peft 0.21 asks transformers 5.23 for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")

V = len(TOKENS)
IDS = torch.arange(20) * 3 % V
_COMMON: dict[str, Any] = {
    "vocab_size": V, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "initializer_range": 0.3,
    "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip


def made(config: str, model: str, dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(hf, model)(getattr(hf, config)(**settings)).eval().to(dtype)


def recurrent_gemma(dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    settings = {**_COMMON, "num_hidden_layers": 3, "lru_width": 16, "attention_window_size": 16, **changes}
    return made("RecurrentGemmaConfig", "RecurrentGemmaForCausalLM", dtype, **settings)


def logits(lm: CausalLM, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        (output,) = lm.body.run([Chunk(EMPTY, lm.body.embed(ids))])
        return lm.head.logits(output.hidden)


def own(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids[None]).logits[0].float()


# -- heads --------------------------------------------------------------------------------------------


def test_scalings_and_caps_of_every_name() -> None:
    capped = recurrent_gemma(logits_soft_cap=0.5)
    lm = CausalLM(capped, tokenizer())
    assert lm.head.softcap == 0.5
    close(logits(lm), own(capped), 1e-5)
    scaled = made(
        "FalconH1Config", "FalconH1ForCausalLM",
        **{**_COMMON, "mamba_d_ssm": 16, "mamba_n_heads": 4, "mamba_d_head": 4, "mamba_d_state": 4,
           "lm_head_multiplier": 0.3, "bos_token_id": None},
    )  # fmt: skip
    close(logits(CausalLM(scaled, tokenizer())), own(scaled), 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cap_that_nabla_does_not_know_is_seen(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """In bfloat16 too, and where the logits of the model's own states are far below the cap."""
    model = tiny.lm_model("qwen2", tokenizer(), dtype=dtype, initializer_range=0.02)
    CausalLM(copy.deepcopy(model), tokenizer())
    forward = model.forward

    def capped(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        out.logits = 30 * torch.tanh(out.logits / 30)
        return out

    monkeypatch.setattr(model, "forward", capped)
    with pytest.raises(ModelError, match="do not give its logits of size"):
        CausalLM(model, tokenizer())


@pytest.mark.parametrize("arch", tiny.ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [0.02, 0.3])
def test_half_precision_is_no_reason_to_refuse(arch: str, dtype: torch.dtype, size: float) -> None:
    model = tiny.lm_model(arch, tokenizer(), dtype=dtype, initializer_range=size)
    assert CausalLM(model, tokenizer()).body.dtype == dtype


def test_logits_that_a_model_gives_in_float32_are_no_finer_than_its_weights() -> None:
    settings = {"vocab_size": V, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}
    settings["eos_token_id"] = 2
    model = made("MambaConfig", "MambaForCausalLM", torch.bfloat16, **settings)
    assert model(input_ids=IDS[None]).logits.dtype == torch.float32
    CausalLM(model, tokenizer())


def test_quantised_heads_are_refused() -> None:
    head = nn.Linear(4, 6, bias=False)
    head.weight = nn.Parameter(torch.zeros(12, 1, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(ModelError, match="head is quantised"):
        Head(head, hf.Qwen2Config(), 6)
    embedding = nn.Embedding(6, 4)
    embedding.weight = nn.Parameter(torch.zeros(6, 2, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(ModelError, match="input embedding is quantised"):
        EmbeddingTable(embedding, 6)


# -- families -----------------------------------------------------------------------------------------


def test_a_model_whose_base_is_itself() -> None:
    """Llama 4's class names a part that it does not have."""
    settings = {**_COMMON, "intermediate_size_mlp": 24, "num_local_experts": 2, "bos_token_id": None}
    model = made("Llama4TextConfig", "Llama4ForCausalLM", **settings)
    assert model.base_model is model
    close(logits(CausalLM(model, tokenizer())), own(model), 1e-5)


def test_mllama() -> None:
    settings = {k: v for k, v in _COMMON.items() if k != "head_dim"}
    model = made("MllamaTextConfig", "MllamaForCausalLM", **{**settings, "cross_attention_layers": []})
    close(logits(CausalLM(model, tokenizer())), own(model)[:, :V], 1e-5)


@pytest.mark.parametrize("family", ["Gemma3n", "Gemma4"])
def test_embeddings_of_every_layer_are_refused(family: str) -> None:
    settings = {
        **_COMMON, "vocab_size_per_layer_input": V, "hidden_size_per_layer_input": 8,
        "num_kv_shared_layers": 0, "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 8,
    }  # fmt: skip
    more = {"activation_sparsity_pattern": [0.0] * 2} if family == "Gemma3n" else {"global_head_dim": 8}
    model = made(f"{family}TextConfig", f"{family}ForCausalLM", **settings, **more)
    with pytest.raises(ModelError, match="embedding of every layer"):
        CausalLM(model, tokenizer())


def test_models_that_are_not_causal_or_cannot_be_run() -> None:
    xlnet = made("XLNetConfig", "XLNetLMHeadModel", vocab_size=V, d_model=16, n_layer=2, n_head=2, d_inner=24,
                 eos_token_id=2)  # fmt: skip
    with pytest.raises(ModelError, match="not causal"):
        CausalLM(xlnet, tokenizer())
    reformer = made(
        "ReformerConfig", "ReformerModelWithLMHead", vocab_size=V, hidden_size=16, attn_layers=["local"],
        num_attention_heads=2, attention_head_size=8, feed_forward_size=24, axial_pos_embds=False,
        is_decoder=True, local_attn_chunk_length=4, max_position_embeddings=64, eos_token_id=2,
    )  # fmt: skip
    with pytest.raises(ModelError, match="ReformerModelWithLMHead cannot be run by nabla"):
        CausalLM(reformer, tokenizer())


def test_limits_of_every_name() -> None:
    mpt = made("MptConfig", "MptForCausalLM", vocab_size=V, d_model=16, n_heads=2, n_layers=2, max_seq_len=48,
               expansion_ratio=2, eos_token_id=2)  # fmt: skip
    lm = CausalLM(mpt, tokenizer())
    assert lm.vocabulary.context_length == 48
    close(logits(lm), own(mpt), 1e-5)
    with pytest.raises(PromptError, match="context holds 48"):
        lm.encode(Prompt.of("1" * 48))
    rwkv = made(
        "RwkvConfig", "RwkvForCausalLM", vocab_size=V, hidden_size=16, num_hidden_layers=2,
        attention_hidden_size=16, intermediate_size=24, context_length=64, eos_token_id=2,
    )  # fmt: skip
    lm = CausalLM(rwkv, tokenizer())
    assert lm.vocabulary.context_length == 64
    close(logits(lm), own(rwkv), 1e-5)
    assert context_length(hf.XLNetConfig()) is None


# -- long contexts ------------------------------------------------------------------------------------


def phi3(**changes: Any) -> Any:
    rope = {
        "rope_type": "longrope", "short_factor": [1.0, 1.5, 2.0, 2.5], "long_factor": [4.0, 5.0, 6.0, 8.0],
        "original_max_position_embeddings": 32, "rope_theta": 1e4, "factor": 4.0,
    }  # fmt: skip
    settings = {k: v for k, v in _COMMON.items() if k != "head_dim"} | {"bos_token_id": None}
    return made("Phi3Config", "Phi3ForCausalLM", max_position_embeddings=128,
                original_max_position_embeddings=32, rope_parameters=rope, **settings, **changes)  # fmt: skip


def test_longrope_is_used_up_to_its_short_table(caplog: pytest.LogCaptureFixture) -> None:
    model = phi3()
    long = torch.arange(40) % V
    with torch.no_grad():  # what it is about: a long neighbour changes a short row
        alone = model(input_ids=long[None, :20], position_ids=torch.arange(20)[None]).logits[0]
        both = model(input_ids=long[None], position_ids=torch.arange(40)[None]).logits[0, :20]
    assert float((alone - both).abs().max()) > 0.01
    lm = CausalLM(model, tokenizer())
    assert lm.vocabulary.context_length == lm.body.context_length == 32
    assert "longrope" in caplog.text
    assert lm.vocabulary.room(23, 100) == 9
    with pytest.raises(PromptError, match="context holds 32"):
        lm.encode(Prompt.of("1" * 40))
    full = torch.arange(32) % V
    close(logits(lm, full), own(model, full), 1e-5)


# -- precision ----------------------------------------------------------------------------------------


def test_precision_leaves_rotary_frequencies_alone(tmp_path: Any) -> None:
    lm = tiny.causal_lm("llama", dtype=torch.float32)
    model = lm.model
    before = model.model.rotary_emb.inv_freq.clone()
    model.save_pretrained(tmp_path)
    place_models(lm, None, torch.device("cpu"), "bf16-true")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    after = model.model.rotary_emb.inv_freq
    assert after.dtype == torch.float32
    assert torch.equal(after, before)
    loaded = hf.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    assert torch.equal(own(model), own(loaded))


def test_what_a_class_keeps_in_float32_stays() -> None:
    model = tiny.lm_model("qwen2", tokenizer(), dtype=torch.float32)
    model._keep_in_fp32_modules_strict = {"norm"}
    cast(model, torch.bfloat16)
    assert model.model.norm.weight.dtype == torch.float32
    assert model.lm_head.weight.dtype == torch.bfloat16


def test_quantised_models_are_not_moved() -> None:
    model = tiny.lm_model("qwen2", tokenizer())
    model.is_quantized = True
    move(model, torch.device("cpu"))
    cpu, meta = torch.device("cpu"), torch.device("meta")
    for changes in ({"device": meta}, {"device": cpu, "dtype": torch.float16}):
        with pytest.raises(ModelError, match="language model is quantised"):
            move(model, role="language model", **changes)
    assert {p.dtype for p in model.parameters()} == {torch.float64}


# -- FLOPs --------------------------------------------------------------------------------------------


def dense_flops(body: Body, tokens: int, context: int) -> float:
    positions = tokens * context + tokens * (tokens + 1) / 2
    return 2.0 * body.parameters * tokens + 4.0 * body.layers * body.attention_width * positions


@pytest.mark.parametrize("arch", ["qwen2", "llama", "gpt2", "gpt-neox", "granite", "cohere"])
def test_flops_of_dense_models(arch: str) -> None:
    body = tiny.causal_lm(arch).body
    assert body.active_parameters == body.parameters
    for tokens, context in ((1, 0), (7, 100), (30, 3)):
        assert body.flops(tokens, context) == dense_flops(body, tokens, context)


def test_a_token_meets_the_experts_that_it_is_sent_to() -> None:
    settings = {**_COMMON, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
    model = made("Qwen3MoeConfig", "Qwen3MoeForCausalLM", **settings)
    body = CausalLM(model, tokenizer()).body
    experts = sum(p.numel() for n, p in model.named_parameters() if ".experts." in n)
    assert experts > 0
    assert body.active_parameters == body.parameters - experts * 6 // 8
    assert body.flops(5, 0) == dense_flops(body, 5, 0) - 2.0 * 5 * experts * 6 / 8


@pytest.mark.parametrize("tokens", [1, 5, 30])
@pytest.mark.parametrize("context", [0, 8, 11, 12, 40])
def test_positions_within_a_window(tokens: int, context: int) -> None:
    for window in (None, 12):
        expected = sum(min(context + i + 1, window or 10**9) for i in range(tokens))
        assert attended(tokens, context, window) == expected


def test_windows_count_no_more_than_they_hold() -> None:
    assert attention_windows(tiny.lm_model("mistral", tokenizer()).config) == {12: 2}
    assert attention_windows(tiny.lm_model("gemma2", tokenizer()).config) == {12: 1, None: 1}
    assert attention_windows(hf.Qwen2Config(num_hidden_layers=3)) == {None: 3}
    mixed = hf.Lfm2Config(num_hidden_layers=2, layer_types=["conv", "full_attention"])
    assert attention_windows(mixed) == {None: 1}
    body = tiny.causal_lm("mistral").body
    assert body.flops(1, 200) == body.flops(1, 100) < dense_flops(body, 1, 100)
    assert body.flops(4, 8) == dense_flops(body, 4, 8)


class Packed(nn.Linear):
    """As bitsandbytes and GPTQ store a linear layer."""

    def __init__(self, form: str) -> None:
        super().__init__(8, 6, bias=False)
        if form == "bytes":
            self.weight = nn.Parameter(torch.zeros(24, 1, dtype=torch.uint8), requires_grad=False)
            self.weight.quant_state = SimpleNamespace(shape=(6, 8))  # type: ignore[attr-defined]
        elif form == "halves":
            self.weight = nn.Parameter(torch.zeros(24, 1, dtype=torch.uint8), requires_grad=False)
        elif form == "buffers":
            del self.weight
            self.register_buffer("qweight", torch.zeros(1, 6, dtype=torch.int32))


@pytest.mark.parametrize("form", ["plain", "bytes", "halves", "buffers"])
def test_quantised_weights_count_by_what_they_stand_for(form: str) -> None:
    model = tiny.lm_model("qwen2", tokenizer())
    before = Body(model.base_model, model.config).parameters
    model.model.layers[0].mlp.add_module("extra", Packed(form))
    assert Body(model.base_model, model.config).parameters == before + 48


# -- adapters and attention ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lora", "dora", "ia3"])
def test_adapters_that_stay_in_place(kind: str) -> None:
    model = tiny.lm_model("llama", tokenizer())
    targets = ["q_proj", "v_proj", "down_proj"]
    settings: Any = (
        IA3Config(target_modules=targets, feedforward_modules=["down_proj"])
        if kind == "ia3"
        else LoraConfig(r=4, lora_alpha=16, target_modules=targets, use_dora=kind == "dora")
    )
    bare = own(model)
    adapted = get_peft_model(model, settings).eval()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name or "ia3_" in name:
                weight += 0.3 * torch.randn(weight.shape, generator=draw).to(weight)
    lm = CausalLM(adapted, tokenizer())
    close(logits(lm).float(), own(adapted), 1e-6)
    assert float((own(adapted) - bare).abs().max()) > 0.1


@pytest.mark.parametrize("arch", ["qwen2", "llama", "mistral", "gemma3", "gpt2", "gpt-neox"])
def test_attention_implementations_agree(arch: str) -> None:
    texts = [IDS, IDS[:7], IDS[:13].flip(0)]
    found = []
    for implementation in ("sdpa", "eager"):
        lm = CausalLM(tiny.lm_model(arch, tokenizer(), attn_implementation=implementation), tokenizer())
        assert lm.model.config._attn_implementation == implementation
        with torch.no_grad():
            outputs = lm.body.run([Chunk(EMPTY, lm.body.embed(t)) for t in texts])
        found.append(torch.cat([lm.head.logits(o.hidden) for o in outputs]))
    close(found[0], found[1], 1e-6)


def test_attention_that_leaves_a_cap_out_is_refused() -> None:
    model = tiny.lm_model("gemma2", tokenizer())
    CausalLM(model, tokenizer())
    model.config._attn_implementation = "sdpa"
    with pytest.raises(ModelError, match="attn_implementation='sdpa' leaves out"):
        CausalLM(model, tokenizer())


# -- several devices ----------------------------------------------------------------------------------


def spread(model: Any, mode: Any, second: tuple[nn.Module, ...], first: tuple[nn.Module, ...]) -> None:
    """As ``device_map`` does, on fake devices: PyTorch checks them, nothing is computed."""
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    for part, device in [*((p, "cpu") for p in first), *((p, "meta") for p in second)]:
        for module in part.modules():
            for store in (module._parameters, module._buffers):
                for name, tensor in store.items():
                    if tensor is not None:
                        fake = mode.from_tensor(tensor.data).to(device)
                        is_weight = store is module._parameters
                        store[name] = nn.Parameter(fake, requires_grad=False) if is_weight else fake
        hook = AlignDevicesHook(execution_device=torch.device(device), io_same_device=False)
        add_hook_to_module(part, hook)


@pytest.mark.parametrize("arch", ["llama", "qwen2", "gemma2"])
def test_a_model_over_two_devices(arch: str) -> None:
    """States come back to the first device: those of a rollout and of a pass are put together there."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import Cache

    from nabla.models.body import Prefix, left_padded
    from nabla.models.layers import GrowingLayer

    lm = tiny.causal_lm(arch, dtype=torch.float32, tie_word_embeddings=False)
    inner = lm.model.model
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        with pytest.raises(RuntimeError, match="device"):  # the test would see a mixture
            torch.cat([torch.ones(1), torch.ones(1, device="meta")])
        parts = (inner.embed_tokens, inner.rotary_emb, inner.layers[0])
        spread(lm.model, mode, (inner.layers[1], inner.norm, lm.model.lm_head), parts)
        assert (lm.body.device.type, lm.head.device.type) == ("cpu", "meta")
        ids = torch.arange(9)
        with torch.no_grad():
            (start,) = lm.body.run([Chunk(EMPTY, lm.body.embed(ids))], keep=True)
        assert start.keys is not None
        assert [k.device.type for k, _ in start.keys.layers] == ["cpu", "meta"]
        leaf = lm.body.embed(ids[:4]).requires_grad_()
        (output,) = lm.body.run([Chunk(Prefix(ids, start.keys), leaf)])
        hidden = torch.cat([start.hidden[-1:], output.hidden])
        values, _ = lm.head.log_likelihood(hidden, torch.zeros(5, 1, dtype=torch.long), torch.ones(5, 1))
        values.sum().backward()
        assert leaf.grad is not None
        assert leaf.grad.device.type == "cpu"
        layers = [GrowingLayer(*pair) for pair in left_padded([start.keys, start.keys.crop(5)], 9)]
        mask, positions = torch.ones(2, 10, dtype=torch.long), torch.tensor([9, 5])
        stepped = lm.body.step(torch.zeros(2, dtype=torch.long), mask, positions, Cache(layers=layers))
        torch.cat([start.hidden[:2], stepped])


# -- scores -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2])
def test_small_heads_score_in_float32(layers: int) -> None:
    draw = torch.Generator().manual_seed(0)
    head: nn.Module = nn.Linear(8, 1, bias=True)
    if layers == 2:
        head = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    for parameter in head.parameters():  # not as the tests before left the generator of all
        nn.init.uniform_(parameter, -0.3, 0.3, generator=draw)
    head = head.to(torch.bfloat16)
    hidden = (20 * torch.randn(400, 8, generator=draw)).to(torch.bfloat16).requires_grad_()
    scores = exact_scores(head, hidden)
    expected = copy.deepcopy(head).float()(hidden.float())
    assert scores.dtype == torch.float32
    assert torch.equal(scores, expected)
    assert len(head(hidden).unique()) < 400
    assert len(scores.unique()) == 400
    scores.sum().backward()
    assert hidden.grad is not None
    assert next(head.parameters()).dtype == torch.bfloat16
