"""The language model: frozen, verified against transformers, with its prompts and limits."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
import transformers as hf

from nabla.core.costs import Account, CostMeter
from nabla.core.errors import ModelError, PromptError
from nabla.core.prompt import Prompt
from nabla.models.body import Chunk
from nabla.models.causal_lm import CausalLM
from nabla.models.runner import Runner
from tests import tiny
from tests.cases import close
from tests.tiny import END, PAD, TOKENS, ids, lm_model, tokenizer

V = len(TOKENS)


def account() -> Account:
    return Account("p", CostMeter(), "gradient")


# -- architectures ----------------------------------------------------------------------------------

_COMMON = {
    "vocab_size": V, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.3,
    "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": None,
}  # fmt: skip
_GROUPED = {**_COMMON, "num_key_value_heads": 1}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 8}
#: Model type → (settings, whether its prefixes can be reused). Experts work in float32.
FAMILIES: dict[str, tuple[dict[str, Any], bool]] = {
    "OPT": ({**_COMMON, "ffn_dim": 24, "word_embed_proj_dim": 8}, True),
    "Bloom": ({**_COMMON, "n_layer": 2, "n_head": 2}, True),
    "Phi": (_COMMON, True),
    "Phi3": (_GROUPED, True),
    "Falcon": ({**_COMMON, "alibi": False}, True),
    "Olmo2": (_GROUPED, True),
    "Starcoder2": (_GROUPED, True),
    "SmolLM3": (_GROUPED, True),
    "Glm4": ({**_GROUPED, "head_dim": 8}, True),
    "Qwen3Moe": ({**_GROUPED, "head_dim": 8, "num_experts": 4, **_EXPERTS}, True),
    "GptOss": (
        {**_GROUPED, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 12},
        True,
    ),
    "DeepseekV3": (
        {
            **_COMMON, "num_key_value_heads": 2, "q_lora_rank": 8, "kv_lora_rank": 8,
            "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 6, "n_routed_experts": 4,
            "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, **_EXPERTS,
        },
        True,
    ),
    "Lfm2": ({**_GROUPED, "layer_types": ["conv", "full_attention"]}, False),
    "Mamba": (
        {"vocab_size": V, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "eos_token_id": 2},
        False,
    ),
    "Qwen3Next": (
        {
            **_GROUPED, "head_dim": 8, "linear_num_value_heads": 2, "linear_num_key_heads": 1,
            "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_conv_kernel_dim": 3,
            "num_experts": 4, "shared_expert_intermediate_size": 8, **_EXPERTS,
            "layer_types": ["linear_attention", "full_attention"],
        },
        False,
    ),
}  # fmt: skip


def family(name: str) -> Any:
    settings, _ = FAMILIES[name]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return getattr(hf, f"{name}ForCausalLM")(getattr(hf, f"{name}Config")(**settings)).eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_families(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Padded batches and cached prefixes of architectures that the other tests do not use."""
    model = family(name)
    lm = CausalLM(model, tokenizer())
    assert lm.body.reuse_prefix == FAMILIES[name][1]
    if not lm.body.reuse_prefix and name != "Mamba":  # Mamba's forward takes no key/value cache at all
        assert "prefixes will be run in full" in caplog.text
    texts = [torch.arange(n) * k % V for n, k in ((24, 1), (7, 3), (16, 5))]
    cuts = (15, 2, 9)
    with torch.no_grad():
        expected = [model(input_ids=t[None]).logits[0] for t in texts]
        runner = Runner()
        payers = [Account(str(i), CostMeter(), "gradient") for i in range(3)]
        prefixes = runner.prefixes(lm.body, [t[:n] for t, n in zip(texts, cuts, strict=True)], payers)
        chunks = [Chunk(p, lm.body.embed(t[n:])) for p, t, n in zip(prefixes, texts, cuts, strict=True)]
        outputs = runner.forward(lm.body, chunks, payers)
        for output, logits, n in zip(outputs, expected, cuts, strict=True):
            close(lm.head.logits(output.hidden), logits[n:].float(), 1e-4)


@pytest.mark.parametrize("arch", tiny.ARCHITECTURES)
def test_frozen_on_entry(arch: str) -> None:
    model = lm_model(arch, tokenizer()).train()
    lm = CausalLM(model, tokenizer())
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.training
    assert lm.body.reuse_prefix
    before = {name: p.clone() for name, p in model.named_parameters()}
    leaf = lm.body.embed(torch.arange(5)).requires_grad_()
    from nabla.models.body import EMPTY

    (output,) = lm.body.run([Chunk(EMPTY, leaf)])
    output.hidden.square().sum().backward()
    assert leaf.grad is not None
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


# -- models that cannot be used -----------------------------------------------------------------------


