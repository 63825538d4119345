"""Ablations that run: resuming, folders, processes, reports."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from nabla.core.errors import ConfigError
from nabla.launch.fingerprint import LATER
from nabla.study.ablation.config import Point
from nabla.study.ablation.report import write_report
from nabla.study.ablation.results import DESIGN, Study
from nabla.study.ablation.runner import ABOUT, POINTS, Ablation, _name
from nabla.study.ablation.search import STUDY
from nabla.study.evaluation.claim import LOCK
from nabla.study.evaluation.journal import Lock, read
from nabla.study.evaluation.lines import reproducible
from nabla.study.evaluation.runner import Evaluation
from tests.study.ablation.small import small, values

ROOT = Path(__file__).parents[3]


def records(folder: Path) -> dict[str, list[str]]:
    """By point: the records without what a clock decided, byte for byte."""
    return {
        point.name: [json.dumps(reproducible(row)) for row in read(point)]
        for point in sorted((folder / POINTS).iterdir())
    }


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "unbroken"
    Ablation(small(), folder).run()
    return folder


def test_a_point_keeps_its_folder_when_the_engine_gets_an_argument():
    point = Point({"factor": "a"}, small().base)
    engine = {k: v for k, v in point.config.resolved()["engine"].items() if f"engine.{k}" not in LATER}
    text = json.dumps({**point.config.resolved(), "engine": engine}, sort_keys=True, default=str)
    assert _name(point) == f"a-{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}"  # of before
    changed = replace(point.config, engine={**point.config.engine, "continuous": False})
    assert _name(Point({"factor": "a"}, changed)) != _name(point)


def test_every_point_is_run_on_the_same_problems_and_seeds(unbroken):
    found = Study.load(unbroken)
    assert (found.complete, found.grid, len(found.points)) == (True, True, 4)
    assert found.reference.label == "nabla-reasoner, sample"
    rows = [json.loads(line) for lines in records(unbroken).values() for line in lines]
    assert {row["kind"] for row in rows} == {"run"}
    assert len(rows) == 4 * 3
    assert len({(row["problem"], row["seed"]) for row in rows}) == 3


def test_optuna_reads_the_points(unbroken):
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(unbroken / STUDY)))
    trials = optuna.load_study(study_name="ablation", storage=storage).trials
    design = json.loads((unbroken / DESIGN).read_text())
    assert [trial.params for trial in trials] == [point["levels"] for point in design["points"]]
    means = [point.outcomes["squares"].correct[None].mean() for point in Study.load(unbroken).points]
    assert [trial.value for trial in trials] == pytest.approx(means)


def test_running_a_complete_folder_again_solves_nothing(unbroken, monkeypatch):
    before = records(unbroken)
    monkeypatch.setattr(Evaluation, "_solve", lambda *_: pytest.fail("solved"))
    Ablation(small(), unbroken).run()
    assert records(unbroken) == before


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
        Ablation(small(), tmp_path / "r").run()
    assert len(Study.load(tmp_path / "r").points) == 1
    assert not Study.load(tmp_path / "r").complete
    Ablation(small(), tmp_path / "r").run()
    assert len(calls) == 4 + 8 - 3  # three units were kept
    assert records(tmp_path / "r") == records(unbroken)


def test_two_processes_killed_and_started_again_give_the_records_of_one(unbroken, tmp_path):
    path, folder = tmp_path / "small.yaml", tmp_path / "r"
    path.write_text(yaml.safe_dump(values(), sort_keys=False, allow_unicode=True))
    command = [sys.executable, "-m", "nabla", "ablate", str(path), "--output", str(folder), "--workers", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while first.poll() is None and not list(folder.glob(f"{POINTS}/*/journal-*.jsonl")):
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert records(folder) == records(unbroken)
    assert json.loads((folder / DESIGN).read_text()) == json.loads((unbroken / DESIGN).read_text())
    assert "4/4 revision, argmax: squares" in done.stderr


def test_another_ablation_touches_nothing(unbroken):
    before = {path.name: path.read_bytes() for path in unbroken.iterdir() if path.is_file()}
    with pytest.raises(ConfigError, match=r"another ablation; ablation\.factors"):
        Ablation(small(factors={"method.dto.steps": [2, 3]}), unbroken).run()
    assert {path.name: path.read_bytes() for path in unbroken.iterdir() if path.is_file()} == before


def test_folders_that_cannot_be_used(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="something else"):
        Ablation(small(), tmp_path).run()
    with pytest.raises(ConfigError, match="something else"):
        Ablation(small(), tmp_path / "thesis.tex").run()
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / ABOUT).write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        Ablation(small(), damaged).run()
    busy = tmp_path / "busy"
    busy.mkdir()
    with Lock(busy / LOCK), pytest.raises(ConfigError, match="Another process"):
        Ablation(small(), busy).run()
    with pytest.raises(ConfigError, match="workers"):
        Ablation(small(), tmp_path / "r", workers=0)
    with pytest.raises(ConfigError, match="no results"):
        Study.load(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "x"


def test_a_search_solves_equal_points_once_and_reports_halves(tmp_path):
    config = small(
        factors={
            "method.dto.steps": {"low": 1, "high": 2, "int": True},
            "method.proposal": ["sample", "argmax"],
        },
        sampler="tpe", trials=6, batch=3,
    ).quickened()  # fmt: skip
    Ablation(config, tmp_path / "r").run()
    design = json.loads((tmp_path / "r" / DESIGN).read_text())
    folders = [point["folder"] for point in design["points"]]
    assert len(folders) == 6 > len(set(folders)) == len(list((tmp_path / "r" / POINTS).iterdir()))
    summary = write_report(tmp_path / "r")
    assert (summary["complete"], summary["grid"]) == (True, False)
    assert len(summary["points"]) == len(set(folders))


def test_under_budgets_the_answers_within_them_count(tmp_path):
    base = {**values()["base"], "budgets": {"calls": [60, 120]}, "problems": 1}
    config = small(base=base, factors={"method": ["revision", "nabla-reasoner"]})
    Ablation(config, tmp_path / "r").run()
    summary = write_report(tmp_path / "r")
    assert [(r["unit"], r["value"]) for r in summary["points"]] == [("calls", 60), ("calls", 60)] + [
        ("calls", 120)
    ] * 2
    assert all(r["calls"] >= 120 for r in summary["points"])
    assert "within 120 calls" in (tmp_path / "r" / "tables.md").read_text()


def test_the_report_is_whole_and_follows_from_the_records(unbroken):
    summary = write_report(unbroken)
    assert len(summary["effects"]) == 2
    assert len(summary["interactions"]) == 1
    names = {path.name for path in unbroken.iterdir()}
    assert {"points.csv", "effects.csv", "interactions.csv", "tables.md", "tables.tex"} <= names
    assert {"effects.png", "cost.png", "heat_map.png", "summary.json"} <= names
    with (unbroken / "points.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["nabla-reasoner"] * 2 + ["revision"] * 2
    assert float(rows[0]["flops"]) > float(rows[2]["flops"]) > 0
    text = (unbroken / "tables.md").read_text()
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 3
    assert all(len({line.count("|") for line in block}) == 1 for block in blocks)
    latex = (unbroken / "tables.tex").read_text()
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 3
    assert "×" not in latex


def test_points_are_measured_by_a_reward(tmp_path):
    """Answers of points with another reward model, too, are measured by the task's first."""
    base = {**values()["base"], "problems": 1, "metric": "reward"}
    told = []
    config = small(base=base, factors={"method.rm": ["good", "bad"]})
    Ablation(config, tmp_path / "r", progress=lambda *args: told.append(args[3])).run()
    rows = [row for point in sorted((tmp_path / "r" / POINTS).iterdir()) for row in read(point)]
    assert len(rows) == 2
    by_rm = {folder.name[:3]: next(read(folder)) for folder in (tmp_path / "r" / POINTS).iterdir()}
    assert by_rm["goo"]["metric"] == by_rm["goo"]["reward"]
    assert by_rm["bad"]["metric"] != by_rm["bad"]["reward"]
    assert told == [{"squares": by_rm["goo"]["metric"]}, {"squares": by_rm["bad"]["metric"]}]
    summary = write_report(tmp_path / "r")
    assert summary["metric"] == "reward"
    assert [row["mean"] for row in summary["points"]] == [by_rm[name]["metric"] for name in ("goo", "bad")]
    assert "mean" in (tmp_path / "r" / "points.csv").read_text().splitlines()[0].split(",")
