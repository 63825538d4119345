"""The task of words: its worked solutions, what is trained on, and the table of what was tried."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from nabla.problems.answers.regex import RegexAnswers
from nabla.problems.tasks.base import Problem
from nabla.testing.tiny import char_tokenizer, lm_model

pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed (make install)")
pytest.importorskip("trl", reason="trl is not installed (make install)")

from experiments.training import measure, samples, tried, words
from experiments.training.samples import read
from experiments.training.task import right_so_far


def test_the_worked_solution_is_right_by_the_data_sets_verifier() -> None:
    assert words.solution({"tiger": 4, "leech": 2, "ant": 3}) == (
        "tiger: 4*4=16, total 16\nleech: 2*0=0, total 16\nant: 3*6=18, total 34"
    )
    task = words.build("test", size=12)
    for problem in task.problems():
        text = words.solution(problem.metadata["animals"])
        assert task.grade(problem, text)
        assert not task.grade(problem, text + "0")


def test_a_solution_is_labelled_token_by_token() -> None:
    (problem,) = words.build("test").problems(1)
    gold = words.written(problem)
    assert right_so_far(gold, [*gold, ""]) == [True] * (len(gold) + 1)
    at = gold.index("=") + 1
    wrong = gold[:at] + "x" + gold[at + 1 :]
    assert right_so_far(gold, [*wrong, ""]) == [i < at for i in range(len(gold) + 1)]


def test_what_a_question_was_answered_with_is_read_and_not_what_follows() -> None:
    by = {trial.label.removeprefix("smollm2, "): trial for trial in tried.TRIALS}
    assert len(by) == len(tried.TRIALS)
    more = "\n\nNow, how many legs?\nduck: 1*2=2, total 2"
    worked = "ant: 3*6=18, total 18\ntiger: 2*4=8, total 26"
    cot = "1. 3 + 4 = 7 kiwi\n#### 7"
    for label, text, found in (
        ("leg_counting, worked, 2 shots", worked, "26"),
        ("leg_counting, worked, 2 shots", worked + more, "26"),
        ("leg_counting, 2 shots", "26", "26"),
        ("leg_counting, 2 shots", "26" + more, "26"),
        ("gsm_symbolic, worked, 2 shots", cot, "7"),
        ("gsm_symbolic, worked, 2 shots", cot + "\n\n#### 9", "7"),
        ("gsm_symbolic, worked, 0 shots", "3 + 4, so there are 7 pieces of fruit.", "7"),
    ):
        assert RegexAnswers(by[label].pattern).extract(text) == found


def test_samples_of_the_task_are_drawn_and_measured(model: str, tmp_path: Path) -> None:
    out, figures = tmp_path / "test.jsonl", tmp_path / "figures.json"
    chosen = ["--task", "leg_counting", "--policy", model]
    few = ["--problems", "2", "--each", "2", "--split", "test", "--first", "0"]
    samples.main([*chosen, *few, "--out", str(out)])
    first, _ = read(out)
    gold = words.written(words.build("test").problems(1)[0])
    assert len(first["samples"]) == 2
    for sample in first["samples"]:
        assert len(sample["right"]) == len(sample["tokens"]) <= words.MOST_TOKENS
        assert sample["right"][0] == gold.startswith(sample["text"][0])
    measure.main(["policy", *chosen, "--problems", "2", "--samples", str(out), "--out", str(figures)])
    found = json.loads(figures.read_text())
    assert (found["problems"], found["pool"]) == (2, "2 x 2")
    assert {"greedy", "pass@1", "pass@2", "mean_tokens"} < set(found)
    assert found["pass@2 by the data set's verifier"] == found["pass@2"] == 0
    text = words.written(words.build("test").problems(1)[0])
    first["samples"][0]["text"] = text.replace("total", "totals", 1)  # the answer, behind a wrong line
    out.write_text(json.dumps(first) + "\n")
    measure.main(["policy", *chosen, "--problems", "1", "--samples", str(out), "--out", str(figures)])
    found = json.loads(figures.read_text())
    assert (found["pass@1"], found["pass@1 by the data set's verifier"]) == (0, 0.5)


def test_samples_go_on_as_they_were_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool of two temperatures, or of two policies, would be that of none."""

    def draw(lm: Any, asked: Any, problems: Any, sampling: Any, each: int, seed: int) -> Any:
        return [{"problem": p.id, "temperature": sampling.temperature, "each": each} for p in problems]

    monkeypatch.setattr(samples, "draw", draw)
    monkeypatch.setattr(samples.CausalLM, "from_pretrained", lambda *_, **__: None)
    out = tmp_path / "test.jsonl"
    chosen = ["--task", "leg_counting", "--split", "test", "--first", "0", "--out", str(out)]
    samples.main([*chosen, "--problems", "2"])
    for changed in (["--temperature", "1.4"], ["--each", "3"], ["--policy", "smollm2"], ["--seed", "1"]):
        with pytest.raises(SystemExit, match="choose another --out"):
            samples.main([*chosen, "--problems", "3", *changed])
    assert len(read(out)) == 2
    samples.main([*chosen, "--problems", "3"])
    assert [row["temperature"] for row in read(out)] == [1.0] * 3
    (row, *_) = read(out)
    del row["drawn"]  # a file of an earlier version
    out.write_text(json.dumps(row) + "\n")
    samples.main([*chosen, "--problems", "2", "--each", "3"])
    assert [row["each"] for row in read(out)] == [4, 3]


