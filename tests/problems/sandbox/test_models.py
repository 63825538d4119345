"""Every shipped model loads by the plain route and agrees with the shared tokenizer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from nabla.core.errors import NablaError
from nabla.problems.sandbox import MODELS, TASKS, build_tokenizer, model_path

LOADERS: dict[str, Any] = {
    "policy": AutoModelForCausalLM,
    "reward": AutoModelForSequenceClassification,
    "process-reward": AutoModelForTokenClassification,
}


@pytest.mark.parametrize("name", MODELS)
def test_model_loads_and_runs(name: str) -> None:
    info = MODELS[name]
    tokenizer = AutoTokenizer.from_pretrained(model_path(name))
    assert tokenizer.get_vocab() == build_tokenizer().get_vocab()
    model = LOADERS[info.role].from_pretrained(model_path(name)).eval()
    assert next(model.parameters()).dtype == torch.float32
    assert model.config.pad_token_id == tokenizer.pad_token_id
    problem = TASKS[info.family].problems("test", 1, 0)[0]
    turns = [
        [{"role": "user", "content": problem.prompt}, {"role": "assistant", "content": text}]
        for text in (problem.gold, problem.gold[:9])
    ]
    batch = tokenizer.apply_chat_template(
        turns, padding=True, return_dict=True, return_tensors="pt"
    )
    with torch.no_grad():
        logits = model(**batch).logits
    rows, length = batch["input_ids"].shape
    shapes = {
        "policy": (rows, length, len(tokenizer)),
        "reward": (rows, 1),
        "process-reward": (rows, length, 1),
    }
    assert logits.shape == shapes[info.role]
    assert bool(logits.isfinite().all())
    card = (model_path(name) / "README.md").read_text()
    assert name in card
    assert "Not measured yet" not in card


@pytest.mark.parametrize("family", TASKS)
def test_policy_answers_in_form_and_is_not_saturated(family: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_path(f"{family}-policy"))
    model = AutoModelForCausalLM.from_pretrained(model_path(f"{family}-policy")).eval()
    problems = TASKS[family].problems("test", 16, 5)
    ids = tokenizer.apply_chat_template(
        [[{"role": "user", "content": p.prompt}] for p in problems],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    out = model.generate(
        **ids,
        max_new_tokens=60,
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
    )
    texts = tokenizer.batch_decode(
        out.sequences[:, ids["input_ids"].shape[1] :], skip_special_tokens=True
    )
    right = [TASKS[family].check(p.prompt, t) for p, t in zip(problems, texts, strict=True)]
    assert 1 <= sum(right) <= 15
    law = torch.stack(out.scores[:30], 1).log_softmax(-1)
    assert 0.01 < float(-(law.exp() * law).sum(-1).mean()) < math.log(len(tokenizer))


@pytest.mark.parametrize("family", TASKS)
def test_reward_prefers_right_responses(family: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_path(f"{family}-reward"))
    model = AutoModelForSequenceClassification.from_pretrained(model_path(f"{family}-reward"))
    turns = []
    for p in TASKS[family].problems("test", 20, 6):
        last = p.gold[-1]
        wrong = p.gold[:-1] + ("2" if last == "1" else "1")
        for text in (p.gold, wrong):
            turns.append(
                [{"role": "user", "content": p.prompt}, {"role": "assistant", "content": text}]
            )
    batch = tokenizer.apply_chat_template(
        turns, padding=True, return_dict=True, return_tensors="pt"
    )
    with torch.no_grad():
        scores = model.eval()(**batch).logits[:, 0]
    assert float((scores[0::2] > scores[1::2]).float().mean()) >= 0.9


def test_total_size() -> None:
    root = model_path("latin-policy").parent
    assert sum(f.stat().st_size for f in root.rglob("*") if f.is_file()) < 50e6


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(NablaError, match="Did you mean 'latin-policy'"):
        model_path("latin-polcy")
