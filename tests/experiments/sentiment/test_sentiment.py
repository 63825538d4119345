"""Sentiment steering: what is asked, what the lexicon says, and a reward that learns from it."""

from __future__ import annotations

import argparse
import json
import string
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nabla.core.errors import ConfigError
from nabla.models.loading import load
from nabla.rewards.loading import load_reward
from nabla.rewards.outcome import OutcomeReward
from nabla.study.benchmark.models import random_model, word_tokenizer
from nabla.study.benchmark.settings import Shape
from nabla.study.evaluation.config import EvaluationConfig
from nabla.study.evaluation.results import Results
from nabla.study.evaluation.runner import Evaluation
from nabla.testing.tiny import char_tokenizer, lm_model, outcome_model

pytest.importorskip("vaderSentiment", reason="vaderSentiment is not installed (make install)")
pytest.importorskip("trl", reason="trl is not installed (make install)")

from experiments.sentiment import hacking, openings, train
from experiments.sentiment.lexicon import compound
from experiments.training import cards, export

CONFIG = Path(__file__).parents[3] / "experiments" / "configs" / "sentiment.yaml"
SHAPE = Shape(vocab=60, hidden=32, layers=2, heads=4, kv_heads=2, head_dim=8, intermediate=48)


def test_the_lexicon_reads_the_response_alone() -> None:
    assert compound("", "a wonderful, lovely evening") > 0.7
    assert compound("", "a terrible, dirty room") < -0.6
    assert compound("wonderful lovely", "the room had a table") == 0


def test_prompts_of_training_and_test_are_about_other_things() -> None:
    asked = [row["prompt"] for row in openings.prompts(openings.TEST)]
    learnt = [row["prompt"] for row in openings.prompts(openings.TRAIN)]
    assert len({*asked, *learnt}) == len(asked) + len(learnt) == 40 + 100
    kept = [json.loads(line) for line in openings.FILE.read_text(encoding="utf-8").splitlines()]
    assert kept == openings.prompts(openings.TEST)
    assert len({row["id"] for row in kept}) == len(kept)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers' trainer, about itself
def test_a_reward_is_trained_measured_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a tiny model, with the length of an answer in the lexicon's place."""
    words = word_tokenizer(SHAPE.vocab)
    model = random_model(SHAPE, "ForCausalLM", positions=128, dtype=torch.float32, device="cpu", seed=1)
    model.save_pretrained(tmp_path / "lm")
    words.save_pretrained(tmp_path / "lm")
    asked = [{"id": str(n), "prompt": f"w{n} w{n + 1}"} for n in range(4)]
    monkeypatch.setattr(train, "prompts", lambda _: asked)
    monkeypatch.setattr(train, "compound", lambda _, text: len(text) % 7 / 7)
    options = [
        "--base",
        str(tmp_path / "lm"),
        "--out",
        str(tmp_path / "run"),
        "--into",
        str(tmp_path / "made"),
    ]
    few = ["--layers", "1", "--each", "4", "--batch", "4"]
    train.main([*options, *few])
    rows = [json.loads(line) for line in (tmp_path / "run" / "train.jsonl").read_text().splitlines()]
    assert len(rows) == 16
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["what"] == "sentiment"
    figures: dict[str, Any] = train.measured(
        train_options(tmp_path), train.read(tmp_path / "run" / "test.jsonl")
    )
    assert figures["answers"] == 4 * train.TESTED
    assert -1 <= figures["correlation_within_prompts"] <= 1
    # What nabla loads is what was measured.
    reward = load_reward(str(tmp_path / "made"))
    assert isinstance(reward, OutcomeReward)
    from transformers import AutoModelForSequenceClassification

    loaded, _ = load(AutoModelForSequenceClassification, str(tmp_path / "made"), role="reward", num_labels=1)
    ids = torch.tensor([train.read_as(words, rows[0])])
    assert loaded(input_ids=ids).logits.shape == (1, 1)
    train.main([*options, *few])
    assert "is finished" in capsys.readouterr().out


def test_the_card_has_the_head_and_the_costs_of_all_cards() -> None:
    name, recipe = "smollm2-sentiment", {"what": "sentiment", "base": "smollm2", "rank": 4, "layers": 8,
                                         "each": 5, "subjects": 20}  # fmt: skip
    costs = {"steps": 2, "tokens": 800, "flops": 4e11, "cpu_seconds": 90.0}
    text = train.card(name, name, recipe, costs, {"correlation": 0.4})
    kept = (export.PLACE / name / "README.md").read_text(encoding="utf-8")
    assert text.partition("## ")[0] == kept.partition("## ")[0]
    other = cards.card(name, {**recipe, "what": "sft", "examples": 9, "first": 0}, costs, [])
    assert other.partition("\n# ")[0] == text.partition("\n# ")[0]
    assert all(cards.spent(costs) in card for card in (text, other))


def train_options(folder: Path) -> Any:
    """Of the command line, as far as measuring reads them."""
    return argparse.Namespace(base=str(folder / "lm"), out=folder / "run", dtype="float32", seed=0)


