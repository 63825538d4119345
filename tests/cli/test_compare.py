"""``nabla compare``: problems of any task, and what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nabla.cli import main
from nabla.cli.compare_command import NAME, PROBLEMS, _problems, _stem
from nabla.core.errors import ConfigError
from nabla.core.solution import Interrupted
from nabla.problems.tasks.base import Problem, Task, check_range


class Counted(Task):
    """So many problems as told."""

    def __init__(self, size):
        self.size = size

    def problems(self, n=None, *, seed=None, offset=0):
        check_range(n, offset)
        if offset + (n or 1) > self.size:
            raise ConfigError(f"There are {self.size}")
        found = [Problem(str(i), str(i), str(i)) for i in range(self.size)]
        return found[offset:] if n is None else found[offset : offset + n]


@pytest.mark.parametrize(("size", "wanted", "expected"), [(3, None, 3), (300, None, PROBLEMS), (3, 2, 2)])
def test_all_problems_that_there_are(size, wanted, expected):
    assert len(_problems(Counted(size), wanted, 0)) == expected


def test_more_than_there_are_is_an_error_where_somebody_asked():
    with pytest.raises(ConfigError, match="There are 3"):
        _problems(Counted(3), 4, 0)


def test_a_missing_language_model_is_said_before_the_problems(capsys):
    assert main(["compare", "--task", "{name: jsonl, path: nowhere.jsonl}"]) == 2
    assert "There is no language model for this task" in capsys.readouterr().err


SMALL = ["compare", "--task", "arithmetic", "--problems", "2", "--accelerator", "cpu", "--output", "out"]


@pytest.fixture
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in Path("out", name).read_text().splitlines()]


@pytest.mark.usefixtures("_elsewhere")
def test_what_other_processes_solved_is_stored_too(monkeypatch, capsys):
    import nabla.study.evaluation.compare as compare

    real = compare.evaluate

    def shared(config, problems, *models, callbacks, folder):
        """Callbacks hear this process's share alone; the outcomes are everybody's."""
        own = real(config, problems[:1], *models, callbacks=callbacks, folder=folder)
        return own | real(config, problems[1:], *models, folder=folder)

    monkeypatch.setattr(compare, "evaluate", shared)
    assert main([*SMALL, "--methods", "[greedy]"]) == 0
    assert len({row["id"] for row in rows("arithmetic-greedy.jsonl")}) == 2
    assert rows("comparison.jsonl")[0]["problems"] == 2


def test_a_label_becomes_a_file_name_of_any_length():
    assert _stem("latin-best-of-n n=8 path=a/b") == "latin-best-of-n-n=8-path=a-b"
    labels = [f"latin-{'é' * 400}{end}" for end in "ab"]
    stems = {_stem(label) for label in labels}
    assert len(stems) == 2
    assert all(len(stem.encode()) <= NAME for stem in stems)


@pytest.mark.usefixtures("_elsewhere")
def test_a_method_with_many_arguments_keeps_its_solutions(capsys):
    sampling = {"temperature": 0.7, "top_p": 1.0, "top_k": 0, "max_new_tokens": 96}
    dto = {
        "steps": 1,
        "learning_rate": {"name": "cosine", "start": 0.01, "end": 0.001},
        "objective": {"name": "sum", "weights": {"reward": 1.0, "likelihood": 0.001}},
    }
    rest = {"selector": "entropy", "proposal": {"name": "sample", "temperature": 0.5}, "max_rollouts": 1}
    long = {"name": "nabla-reasoner", "sampling": sampling, "dto": dto, **rest}
    status = main([*SMALL, "--methods", json.dumps([long])])
    assert (status, capsys.readouterr().err.count("nabla: error")) == (0, 0)
    (path,) = Path("out").glob("arithmetic-nabla-reasoner*.jsonl")
    assert len(rows(path.name)) == 2
    assert json.loads(Path("out", "run.json").read_text())["status"] == "finished"


def test_no_method_is_not_the_usual_ones(capsys):
    assert main([*SMALL, "--methods", "[]"]) == 2
    assert "--methods names no method" in capsys.readouterr().err


@pytest.mark.usefixtures("_elsewhere")
def test_a_comparison_that_a_signal_ends_was_interrupted_and_keeps_what_it_has(monkeypatch, capsys):
    import nabla.study.evaluation.compare as compare

    real = compare.evaluate

    def stopped(config, problems, *models, callbacks, folder):
        """A signal came between a solution and its row."""
        solutions = real(config, problems[:1], *models, folder=folder).values()
        raise Interrupted([*solutions], 2) from KeyboardInterrupt()

    monkeypatch.setattr(compare, "evaluate", stopped)
    assert main([*SMALL, "--methods", "[greedy]"]) == 130
    assert json.loads(Path("out", "run.json").read_text())["status"] == "interrupted"
    assert len(rows("arithmetic-greedy.jsonl")) == 1
