"""The published benchmarks: gold against gold on the real files, and loading through ``datasets``."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from nabla.core.errors import ConfigError
from nabla.problems.answers.math import _number, _tidy
from nabla.problems.answers.process import grading
from nabla.problems.tasks.base import tasks

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
FILES = {
    "gsm8k": ("gsm8k_test.jsonl", 1319),
    "math500": ("math500.jsonl", 500),
    "aime24": ("aime24.jsonl", 30),
    "amc23": ("amc23.jsonl", 40),
}

#: Solution texts whose own answer is not found, with the reason. Gold answers have no exception.
SOLUTION_EXCEPTIONS = {
    "aime24-60": "the text has no box and names no answer, its last line is a computation",
}


def benchmark(name):
    path = DATA / FILES[name][0]
    if not path.exists():
        pytest.skip(f"the benchmark file {FILES[name][0]} is not on this machine")
    return tasks.build({"name": name, "path": str(path)})


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "So it is $\\boxed{{{}}}$.",
        "Not \\boxed{{0}} but \\boxed{{{}}}",
        "2 steps.\nThe answer is ${}$.",
        "2 steps.\n#### {}",
    ],
)
def test_gold_against_gold_is_all_right(name, form):
    task = benchmark(name)
    problems = task.problems()
    assert len(problems) == FILES[name][1]
    verdicts = task.grade_all([(p, form.format(p.gold)) for p in problems])
    assert [p.id for p, right in zip(problems, verdicts, strict=True) if not right] == []


def test_math_verify_itself_reads_every_gold_answer():
    """Without the short cuts for equal texts and plain numbers."""
    golds = {_tidy(p.gold) for name in FILES for p in benchmark(name).problems()}
    formulas = sorted(gold for gold in golds if _number(gold) is None)
    assert len(formulas) > 150
    wrong = [gold for gold in formulas if grading.ask({"left": gold, "right": gold}, 5) is not True]
    grading.close()
    assert wrong == []


@pytest.mark.parametrize("name", ["gsm8k", "math500", "aime24"])
def test_gold_solutions_are_right(name):
    task = benchmark(name)
    solutions = {}
    for row in map(json.loads, (DATA / FILES[name][0]).read_text().splitlines()):
        key = next(row[field] for field in task.id_fields if field in row)
        solutions[f"{name}-{key}"] = row["answer" if name == "gsm8k" else "solution"]
    problems = task.problems()
    verdicts = task.grade_all([(p, solutions[p.id]) for p in problems])
    wrong = {p.id for p, right in zip(problems, verdicts, strict=True) if not right}
    assert wrong == {key for key in SOLUTION_EXCEPTIONS if key.startswith(name)}


@pytest.mark.parametrize("name", FILES)
def test_another_problems_gold_answer_passes_only_if_it_is_the_same_number(name):
    task = benchmark(name)
    problems = task.problems()
    pairs = list(zip(problems, [*problems[1:], problems[0]], strict=True))
    verdicts = task.grade_all([(p, f"\\boxed{{{q.gold}}}") for p, q in pairs])
    passed = {(p.gold, q.gold) for (p, q), right in zip(pairs, verdicts, strict=True) if right}
    plain = {(a, b) for a, b in passed if _number(a) is not None and _number(b) is not None}
    assert all(float(a) == float(b) for a, b in plain)
    assert {(a, b) for a, b in passed - plain if a != b} <= {("5", "x=5")}
    assert len([right for right in verdicts if right]) < 0.1 * len(verdicts)


def rows(tmp_path, name, records):
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def test_the_prompt_asks_for_a_boxed_answer_and_metadata_is_kept(tmp_path):
    path = rows(tmp_path, "m", [{"problem": "What is {x}?", "answer": "1", "unique_id": "a/1", "level": 3}])
    (problem,) = tasks.build({"name": "math500", "path": str(path)}).problems()
    assert problem.id == "math500-a/1"
    assert problem.prompt.startswith("What is {x}?\n")
    assert "\\boxed{}" in problem.prompt
    assert problem.metadata == {"level": 3}
    task = tasks.build({"name": "math500", "path": str(path), "template": "Q: {problem}\nA:"})
    assert task.problems()[0].prompt == "Q: What is {x}?\nA:"


def test_numbers_may_be_gold_answers(tmp_path):
    records = [{"id": i, "question": "q", "answer": a} for i, a in enumerate([27.0, 3, -0.5, "025"])]
    problems = tasks.build({"name": "amc23", "path": str(rows(tmp_path, "a", records))}).problems()
    assert [p.gold for p in problems] == ["27", "3", "-0.5", "025"]


@pytest.mark.parametrize("answer", ["no mark", "text\n####  "])
def test_gsm8k_needs_its_mark(tmp_path, answer):
    path = rows(tmp_path, "g", [{"question": "q", "answer": text} for text in ("#### 1,000", answer)])
    with pytest.raises(ConfigError, match=r"g.jsonl, line 2 has no answer after '####'"):
        tasks.build({"name": "gsm8k", "path": str(path)}).problems()


def test_a_template_needs_a_place():
    with pytest.raises(ConfigError, match=r"\{problem\}"):
        tasks.build({"name": "aime25", "template": "Solve it."})


@pytest.fixture
def cache(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield datasets
    datasets.enable_progress_bars()


def test_a_folder_that_datasets_can_load(tmp_path, cache):
    folder = tmp_path / "local"
    folder.mkdir()
    made = cache.Dataset.from_list([{"problem": f"p{i}", "answer": str(i), "id": i} for i in range(3)])
    made.to_parquet(folder / "test-00000-of-00001.parquet")
    task = tasks.build({"name": "aime25", "dataset": str(folder)})
    assert [(p.id, p.gold) for p in task.problems()] == [(f"aime25-{i}", str(i)) for i in range(3)]
    with pytest.raises(ConfigError, match="cannot be loaded"):
        tasks.build({"name": "aime25", "dataset": str(folder), "split": "nonsense"}).problems()


def test_missing_values_of_a_dataset_name_the_row(tmp_path, cache):
    folder = tmp_path / "local"
    folder.mkdir()
    made = cache.Dataset.from_list([{"problem": "p", "answer": "1"}, {"problem": "p", "answer": None}])
    made.to_parquet(folder / "test-00000-of-00001.parquet")
    with pytest.raises(ConfigError, match=r"row 1 has no answer"):
        tasks.build({"name": "aime25", "dataset": str(folder)}).problems()


def test_a_dataset_out_of_reach_is_a_clear_error(cache, caplog):
    caplog.set_level(logging.CRITICAL)
    with pytest.raises(ConfigError, match=r"cannot be loaded.*path="):
        tasks.build("aime25").problems()