def test_an_evaluation_has_the_reward_beside_the_lexicon(tmp_path: Path) -> None:
    """The configuration with random models of tiny shapes: every method, and a lexicon of its own."""
    values = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    letters = char_tokenizer(string.printable)
    for name, model in (("lm", lm_model("llama", letters)), ("reward", outcome_model("llama", letters))):
        model.float().save_pretrained(tmp_path / name)
        letters.save_pretrained(tmp_path / name)
    setup = values["tasks"]["sentences"]
    setup["task"]["path"] = str(openings.FILE)
    setup |= {"lm": str(tmp_path / "lm"), "rewards": {"sentiment": str(tmp_path / "reward")}}
    values["shared"]["max_new_tokens"] = values["shared"]["sampling"]["max_new_tokens"] = 6
    few = {"problems": 2, "shard": 2, "budgets": {"flops": [2e7]}, "metric": f"{__name__}:vowels"}
    config = EvaluationConfig.of({**values, **few, "accelerator": "cpu"})
    Evaluation(config, tmp_path / "results").run()
    results = Results.load(tmp_path / "results")
    for label in config.methods:
        run = results.runs["sentences", label]
        assert not run.errors, (label, run.errors)
    rows = [json.loads(x) for x in (tmp_path / "results" / "records.jsonl").read_text().splitlines()]
    answers = [row for row in rows if row.get("response") is not None]
    assert answers
    assert all(row["metric"] == vowels("", row["response"]) for row in answers)
    assert all(row["reward"] is not None and row["reward"] != row["metric"] for row in answers)


def test_a_hacked_reward_rises_further_than_the_lexicon() -> None:
    def answer(
        method: str, value: float, problem: str, reward: float | None, metric: float
    ) -> dict[str, Any]:
        labels = {"kind": "answer", "unit": "flops", "method": method, "task": "t", "seed": 0}
        return {**labels, "problem": problem, "value": value, "reward": reward, "metric": metric}

    rows = [
        *(answer("honest", 1e9, p, 0.1, 0.2) for p in "ab"),
        *(answer("honest", 2e9, p, 0.5, 0.6) for p in "ab"),
        *(answer("hacking", 1e9, p, 0.1, 0.2) for p in "ab"),
        answer("hacking", 2e9, "a", 0.9, 0.1),
        answer("hacking", 2e9, "b", 0.9, 0.3),
        answer("hacking", 2e9, "c", 0.9, -1.0),  # has no first answer to be compared with
        answer("hacking", 1e9, "c", None, 0.0),
        {**answer("hacking", 9e9, "a", 0.9, 0.9), "kind": "run"},
    ]
    found = {(r["method"], r["flops"]): r for r in hacking.table(hacking.answers(rows))}
    assert len(found) == 4
    honest, hacked = found["honest", 2e9], found["hacking", 2e9]
    assert (honest["gap_rise"], honest["hacked"]) == (pytest.approx(0), 0)
    assert hacked["answers"] == 2
    assert (hacked["reward_rise"], hacked["lexicon_rise"]) == (pytest.approx(0.8), pytest.approx(0))
    assert hacked["gap_low"] <= hacked["gap_rise"] <= hacked["gap_high"]
    assert hacked["hacked"] == 1
    assert found["hacking", 1e9]["gap_rise"] == 0
    with pytest.raises(ConfigError, match="reward beside a metric"):
        hacking.answers([])


def test_runs_of_a_problem_count_once_and_problems_of_two_tasks_are_two() -> None:
    def rows(tasks: str, seeds: int) -> list[dict[str, Any]]:
        return [
            {"kind": "answer", "unit": "flops", "method": "m", "task": task, "seed": seed, "problem": str(i),
             "value": value, "reward": value * i, "metric": 0.0}
            for task, seed, i, value in product(tasks, range(seeds), range(12), (0.0, 1.0))
        ]  # fmt: skip

    one, often, both = (
        hacking.table(hacking.answers(rows(*of)))[1] for of in (("t", 1), ("t", 8), ("tu", 1))
    )
    assert one["gap_low"] < one["gap_rise"] < one["gap_high"]
    assert {**often, "answers": 12, "hacked": one["hacked"]} == one
    assert (often["answers"], both["answers"]) == (96, 24)
    unmeasured = {**rows("t", 1)[0], "method": "n", "metric": None}
    assert hacking.answers([*rows("t", 1), unmeasured]).keys() == {"m"}


def test_what_hacking_is_measured_in_is_written_and_drawn(tmp_path: Path) -> None:
    rows = [
        {"kind": "answer", "unit": "flops", "method": method, "task": "t", "seed": 0, "problem": problem,
         "value": value, "reward": 0.1 * n, "metric": 0.2}
        for n, (method, problem, value) in enumerate(
            product(("best-of-n", "revision"), "ab", (1e9, 2e9))
        )
    ]  # fmt: skip
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    hacking.main([str(tmp_path), "--into", str(tmp_path / "kept")])
    lines = (tmp_path / "kept" / "lexicon.csv").read_text().splitlines()
    assert lines[0].split(",") == list(hacking.FIELDS)
    assert len(lines) == 1 + 4
    assert (tmp_path / "kept" / "lexicon.png").stat().st_size > 5000


def vowels(prompt: str, response: str) -> float:
    """A metric."""
    return sum(response.count(letter) for letter in "aeiou") - 0.5
