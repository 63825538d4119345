"""The training room: what is right in an answer, what is learnt from, what is written down."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from experiments.training import cards, export, ladder, measure, outcome, process, running, samples
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


def test_labels_behind_the_first_mistake_may_be_left_out() -> None:
    labels = [-100, 1, 1, 0, 0, 0, 0]
    assert process.kept(labels, None) == labels
    assert process.kept(labels, 0) == [-100, 1, 1, 0, -100, -100, -100]
    assert process.kept(labels, 2) == [-100, 1, 1, 0, 0, 0, -100]
    assert process.kept([-100, 1, 1], 0) == [-100, 1, 1]
    assert process.kept([0, 0], 5) == [0, 0]


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


def test_samples_of_several_files_are_learnt_from_together(tmp_path: Path) -> None:
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for file, each in zip(files, (3, 1), strict=True):
        file.write_text(json.dumps({"problem": file.stem, "samples": [0] * each}) + "\n")
    assert [row["problem"] for row in samples.read(*files)] == ["a", "b"]
    assert samples.size(files) == {"problems": 2, "samples": 4}


def test_a_folder_goes_on_in_another_precision_and_never_with_another_recipe(
    tmp_path: Path, capsys: Any
) -> None:
    def opened(*changes: str) -> bool:
        parser = running.reward_options(None, 4)
        given = ["--samples", "a.jsonl", "--out", str(tmp_path / "run"), *changes]
        return running.finished("process", parser.parse_args(given), problems=3)

    assert not opened()
    assert not opened("--dtype", "bfloat16")
    with pytest.raises(SystemExit, match="other settings"):
        opened("--lr", "0.1")
    (tmp_path / "run" / "adapter").mkdir()
    (tmp_path / "run" / "adapter" / "adapter_model.safetensors").touch()
    assert opened()
    assert "is finished" in capsys.readouterr().out


def test_costs_name_the_precisions_of_all_parts_of_a_training(tmp_path: Path) -> None:
    class State:
        global_step, num_input_tokens_seen = 3, 10

    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    for parameter in model[0].parameters():
        parameter.requires_grad = False
    for dtype in (torch.bfloat16, torch.float32):
        model[0].to(dtype)
        ledger = running.Ledger(tmp_path, 6.0)
        ledger.on_train_begin(None, State(), None, model=model)
        ledger.on_save(None, State(), None)
    costs = json.loads((tmp_path / "costs.json").read_text())
    assert costs["frozen_weights"] == ["bfloat16", "float32"]
    assert costs["flops"] == 60.0


def test_the_benchmark_reads_the_verifiers_as_they_are_measured() -> None:
    spec = yaml.safe_load((Path(samples.__file__).parents[1] / "configs" / "real.yaml").read_text())
    rewards = [reward for task in spec["tasks"].values() for reward in task["rewards"].values()]
    assert {"name": "likelihood"} in rewards
    for reading in ladder.READING.values():
        assert yaml.safe_load(reading) in rewards
    assert len(rewards) == len(ladder.READING) + 1
    assert len({json.dumps(task["task"]) for task in spec["tasks"].values()}) == 1


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
    (tmp_path / "other.json").write_text('{"greedy": 0.6}')
    export.main(["again", "mine", "--into", str(tmp_path), "--measured", str(tmp_path / "other.json")])
    renewed = (folder / "README.md").read_text()
    assert renewed.partition("| measure")[0] == card.partition("| measure")[0]
    assert renewed.endswith("|---|---|\n| greedy | 0.600 |\n")


@pytest.mark.parametrize("what", ["process", "outcome"])
def test_a_card_says_what_a_reward_learnt_from(what: str) -> None:
    recipe = {"what": what, "base": "smollm2-chain-sum", "rank": 8, "layers": 10, "problems": 9,
              "samples": 36, "corruptions": 2, "pairs": 1}  # fmt: skip
    costs = {"steps": 2, "tokens": 800, "flops": 4e11, "cpu_seconds": 90.0, "frozen_weights": ["bfloat16"]}
    card = cards.card(f"smollm2-chain-sum-{what}", recipe, costs, [])
    assert "36 samples of 9 training problems" in card
    assert "the policy's at temperature 1, seeds from 200,000 on" in card
    assert "frozen ones in bfloat16" in card
    assert "Not measured yet." in card


def test_a_reward_begins_with_the_language_models_body_and_a_head_of_its_own(
    tmp_path: Path, monkeypatch: Any
) -> None:
    from transformers import AutoModelForTokenClassification

    from tests import gguf_files

    gguf_files.write(tmp_path / "tiny.gguf")
    given = ["--base", str(tmp_path / "tiny.gguf"), "--samples", "a", "--out", "b", "--dtype", "bfloat16"]
    monkeypatch.setenv("NABLA_CACHE", str(tmp_path / "cache"))
    options = running.reward_options(None, 4).parse_args(given)
    lm, _ = running.start(options)
    model, tokenizer = running.start(options, AutoModelForTokenClassification, num_labels=2)
    body = dict(lm.base_model.named_parameters())
    for name, parameter in model.base_model.named_parameters():
        torch.testing.assert_close(parameter, body[name], rtol=0, atol=0)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.score.out_features == model.config.num_labels == 2
    assert model.config.pad_token_id == tokenizer.pad_token_id
    again, _ = running.start(options, AutoModelForTokenClassification, num_labels=2)
    torch.testing.assert_close(model.score.weight, again.score.weight, rtol=0, atol=0)