def test_nan_weights() -> None:
    model = lm_model("qwen2", tokenizer())
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match="NaN or infinity"):
        CausalLM(model, tokenizer())


def test_an_output_that_nabla_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lm_model("qwen2", tokenizer())
    forward = model.forward

    def shifted(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        out.logits = out.logits * 1.01
        return out

    monkeypatch.setattr(model, "forward", shifted)
    with pytest.raises(ModelError, match="do not give its logits"):
        CausalLM(model, tokenizer())


def test_a_model_without_a_head() -> None:
    with pytest.raises(ModelError, match="no output embedding"):
        CausalLM(lm_model("qwen2", tokenizer()).model, tokenizer())


def test_a_cache_that_changes_the_result_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = lm_model("qwen2", tokenizer())
    forward = model.model.forward

    @functools.wraps(forward)
    def forgetful(*args: Any, **kwargs: Any) -> Any:
        past = kwargs.get("past_key_values")
        if past is not None and past.get_seq_length():
            for layer in past.layers:
                layer.keys = layer.keys * 0.9
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.model, "forward", forgetful)
    lm = CausalLM(model, tokenizer())
    assert not lm.body.reuse_prefix
    assert "caching does not work here" in caplog.text


# -- tokens -----------------------------------------------------------------------------------------


def test_end_of_sequence_ids_from_every_source() -> None:
    tok = tokenizer(eos=PAD)
    model = lm_model("qwen2", tok, eos=(END,))
    model.generation_config.eos_token_id = [5, 2]
    assert CausalLM(model, tok).eos_ids == (5, 2, 0)
    model.generation_config.eos_token_id = None
    model.config.eos_token_id = 3
    assert CausalLM(model, tok).eos_ids == (3, 0)


def test_no_end_of_sequence_token() -> None:
    tok = tokenizer(eos=None)
    model = lm_model("qwen2", tok)
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        CausalLM(model, tok)


def test_encode_and_decode() -> None:
    lm = tiny.causal_lm("qwen2")
    ids = lm.encode(Prompt.of("1+2=", system="use +"))
    whole = lm.tokenizer.decode(ids)
    assert (
        whole
        == "<|im_start|>system\nuse +<|im_end|>\n<|im_start|>user\n1+2=<|im_end|>\n<|im_start|>assistant\n"
    )
    assert lm.decode(tiny.ids(lm.tokenizer, "3; 1" + END)) == "3; 1"
    assert lm.decode([14, 15]) == "01"
    assert lm.decode(torch.empty(0, dtype=torch.long)) == ""


def test_prompts_that_do_not_fit() -> None:
    lm = tiny.causal_lm("qwen2", max_position_embeddings=40)
    assert len(lm.encode(Prompt.of("1+2="))) == 23
    assert lm.vocabulary.room(23, 100) == 17
    assert lm.vocabulary.room(23, 5) == 5
    with pytest.raises(PromptError, match="context holds 40"):
        lm.encode(Prompt.of("1" * 21))
    assert len(lm.encode(Prompt.of("1" * 20))) == 39


def test_unknown_characters() -> None:
    with pytest.raises(PromptError, match="does not know a character"):
        tiny.causal_lm("qwen2").encode(Prompt.of("1 + x"))


def test_padding_of_the_matrix_is_never_a_candidate() -> None:
    lm = tiny.causal_lm("qwen2", padded=9)
    assert lm.head.usable == V
    assert lm.candidates.tolist() == list(range(V))
    assert lm.head.logits(torch.zeros(16, dtype=torch.float64)).shape == (V,)
    lm.head.block(torch.tensor([4]))
    assert 4 not in lm.candidates.tolist()


def test_a_stored_model_is_read_as_it_was(tmp_path: Any) -> None:
    """From a folder: the same logits, the settings that are asked for, frozen; or an error that names it."""
    lm = tiny.causal_lm("qwen2")
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    path = str(tmp_path)
    found = CausalLM.from_pretrained(path, chat_template="plain", reuse_prefix=False, dtype="float64")
    tokens = lm.encode(Prompt.of("1+2="))
    assert found.encode(Prompt.of("1+2=")).tolist() == ids(lm.tokenizer, "1+2=").tolist()
    chat = CausalLM.from_pretrained(path)
    assert chat.tokenizer.decode(chat.encode(Prompt.of("1+2="))).startswith("<|im_start|>user")
    expected = lm.model(tokens[None]).logits
    close(found.model(tokens[None]).logits, expected, 1e-6)  # rotary frequencies are stored in float32
    assert lm.body.reuse_prefix
    assert not found.body.reuse_prefix
    assert not any(parameter.requires_grad for parameter in found.model.parameters())
    with pytest.raises(ModelError, match="nowhere"):
        CausalLM.from_pretrained(str(tmp_path / "nowhere"))