def test_no_training_problem_is_asked_in_a_test() -> None:
    tested = {p.prompt for p in words.build("test").problems()}
    found = words.training(40)
    assert len(found) == 40
    assert not {p.prompt for p in found} & tested


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny language model with random weights that reads and writes letters."""
    folder, letters = tmp_path_factory.mktemp("lm"), char_tokenizer(string.printable)
    lm_model("llama", letters, max_position_embeddings=2048).float().save_pretrained(folder)
    letters.save_pretrained(folder)
    return str(folder)


def test_trials_are_graded_and_gone_on_with(model: str, tmp_path: Path, monkeypatch: Any) -> None:
    arguments = {"min_animals": 2, "max_animals": 2}
    trial = tried.Trial("leg_counting", 1, 6, arguments=arguments, lm=model)
    verdicts: dict[str, list[bool]] = {}

    def grade(_: Any, problem: Problem, text: str) -> bool:
        good = problem.id.endswith("0") and len(verdicts.get(problem.id, [])) < 2
        verdicts.setdefault(problem.id, []).append(good)
        return good

    monkeypatch.setattr(tried.ReasoningGym, "grade", grade)
    monkeypatch.setattr(tried, "TRIALS", (trial,))
    out = tmp_path / "tried.jsonl"
    for _ in range(2):
        tried.main(["--out", str(out), "--problems", "2"])
    (row,) = read(out)  # what is there is not tried again
    assert [len(asked) for asked in verdicts.values()] == [tried.EACH] * 2
    assert (row["pass@1"], row["pass@8"]) == (2 / 8 / 2, 1 / 2)
    low, high = row["pass@8 95 %"]
    assert 0.09 < low < 0.1 < 0.9 < high < 0.91  # one of two
    assert 1 <= row["tokens"] <= 6
    assert row["label"].endswith("leg_counting, 1 shots")


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers' trainer, about itself
def test_a_policy_is_trained(model: str, tmp_path: Path) -> None:
    options = ["--base", model, "--out", str(tmp_path / "run"), "--examples", "8", "--rank", "2"]
    words.main(options)
    weights = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    moved = [float(w.abs().max()) for name, w in weights.items() if "lora_B" in name]
    assert moved
    assert min(moved) > 0  # they begin at zero
    assert json.loads((tmp_path / "run" / "costs.json").read_text())["steps"] == 2
