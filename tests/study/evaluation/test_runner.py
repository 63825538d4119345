"""Evaluations that run: resuming, folders, processes, errors."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from nabla.core.errors import ConfigError, NumericalError
from nabla.study.evaluation.claim import LOCK
from nabla.study.evaluation.journal import RECORDS, Lock, journals, read, units
from nabla.study.evaluation.lines import reproducible
from nabla.study.evaluation.runner import ABOUT, Evaluation
from nabla.study.evaluation.unfinished import FOLDER
from tests.study.evaluation.small import VALUES, small

ROOT = Path(__file__).parents[3]


def lines(folder: Path) -> list[str]:
    """The records without what a clock decided, byte for byte."""
    return [json.dumps(found) for row in read(folder) if (found := reproducible(row)) is not None]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "unbroken"
    Evaluation(small(), folder).run()
    return folder


def test_every_problem_method_seed_and_budget_has_its_record_in_order(unbroken):
    evaluation = Evaluation(small(), unbroken)
    expected = [
        ("squares", method, seed, problem.id, unit, value)
        for method in VALUES["methods"]
        for seed in (0, 1)
        for problem in evaluation.problems["squares"]
        for unit, value in [(None, None), ("calls", 50.0), ("calls", 100.0)]
    ]
    names = ("task", "method", "seed", "problem", "unit", "value")
    assert [tuple(row.get(name) for name in names) for row in read(unbroken)] == expected
    assert journals(unbroken) == []


def test_records_say_the_truth(unbroken):
    from nabla.problems.sandbox import TASKS

    prompts = {p.id: p.prompt for p in TASKS["latin"].problems("test", 4, 0)}
    found = list(read(unbroken))
    for row in found:
        right = row["response"] is not None and TASKS["latin"].check(prompts[row["problem"]], row["response"])
        assert row["correct"] == right
        if row["kind"] == "answer" and row["cost"] is not None:
            assert row["cost"]["calls"] <= row["value"]
    best = [row for row in found if row["method"] == "best" and row["kind"] == "run"]
    assert all(row["cost"]["calls"] >= 100 for row in best)  # it ran until the largest budget
    assert {row["response"] for row in best if row["seed"] == 0} != {
        row["response"] for row in best if row["seed"] == 1
    }


def test_running_a_complete_folder_again_changes_nothing(unbroken):
    before = (unbroken / RECORDS).read_bytes()
    Evaluation(small(), unbroken).run()
    assert (unbroken / RECORDS).read_bytes() == before


def test_a_run_that_fails_half_way_goes_on(unbroken, tmp_path, monkeypatch):
    calls = []
    real = Evaluation._solve

    def failing(self, unit, workshop):
        calls.append(unit.key)
        if len(calls) == 4:
            raise MemoryError
        return real(self, unit, workshop)

    monkeypatch.setattr(Evaluation, "_solve", failing)
    with pytest.raises(MemoryError):
        Evaluation(small(), tmp_path / "r").run()
    with (tmp_path / "r" / "journal-0.jsonl").open("ab") as file:
        file.write(b'{"task":"squ')
    Evaluation(small(), tmp_path / "r").run()
    assert len(calls) == 4 + 8 - 3  # three units were kept
    assert lines(tmp_path / "r") == lines(unbroken)


def test_another_configuration_touches_nothing(unbroken):
    before = {path.name: path.read_bytes() for path in unbroken.iterdir()}
    with pytest.raises(ConfigError, match=r"another configuration; config\.problems: 4 there, 3 here"):
        Evaluation(small(problems=3), unbroken).run()
    assert {path.name: path.read_bytes() for path in unbroken.iterdir()} == before


def test_a_run_that_the_disk_refused_holds_its_folder_no_longer(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("nabla.study.evaluation.claim.replace_whole", full)
    with pytest.raises(ConfigError, match="cannot be written: No space left") as kept:
        Evaluation(small(), tmp_path / "r").run()
    with Lock(tmp_path / "r" / LOCK):  # although the error, and its frames, are still there
        assert kept.tb is not None


def test_an_offset_skips_the_first_problems(tmp_path):
    first = Evaluation(small(problems=5), tmp_path).problems["squares"]
    assert Evaluation(small(problems=2, offset=3), tmp_path).problems["squares"] == first[3:]


def test_an_offset_behind_the_last_problem_is_refused(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"prompt": "1+1", "answer": "2"}) + "\n")
    task = {**VALUES["tasks"]["squares"], "task": {"name": "jsonl", "path": str(path)}}
    with pytest.raises(ConfigError, match="after the first 5"):
        Evaluation(small(tasks={"squares": task}, problems=None, offset=5), tmp_path)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="something else"):
        Evaluation(small(), tmp_path).run()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(ConfigError, match="something else"):
        Evaluation(small(), tmp_path / "thesis.tex").run()


@pytest.mark.parametrize("text", ["{", "[]", "null", "5"])
def test_damaged_descriptions_are_refused(text, tmp_path):
    (tmp_path / ABOUT).write_text(text)
    with pytest.raises(ConfigError, match="damaged"):
        Evaluation(small(), tmp_path).run()


def test_one_run_at_a_time(tmp_path):
    with Lock(tmp_path / LOCK), pytest.raises(ConfigError, match="Another process"):
        Evaluation(small(), tmp_path).run()


def test_failing_problems_are_wrong_records_and_the_others_go_on(unbroken, tmp_path, monkeypatch):
    from nabla.methods.baselines.best_of_n import BestOfN

    evaluation = Evaluation(small(), tmp_path / "r")
    bad = evaluation.problems["squares"][1].id
    real = BestOfN.solve

    async def solve(self, session):
        if session.prompt.id == bad:
            await session.rollout(self.sampling)
            raise NumericalError("The reward is NaN")
        return await real(self, session)

    monkeypatch.setattr(BestOfN, "solve", solve)
    evaluation.run()
    found = list(read(tmp_path / "r"))
    assert len(found) == len(list(read(unbroken)))
    failed = [row for row in found if row["error"]]
    assert {(row["method"], row["problem"]) for row in failed} == {("best", bad)}
    assert len(failed) == 2 * 3
    assert all(not row["correct"] and row["response"] is None for row in failed)
    assert all(row["cost"]["calls"] > 0 for row in failed if row["kind"] == "run")
    from nabla.study.evaluation.results import Results
    from nabla.study.evaluation.summary import summarise

    summary = summarise(Results.load(tmp_path / "r"))
    row = next(r for r in summary["rows"] if r["method"] == "best")
    assert (row["problems"], row["failed"]) == (4, 2)  # in the denominator


def test_two_processes_give_the_records_of_one(unbroken, tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(VALUES, sort_keys=False))
    command = [
        *(sys.executable, "-m", "nabla", "evaluate", "--config", str(path)),
        *("--output", str(tmp_path / "r"), "--workers", "2"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}  # must not matter
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert lines(tmp_path / "r") == lines(unbroken)
    assert done.stdout.count("accuracy in % by budget in calls") == 1  # one of them prints


def test_two_processes_killed_within_their_units_go_on(tmp_path):
    path, folder = tmp_path / "small.yaml", tmp_path / "r"
    methods = {"best": {**VALUES["methods"]["best"], "n": 1}}
    values = {**VALUES, "methods": methods, "shard": 4, "problems": 12}
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    command = [
        *(sys.executable, "-m", "nabla", "evaluate", "--config", str(path)),
        *("--output", str(folder), "--workers", "2"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    where = {"env": environment, "cwd": tmp_path, "stderr": subprocess.PIPE, "text": True}
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, **where)
    while first.poll() is None and not _kept(folder):
        time.sleep(0.01)
    first.kill()
    first.communicate()
    kept = _kept(folder)
    for _ in range(30):  # the other process may still be at a problem: nobody writes beside it
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=200, **where)
        if "Another process is writing" not in done.stderr:
            break
        time.sleep(1)
    assert done.returncode == 0, done.stderr
    found = [row for row in read(folder) if row["kind"] == "run"]
    assert len(found) == len({(row["seed"], row["problem"]) for row in found}) == 24
    assert kept
    assert kept <= {(row["seed"], row["problem"], row["timing"]["seconds"]) for row in found}  # as they were
    assert not (folder / FOLDER).exists()


def _kept(folder: Path) -> set[tuple[int, str, float]]:
    """What of unfinished units is on disk."""
    parts = journals(folder / FOLDER)
    rows = [json.loads(line) for path in parts for _, data, _ in units(path) for line in data.splitlines()]
    return {(r["seed"], r["problem"], r["timing"]["seconds"]) for r in rows if r["kind"] == "run"}


def test_methods_that_cannot_run_are_refused_before_the_first_unit(tmp_path, monkeypatch):
    monkeypatch.setattr(Evaluation, "_solve", lambda *_: pytest.fail("solved"))
    with pytest.raises(ConfigError, match="ranks by reward"):
        Evaluation(small(methods={"a": {"name": "best-of-n", "rm": None}}), tmp_path / "r").run()
    with pytest.raises(ConfigError, match="workers"):
        Evaluation(small(), tmp_path / "r", workers=0)


def test_threads_are_set_and_put_back(tmp_path, monkeypatch):
    import torch

    seen = []
    real = Evaluation._solve
    monkeypatch.setattr(
        Evaluation, "_solve", lambda *a: (seen.append(torch.get_num_threads()), real(*a))[1]
    )
    before = torch.get_num_threads()
    config = small(methods={"g": VALUES["methods"]["greedy"]}, problems=1, seeds=[0], threads=2)
    Evaluation(config, tmp_path / "r").run()
    assert seen == [2]
    assert torch.get_num_threads() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_an_error_and_leaves_no_folder(tmp_path):
    with pytest.raises(ConfigError, match="cannot run on these devices"):
        Evaluation(small(accelerator="cuda"), tmp_path / "r").run()
    assert not (tmp_path / "r").exists()
