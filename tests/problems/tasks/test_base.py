"""Tasks of others: what they give is looked at before anything is computed with it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from nabla.cli import main
from nabla.core.errors import ComponentError, NablaError
from nabla.problems.problem import Problem
from nabla.problems.tasks.base import Task, tasks
from nabla.study.evaluation.runner import Evaluation
from tests.study.evaluation.small import VALUES, small

SUMS = "28*6+68-71+94", "53*6-50+29-41"


def task(given=None, grade=None) -> Task:
    class Odd(Task):
        def problems(self, n=None, *, seed=None, offset=0):
            return [Problem(str(i), text) for i, text in enumerate(SUMS)] if given is None else given()

        def grade(self, problem, response):
            return True if grade is None else grade(response)

    return Odd()


@pytest.mark.parametrize(
    "given",
    [
        lambda: None,
        lambda: (Problem(str(i), "1") for i in itertools.count()),  # no end
        lambda: [5],
        lambda: ["28*6"],
        lambda: [Problem(5, "1")],  # type: ignore[arg-type]
        lambda: [Problem("a", None)],  # type: ignore[arg-type]
    ],
)
def test_problems_that_are_none(given):
    with pytest.raises(NablaError, match="problems"):
        task(given).chosen(1)


def fails(*_):
    raise KeyError("gone")


def ends(*_):
    raise SystemExit(0)


@pytest.mark.parametrize("fault", [fails, ends])
def test_a_task_that_fails_is_named(fault):
    with pytest.raises(ComponentError, match="problems of the task 'Odd'"):
        task(fault).chosen(1)
    with pytest.raises(ComponentError, match=r"grader of the task 'Odd' failed .*got 'problem a'"):
        task(grade=fault).verdicts([(Problem("a", "1"), "2")])


@pytest.mark.parametrize("answer", [None, 1, "no", 0.5])
def test_a_verdict_is_true_or_false(answer):
    with pytest.raises(NablaError, match="grader of the task 'Odd'"):
        task(grade=lambda _: answer).verdicts([(Problem("a", "1"), "2")])


@pytest.fixture
def odd(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def put(**parts):
        made = task(**parts)
        monkeypatch.setitem(tasks._classes, "odd", lambda: made)

    return put


def test_solve_keeps_what_a_grader_cannot_grade(odd, capsys):
    odd(grade=fails)
    models = ["--lm", "sandbox:arithmetic-policy", "--accelerator", "cpu", "--method", "greedy"]
    assert main(["solve", "--task", "odd", "--problems", "2", "--output", "out", *models]) == 0
    said = capsys.readouterr()
    assert "The grader of the task" in said.err
    assert "not graded" in said.out
    assert "0 of 2 right" in said.out
    rows = [json.loads(line) for line in Path("out/solutions.jsonl").read_text().splitlines()]
    assert [row["correct"] for row in rows] == [None, None]
    assert all(row["response"] for row in rows)


def test_an_evaluation_ends_with_a_message_and_goes_on_when_the_grader_is_mended(odd, tmp_path):
    values = {
        **VALUES["tasks"]["squares"],
        "task": "odd",
        "lm": "sandbox:arithmetic-policy",
        "rewards": {"r": "sandbox:arithmetic-reward"},
    }
    changed = {
        "tasks": {"sums": values}, "seeds": [0], "shard": 1, "problems": 2, "methods": {"greedy": "greedy"},
        "shared": {},
    }  # fmt: skip
    count = itertools.count()
    odd(grade=lambda _: True if next(count) == 0 else fails())
    with pytest.raises(ComponentError, match="run again"):
        Evaluation(small(**changed), tmp_path / "r").run()
    assert (tmp_path / "r" / "journal-0.jsonl").stat().st_size > 0  # the first problem's unit
    odd()
    Evaluation(small(**changed), tmp_path / "r").run()
    assert (tmp_path / "r" / "records.jsonl").exists()
