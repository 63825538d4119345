"""No token may change what is before it: seen in every precision, and with weights however small."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf

from nabla.core.errors import ModelError
from nabla.models.body import EMPTY, Body, Chunk
from nabla.models.causal_lm import CausalLM
from nabla.models.causality import require_causal
from nabla.rewards.outcome import OutcomeReward
from nabla.rewards.process import ProcessReward
from tests import tiny

_SMALL = {
    "vocab_size": len(tiny.TOKENS), "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64, "num_labels": 1,
}  # fmt: skip


def encoder(name: str, dtype: torch.dtype, **changes: Any) -> Any:
    """With the weights of a beginning: 0.02, which hardly move a state."""
    prefix = name.split("For")[0]
    tok = tiny.tokenizer()
    config = getattr(hf, f"{prefix}Config")(**{**_SMALL, "pad_token_id": tok.pad_token_id, **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(hf, name)(config).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("family", "changes"),
    [("Bert", {}), ("Electra", {"embedding_size": 16}), ("Albert", {"embedding_size": 16}), ("Deberta", {})],
)
def test_encoders_whose_states_hardly_change(family: str, changes: Any, dtype: torch.dtype) -> None:
    """As token classifiers these were read, with scores that depend on their neighbours in a batch."""
    model = encoder(f"{family}ForTokenClassification", dtype, **changes)
    with pytest.raises(ModelError, match="not causal"):
        ProcessReward(model, tiny.tokenizer())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_encoders_as_outcome_models_and_language_models(dtype: torch.dtype) -> None:
    """Before a head is asked for states of another shape."""
    model = encoder("ElectraForSequenceClassification", dtype, embedding_size=16)
    with pytest.raises(ModelError, match="not causal"):
        OutcomeReward(model, tiny.tokenizer())
    lm = encoder("RobertaForCausalLM", dtype, eos_token_id=2, max_position_embeddings=80)
    with pytest.raises(ModelError, match="not causal"):
        CausalLM(lm, tiny.tokenizer())


@pytest.mark.parametrize("arch", tiny.ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_decoders_pass(arch: str, dtype: torch.dtype) -> None:
    model = tiny.lm_model(arch, tiny.tokenizer(), dtype=dtype)
    model.requires_grad_(False).eval()
    body = Body(model.base_model, model.config)
    require_causal(body, torch.arange(20), arch)


def test_a_model_without_derivatives_is_judged_by_its_values(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = tiny.causal_lm("llama")
    run = lm.body.run

    def once(chunks: Any, **settings: Any) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError("no derivative of a packed product")
        return run(chunks, **settings)

    monkeypatch.setattr(lm.body, "run", once)
    require_causal(lm.body, torch.arange(9), "it")
    assert "judged by its values alone: no derivative of a packed product" in caplog.text

    def backwards(chunks: Any, **settings: Any) -> Any:
        return run([Chunk(EMPTY, chunk.embeddings.flip(0)) for chunk in chunks], **settings)

    monkeypatch.setattr(lm.body, "run", backwards)
    with pytest.raises(ModelError, match="it is not causal"):
        require_causal(lm.body, torch.arange(9), "it")


def test_what_a_reward_model_raises_at_load_is_named() -> None:
    model = tiny.outcome_model("llama", tiny.tokenizer())

    def broken(*_: Any, **__: Any) -> Any:
        raise IndexError("too many indices for tensor of dimension 2")

    model.score.forward = broken
    with pytest.raises(ModelError, match=r"LlamaForSequenceClassification cannot be run.*too many indices"):
        OutcomeReward(model, tiny.tokenizer())
