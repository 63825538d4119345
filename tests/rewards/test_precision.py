"""Scores of half-precision models in float32, and how far a reward model reads."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor

from nabla.core.errors import ModelError
from nabla.models.head import Head
from nabla.models.runner import Runner
from nabla.rewards.outcome import OutcomeReward
from nabla.rewards.process import ProcessReward
from tests import tiny
from tests.rewards.test_outcome import response
from tests.tiny import TOKENS, tokenizer

V = len(TOKENS)


def shepherd(dtype: torch.dtype) -> ProcessReward:
    """With a bias in its head."""
    model = tiny.build("llama", "ForCausalLM", vocab=V, dtype=dtype)
    old = model.lm_head
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.lm_head = torch.nn.Linear(old.in_features, V, dtype=dtype)
    return ProcessReward(
        model, tokenizer(), format="math-shepherd", marker=";", step_separators=[";"], signs=("1", "2")
    )


def hidden(reward: Any, rows: int = 5) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return (20 * torch.randn(rows, reward.body.hidden_size, generator=draw)).to(reward.body.dtype)


def signs_by_the_whole_head(reward: Any, states: Tensor) -> Tensor:
    output = reward.model.get_output_embeddings()
    return Head(output, reward.model.config, V).logits(states, reward._signs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_full_precision_is_the_heads_own_to_the_last_bit(dtype: torch.dtype) -> None:
    for reward in (tiny.outcome("llama", dtype=dtype), tiny.process("llama", dtype=dtype)):
        states = hidden(reward)
        own = reward.head(states)
        found = reward._read(states)
        assert torch.equal(found, own if isinstance(reward, ProcessReward) else reward.head(states[-1:])[0])
    marked = shepherd(dtype)
    states = hidden(marked)
    assert torch.equal(marked._read(states), signs_by_the_whole_head(marked, states))


def in_float32(reward: Any, states: Tensor) -> Tensor:
    if isinstance(reward, ProcessReward) and reward.format == "math-shepherd":
        return signs_by_the_whole_head(reward, states.float())
    scores: Tensor = copy.deepcopy(reward.head).float()(states.float())
    return scores


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["outcome", "process", "math-shepherd"])
def test_half_precision_scores_are_read_in_float32(kind: str, dtype: torch.dtype) -> None:
    made = {"outcome": tiny.outcome, "process": tiny.process}
    reward: Any = shepherd(dtype) if kind == "math-shepherd" else made[kind]("llama", dtype=dtype)
    states = hidden(reward, 20)
    expected = in_float32(reward, states)
    found = reward._read(states)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected[-1] if kind == "outcome" else expected, rtol=1e-6, atol=1e-6)
    assert not torch.equal(found, found.to(dtype).float())
    assert next(reward.model.parameters()).dtype == dtype


def test_a_half_precision_reward_has_a_gradient() -> None:
    reward = tiny.outcome("llama", dtype=torch.bfloat16)
    states = hidden(reward).requires_grad_()
    reward._read(states).sum().backward()
    assert states.grad is not None
    torch.testing.assert_close(states.grad[-1], reward.head.weight[0])
    assert not states.grad[:-1].any()


def test_longrope_is_read_up_to_its_short_table() -> None:
    """As language models are: beyond it a score would depend on the batch."""
    rope = {
        "rope_type": "longrope", "short_factor": [1.0, 1.5, 2.0, 2.5], "long_factor": [4.0, 5.0, 6.0, 8.0],
        "original_max_position_embeddings": 40, "rope_theta": 1e4, "factor": 4.0,
    }  # fmt: skip
    config = hf.Phi3Config(
        vocab_size=V, hidden_size=16, num_hidden_layers=2, intermediate_size=24, num_attention_heads=2,
        num_key_value_heads=1, eos_token_id=2, pad_token_id=0, bos_token_id=None, num_labels=1,
        max_position_embeddings=160, original_max_position_embeddings=40, rope_parameters=rope,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = hf.AutoModelForSequenceClassification.from_config(config).eval()
    reward = OutcomeReward(model, tokenizer()).bind(tiny.causal_lm("qwen2").vocabulary)
    assert reward.body.context_length == 40
    assert len(reward.score([response("11111")], Runner())) == 1
    with pytest.raises(ModelError, match="context holds 40"):
        reward.score([response("1" * 60)], Runner())
