"""How far a run is, read from its folder: finished problems, those in flight, units of other processes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from nabla.core.display import rendered
from nabla.study.evaluation import pulse
from nabla.study.evaluation.journal import RECORDS, Journal, merge
from nabla.study.evaluation.metric import Metric
from nabla.study.evaluation.monitor import Monitor
from nabla.study.evaluation.runner import Evaluation
from nabla.study.evaluation.unfinished import FOLDER, Unfinished, forget, pulse_path
from tests.study.evaluation.small import VALUES, small


def row(problem: int, method: str = "m", *, correct=True, reward=2.0, seconds=3.0) -> dict:
    labels = {"task": "t", "method": method, "seed": 0, "problem": str(problem), "kind": "run"}
    return {**labels, "correct": correct, "reward": reward, "timing": {"seconds": seconds}}


def beat(folder: Path, index: int, **changes) -> None:
    state = {"unit": ["t", "m", 0, index], "problems": 4, "kept": 0, "done": 0, "flying": 0.0, "reward": None,
             "begun": time.time() - 60}  # fmt: skip
    pulse_path(folder / FOLDER, index).write_text(json.dumps({**state, **changes}))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / FOLDER).mkdir()
    return tmp_path


def test_nothing_is_told_before_something_is_known(tmp_path):
    monitor = Monitor(tmp_path / "not yet", {("t", "m"): 8}, 2)
    assert monitor.lines() == []


def test_a_unit_in_which_nothing_is_done_yet_tells_by_what_was_spent(folder):
    beat(folder, 0, flying=2.0, reward=1.5)
    unit, whole = Monitor(folder, {("t", "m"): 8}, 2).lines()
    assert unit.written().startswith("t m seed 0 shard 0: 0/4 problems, 2.0 problems/min, ")
    assert unit.notes == ("reward 1.5 so far",)
    assert unit.left == pytest.approx(60, rel=0.2)  # half took a minute
    assert unit.share == 0.5
    assert whole.left == pytest.approx(180, rel=0.2)
    assert (whole.done, whole.total, whole.notes) == (0, 8, ("0/2 units",))


@pytest.mark.parametrize(
    ("metric", "notes"),
    [
        ("answer", ("50.0 % right", "reward 2")),
        ("reward", ("reward 7",)),
        ("some.module:length", ("length 7", "reward 2")),
    ],
)
def test_a_unit_tells_what_answers_are_measured_by(folder, metric, notes):
    beat(folder, 0, done=2)
    book = Journal(folder, 3)
    rows = [{**row(i, correct=i == 0), **({} if metric == "answer" else {"metric": 7.0})} for i in range(2)]
    book.append(("t", "m", 0, 0), rows)
    book.close()
    unit, _ = Monitor(folder, {("t", "m"): 8}, 2, metric=Metric(metric)).lines()
    assert unit.notes == notes


def test_finished_problems_count_whoever_solved_them_and_once(folder):
    monitor = Monitor(folder, {("t", "m"): 8}, 2)
    beat(folder, 1)
    monitor.lines()
    book = Journal(folder, 3)  # of another process
    book.append(("t", "m", 0, 0), [row(i) for i in range(4)])
    with Unfinished(folder, 1, ("t", "m", 0, 1), 4) as kept:
        kept.add("4", [row(4, correct=False, reward=None)])
        beat(folder, 1, done=1, flying=0.5)
        unit, whole = monitor.lines()
        assert unit.notes == ("80.0 % right", "reward 2")
        assert (unit.done, whole.done, whole.made, whole.notes) == (1, 5, 5.5, ("1/2 units",))
        assert whole.left == pytest.approx(60 * 2.5 / 5.5, rel=0.2)
        kept.add("5", [row(5)])
    rows = [row(i) for i in (4, 5, 6, 7)]
    book.append(("t", "m", 0, 1), rows)
    book.close()
    forget(folder, 1)
    (whole,) = monitor.lines()
    assert (whole.done, whole.left, whole.notes) == (8, 0.0, ("2/2 units",))
    assert not list((folder / FOLDER).iterdir())


def test_what_was_there_before_is_done_but_not_this_runs_pace(folder):
    book = Journal(folder, 0)
    book.append(("t", "m", 0, 0), [row(i) for i in range(4)])
    monitor = Monitor(folder, {("t", "m"): 8}, 2)
    beat(folder, 1, flying=2.0)
    _, whole = monitor.lines()
    assert (whole.done, whole.made) == (4, 2.0)
    assert whole.left == pytest.approx(60, rel=0.2)
    book.close()


def test_a_dear_method_that_is_to_come_is_counted_at_its_own_price(folder):
    totals = {("t", "cheap"): 4, ("t", "dear"): 4}
    book = Journal(folder, 0)
    book.append(("t", "dear", 1, 0), [row(0, "dear", seconds=30)])
    monitor = Monitor(folder, totals, 3)
    beat(folder, 0, unit=["t", "cheap", 0, 0])
    monitor.lines()
    book.append(("t", "cheap", 0, 0), [row(i, "cheap", seconds=10) for i in range(4)])
    book.close()
    _, whole = monitor.lines()
    assert whole.left == pytest.approx(60 / 40 * 90, rel=0.2)  # three dear ones


def test_signs_of_a_run_that_was_killed_are_not_this_ones(folder):
    beat(folder, 0, flying=3.0)
    path = pulse_path(folder / FOLDER, 0)
    os.utime(path, (time.time() - 100,) * 2)
    assert Monitor(folder, {("t", "m"): 8}, 2).lines() == []


def test_a_damaged_or_half_written_file_stops_nothing(folder):
    beat(folder, 0)
    pulse_path(folder / FOLDER, 1).write_text('{"unit')
    (folder / "journal-0.jsonl").write_bytes(b'{"unit":["t"],"lines":7}\n')
    (folder / "journal-1.jsonl").write_bytes(b'{"task":"t","kind":"run"')
    assert len(Monitor(folder, {("t", "m"): 8}, 2).lines()) == 2


def test_an_ablations_points_are_told_together(tmp_path):
    for name in ("first-0123", "second-4567"):
        (tmp_path / name / FOLDER).mkdir(parents=True)
        beat(tmp_path / name, 0, flying=1.0)
    first, second, whole = Monitor(tmp_path, {("t", "m"): 8}, 2, points="*").lines()
    assert (first.name, second.name) == ("first: t m seed 0 shard 0", "second: t m seed 0 shard 0")
    assert whole.flying == 2.0


def test_points_that_ended_are_counted_though_their_journals_are_gone(tmp_path):
    for name in ("first-0123", "second-4567", "third-89ab"):
        (tmp_path / name / FOLDER).mkdir(parents=True)
    before = "".join(json.dumps(row(i), separators=(",", ":")) + "\n" for i in range(4))
    (tmp_path / "first-0123" / RECORDS).write_text(before)  # of an earlier run
    monitor = Monitor(tmp_path, {("t", "m"): 12}, 6, points="*", each=2)
    beat(tmp_path / "second-4567", 0)
    assert monitor.lines()[-1].notes == ("2/6 units",)
    book = Journal(tmp_path / "second-4567", 0)
    book.append(("t", "m", 0, 0), [row(i) for i in range(2)])
    assert (monitor.lines()[-1].done, monitor.lines()[-1].notes) == (6, ("3/6 units",))
    book.append(("t", "m", 0, 1), [row(i) for i in (2, 3)])
    book.close()
    merge(tmp_path / "second-4567", [("t", "m", 0, 0), ("t", "m", 0, 1)])  # between two looks
    forget(tmp_path / "second-4567", 0)
    beat(tmp_path / "third-89ab", 0)
    for _ in range(2):
        whole = monitor.lines()[-1]
        assert (whole.done, whole.made, whole.notes) == (8, 4.0, ("4/6 units",))


def test_an_evaluation_tells_while_its_unit_works(tmp_path, monkeypatch):
    monkeypatch.setattr(pulse, "EVERY", 0.0)
    methods = {"best": {**VALUES["methods"]["best"], "n": 1}}
    evaluation = Evaluation(small(methods=methods, seeds=[0], shard=4), tmp_path / "r")
    monitor = evaluation.monitor()
    seen, real = [], Evaluation._records

    def records(self, *arguments):
        seen.append(monitor.lines())
        return real(self, *arguments)

    monkeypatch.setattr(Evaluation, "_records", records)
    evaluation.run()
    assert [lines[-1].done for lines in seen] == [0, 1, 2, 3]
    assert all(len(lines) == 2 for lines in seen)
    assert all(0 < lines[0].done + lines[0].flying <= 4 for lines in seen)
    assert [lines[0].left is not None for lines in seen] == [True] * 4
    assert rendered(seen[-1], 80)
    assert not (tmp_path / "r" / FOLDER).exists()
