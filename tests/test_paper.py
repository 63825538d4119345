"""The preset of the paper's table runs: the same file, with random models of tiny shapes."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
import yaml

from nabla.study.evaluation.config import EvaluationConfig
from nabla.study.evaluation.results import Results
from nabla.study.evaluation.runner import Evaluation
from nabla.testing.tiny import char_tokenizer, lm_model, outcome_model

FILE = Path(__file__).parents[1] / "experiments" / "configs" / "paper_table1.yaml"
#: The paper's models, by the families that stand in for them.
FAMILIES = {
    "Qwen/Qwen2.5-7B": "qwen2",
    "Qwen/Qwen2.5-7B-Instruct": "qwen2",
    "meta-llama/Llama-3.1-8B-Instruct": "llama",
}
REWARD = "Skywork/Skywork-Reward-V2-Qwen3-4B"
LENGTH = 5


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return found


def test_it_is_the_papers_setting(values: dict[str, Any]) -> None:
    config = EvaluationConfig.of(values)
    assert {setup.lm for setup in config.tasks.values()} == set(FAMILIES)
    assert {path for s in config.tasks.values() for path in s.rewards.values()} == {REWARD}
    lengths = {name: setup.shared["max_new_tokens"] for name, setup in config.tasks.items()}
    assert {n for name, n in lengths.items() if "AIME" not in name} == {1024}
    assert lengths["Qwen-2.5-7B-Instruct AIME24"] == 3072
    for label, task, threshold in [
        ("nabla-reasoner", "Qwen-2.5-7B-Instruct MATH-500", 4),
        ("nabla-reasoner AIME", "Qwen-2.5-7B-Instruct AIME24", 8),
    ]:
        assert config.runs(label, task)
        method = config.method(label, task)
        assert method["max_rollouts"] == 8
        assert method["selector"]["parts"][1]["threshold"] == threshold
        assert method["sampling"]["top_p"] == 0.95
        assert method["dto"]["steps"] == 20
    assert not config.runs("nabla-reasoner", "Qwen-2.5-7B-Instruct AIME24")
    assert config.method("best-of-n", "Qwen-2.5-7B AMC")["n"] == 8


def test_every_method_of_it_runs_on_random_models(
    values: dict[str, Any], tmp_path: Path, capsys: Any
) -> None:
    config = EvaluationConfig.of(miniature(values, tmp_path))
    folder = tmp_path / "results"
    Evaluation(config, folder).run()
    results = Results.load(folder)
    for label in config.methods:
        for task in config.tasks:
            if config.runs(label, task):
                run = results.runs[task, label]
                assert not run.errors, (task, label, run.errors)
                assert (run.cost["tokens"] > 0).all()
    # Whether a position is worth refining is asked of its gradient, in the phase of selection.
    assert results.runs["Qwen-2.5-7B AMC", "nabla-reasoner"].phases["selection"]["calls"] > 0


def miniature(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The file's values with other models, problems of one line, and short answers."""
    words = char_tokenizer(string.printable)  # TPO asks for a critique in words
    words.save_pretrained(folder / "words")
    for family in {*FAMILIES.values()}:
        save(lm_model(family, words, max_position_embeddings=8192), words, folder / family)
    save(outcome_model("qwen3", words, max_position_embeddings=8192), words, folder / "reward")
    (folder / "problems.jsonl").write_text(json.dumps({"id": "1", "problem": "1+1=", "answer": "2"}) + "\n")
    found = json.loads(json.dumps(values))
    kept = ("Qwen-2.5-7B AMC", "Qwen-2.5-7B-Instruct AIME24", "Llama-3.1-8B-Instruct MATH-500")
    found["tasks"] = {name: found["tasks"][name] for name in kept}
    for setup in found["tasks"].values():
        setup["task"] = {"name": setup["task"], "path": str(folder / "problems.jsonl")}
        setup["lm"] = str(folder / FAMILIES[setup["lm"]])
        setup["rewards"] = {"skywork": str(folder / "reward")}
        # One vocabulary, whatever transformers would make of it for each family.
        setup["lm_arguments"] = setup["rm_arguments"] = {"tokenizer": str(folder / "words")}
        setup["shared"]["max_new_tokens"] = setup["shared"]["sampling"]["max_new_tokens"] = LENGTH
    for method in found["methods"].values():  # every method once, the paper's on every task that it has
        tasks = method.get("tasks", kept[:1])
        method["tasks"] = [task for task in tasks if task in kept]
    # A greedy answer costs 3e6 here, a scored one 6e6: with more than that a gradient follows.
    return {**found, "budgets": {"flops": [3e6, 8e6]}, "accelerator": "cpu"}


def save(model: Any, words: Any, folder: Path) -> None:
    model.float().save_pretrained(folder)
    words.save_pretrained(folder)
