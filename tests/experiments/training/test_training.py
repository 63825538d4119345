"""The training room: what is right in an answer, what is learnt from, what is written down."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from experiments.training import cards, export, measure, outcome, process, samples
from experiments.training.task import right_pieces, solution, terms
from nabla.core.errors import ConfigError
from nabla.core.trajectory import Score

QUESTION = "State the final answer to the following arithmetic problem: 5 + 2 - 9 + 4 ="
GOLD = "5+2=7\n7-9=-2\n-2+4=2"


def test_the_written_solution() -> None:
    assert terms(QUESTION) == [5, 2, -9, 4]
    assert solution(QUESTION) == GOLD
    assert solution("4 - 7 =").splitlines() == ["4-7=-3"]
    with pytest.raises(ConfigError, match="no chain of sums"):
        terms("What is the capital of France?")


def test_every_token_is_right_up_to_the_first_mistake() -> None:
    assert right_pieces(QUESTION, [*GOLD, ""]) == [True] * (len(GOLD) + 1)
    assert right_pieces(QUESTION, ["5+2", "=", "7\n", "7"]) == [True] * 4
    wrong = right_pieces(QUESTION, ["5+2", "=", "8", "\n", "8-9=-1"])
    assert wrong == [True, True, False, False, False]
    # An end too early is a mistake, one too late as well.
    assert right_pieces(QUESTION, ["5+2=7", ""]) == [True, False]
    assert right_pieces(QUESTION, [GOLD, "\n", ""]) == [True, False, False]


def test_a_corrupted_answer_has_one_digit_changed() -> None:
    draws = random.Random(0)
    for _ in range(50):
        text = process.corrupted(QUESTION, draws)
        changed = [i for i, (a, b) in enumerate(zip(text, GOLD, strict=True)) if a != b]
        assert len(changed) == 1
        assert text[changed[0]].isdigit()
        assert right_pieces(QUESTION, [*text]) == [i < changed[0] for i in range(len(text))]


def test_labels_are_those_of_the_answers_tokens_alone() -> None:
    row = process.example([1, 2, 3], [4, 5, 6], [True, False, False])
    assert row["input_ids"] == [1, 2, 3, 4, 5, 6]
    assert row["labels"] == [-100, -100, -100, 1, 0, 0]
    assert row["attention_mask"] == [1] * 6


def sample(text: str, finished: bool = True) -> dict[str, Any]:
    pieces = [*text, *([""] if finished else [])]
    return {"text": text, "finished": finished, "right": right_pieces(QUESTION, pieces), "tokens": pieces}


def test_pairs_have_a_right_and_a_wrong_answer_of_one_problem() -> None:
    row = {"problem": "a", "prompt": QUESTION, "question": QUESTION}
    texts = [GOLD, "5+2=8", "5+2=9", "5+2=9", "5+2=1"]
    found = list(outcome.pairs([{**row, "samples": [sample(t) for t in texts]}], 2, 0))
    assert [pair["chosen"][0]["content"] for pair in found] == [GOLD, GOLD]
    wrong = {pair["rejected"][0]["content"] for pair in found}
    assert len(wrong) == 2
    assert wrong < {"5+2=8", "5+2=9", "5+2=1"}
    (alone,) = outcome.pairs([{**row, "samples": [sample("5+2=8"), sample("5+2", False)]}], 2, 0)
    assert (alone["chosen"][0]["content"], alone["rejected"][0]["content"]) == (GOLD, "5+2=8")
    assert not list(outcome.pairs([{**row, "samples": [sample(GOLD)]}], 2, 0))


def test_a_torn_line_of_samples_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text('{"problem": 1}\n{"prob')
    assert samples.read(path) == [{"problem": 1}]
    assert path.read_text() == '{"problem": 1}\n'


def test_only_tokens_up_to_the_first_wrong_one_are_measured() -> None:
    shown = sample("5+3=8")
    values = tuple(float(-i) for i in range(len(shown["tokens"])))
    found = measure.told(shown, Score(-9.0, values, tuple(range(len(values)))))
    assert found == [(0.0, True), (-1.0, True), (-2.0, False)]
    assert measure.told(shown, Score(1.0)) == []


def test_calibration_of_a_calibrated_and_of_a_certain_one() -> None:
    odds = torch.logit(torch.tensor(0.75)).item()
    calibrated = [(odds, True)] * 75 + [(odds, False)] * 25
    assert measure.calibration(calibrated)["ece"] == pytest.approx(0.0, abs=1e-6)
    certain = [(50.0, True)] * 75 + [(50.0, False)] * 25
    assert measure.calibration(certain)["ece"] == pytest.approx(0.25, abs=1e-6)
    assert sum(count for _, count, _, _ in measure.calibration(calibrated)["bins"]) == 100


def test_the_chance_that_one_of_k_is_right() -> None:
    assert measure.at_least_one(4, 1, 1) == 0.25
    assert measure.at_least_one(4, 1, 4) == 1.0
    assert measure.at_least_one(4, 0, 2) == 0.0
    assert measure.at_least_one(4, 2, 2) == pytest.approx(1 - 1 / 6)


def test_an_export_is_half_as_large_and_says_what_it_is(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "adapter").mkdir(parents=True)
    recipe = {"what": "sft", "base": "smollm2", "rank": 2, "examples": 8, "first": 0, "lr": 0.001}
    (run / "recipe.json").write_text(json.dumps(recipe))
    costs = {"steps": 2, "tokens": 800, "flops": 4e11, "cpu_seconds": 90.0}
    (run / "costs.json").write_text(json.dumps(costs))
    config = {"r": 2, "peft_type": "LORA", "target_modules": ["b", "a"], "task_type": "CAUSAL_LM",
              "base_model_name_or_path": "/somewhere/of/this/machine", "inference_mode": True}  # fmt: skip
    (run / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    weights = {"lora_A.weight": torch.randn(2, 8), "lora_B.weight": torch.randn(8, 2)}
    save_file(weights, run / "adapter" / "adapter_model.safetensors")
    (tmp_path / "figures.json").write_text('{"greedy": 0.565, "bins": [[0.9, 10, 0.95, 1.0]]}')
    export.main([str(run), "mine", "--into", str(tmp_path), "--measured", str(tmp_path / "figures.json")])
    folder = tmp_path / "mine"
    half = load_file(folder / "adapter_model.safetensors")
    assert {t.dtype for t in half.values()} == {torch.float16}
    for name, tensor in weights.items():
        torch.testing.assert_close(half[name].float(), tensor, atol=2e-3, rtol=2e-3)
    kept = json.loads((folder / "adapter_config.json").read_text())
    assert kept["base_model_name_or_path"] == "smollm2"
    assert kept["target_modules"] == ["a", "b"]
    card = (folder / "README.md").read_text()
    assert "| CPU minutes | 1.5 |" in card
    assert "| greedy | 0.565 |" in card
    assert "| probability from 0.9: said 0.950, right 1.000 | 10 tokens |" in card
    assert cards.rows({"cpu_seconds": 3}) == []
