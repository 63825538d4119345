"""Reward models whose states depend on what comes behind are refused: padding would change their scores."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf

from nabla.core.errors import ModelError
from nabla.rewards.outcome import OutcomeReward
from nabla.rewards.process import ProcessReward
from tests import tiny

_SMALL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.4,
    "num_labels": 1,
}


def encoder(family: str, suffix: str, **changes: Any) -> Any:
    tok = tiny.tokenizer()
    config = getattr(hf, f"{family}Config")(
        vocab_size=len(tiny.TOKENS), pad_token_id=tok.pad_token_id, **{**_SMALL, **changes}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(hf, family + suffix)(config).double()


@pytest.mark.parametrize("family", ["Bert", "Roberta", "Electra", "XLMRoberta", "Albert"])
@pytest.mark.parametrize(("cls", "suffix"), [(OutcomeReward, "Sequence"), (ProcessReward, "Token")])
def test_encoders_are_refused(family: str, cls: Any, suffix: str) -> None:
    model = encoder(
        family, f"For{suffix}Classification", **({"embedding_size": 16} if family == "Albert" else {})
    )
    with pytest.raises(ModelError, match="decoder"):
        cls(model, tiny.tokenizer())


def test_bidirectional_attention_is_refused() -> None:
    tok = tiny.tokenizer()
    settings = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
    model = tiny.outcome_model("gemma3", tok, use_bidirectional_attention=True, **settings)
    with pytest.raises(ModelError, match="not causal"):
        OutcomeReward(model, tok)
    OutcomeReward(tiny.outcome_model("gemma3", tok, **settings), tok)
