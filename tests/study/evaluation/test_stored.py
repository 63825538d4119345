"""A journal that an earlier version wrote is taken up, not refused and not written again."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from nabla.study.evaluation.config import EvaluationConfig
from nabla.study.evaluation.journal import RECORDS, read
from nabla.study.evaluation.lines import reproducible
from nabla.study.evaluation.runner import ABOUT, Evaluation
from nabla.study.evaluation.stored import TABLE, read_results
from nabla.study.evaluation.summary import metric_of
from tests.golden.record import processor

STORED = Path(__file__).parent / "stored"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The stored results as if written with today's torch and transformers: those may well differ."""
    found = tmp_path / "results"
    shutil.copytree(STORED, found, ignore=shutil.ignore_patterns("*.yaml"))
    about = json.loads((found / ABOUT).read_text(encoding="utf-8"))
    about["versions"] = {package: version(package) for package in about["versions"]}
    (found / ABOUT).write_text(json.dumps(about), encoding="utf-8")
    return found


def test_a_journal_of_the_version_before_resumes(folder: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    config = EvaluationConfig.load(STORED / "evaluation.yaml")
    before = (folder / "journal-0.jsonl").read_text(encoding="utf-8").splitlines()
    kept = [json.loads(line) for line in before if not line.startswith('{"unit":')]
    solved = []
    Evaluation(config, folder, progress=lambda done, total, unit, _: solved.append((done, total))).run()
    assert solved == [(4, 6), (5, 6), (6, 6)]  # three units stood in the journal
    rows = list(read(folder))
    assert rows[: len(kept)] == kept
    if json.loads((STORED.parents[2] / "golden" / "passes.json").read_text())["processor"] != processor():
        return  # another processor rounds otherwise
    unbroken = tmp_path / "unbroken"
    Evaluation(config, unbroken).run()
    assert (unbroken / RECORDS).exists()
    known = [reproducible(row) for row in kept]  # from before critical paths were counted
    for stored, fresh in zip(map(reproducible, rows), map(reproducible, read(unbroken)), strict=True):
        assert stored is not None
        assert fresh is not None
        if stored in known:
            fresh = _without(fresh, "critical_steps")
        if stored not in known:
            assert fresh == stored
        elif stored["kind"] == "run" and stored["method"] != "best-of-n":
            _assert_shorter(fresh, stored)
        else:  # rewards round in their batches, and those are cut otherwise now
            assert fresh["reward"] == pytest.approx(stored["reward"], abs=1e-5)
            assert {**fresh, "reward": None} == {**stored, "reward": None}


@pytest.mark.parametrize("mean", ["0.25", ""])
def test_means_of_rewards_are_called_so_whatever_was_measured(tmp_path: Path, mean: str) -> None:
    """``nabla evaluate --report FOLDER --metric reward`` of an evaluation with a function of its own."""
    config = {"tasks": {"t": {}}, "methods": {"m": {}}, "seeds": [0], "metric": "package.module:length"}
    (tmp_path / ABOUT).write_text(json.dumps({"config": config}), encoding="utf-8")
    head = "task,unit,value,method,problems,mean,low,high,measured,accuracy,best,answered,reward"

    def read_back(reward: str) -> str:
        one, two = "t,calls,5,m,2,0.5,0.1,0.9,1,0.5,False,1.0,0.5", f"t,calls,9,m,2,{mean},,,1,0.5,False,1.0,"
        (tmp_path / TABLE).write_text(f"{head}\n{one}\n{two}{reward}\n", encoding="utf-8")
        return str(metric_of(read_results(tmp_path)[1]).noun)

    assert read_back(mean) == "reward"
    assert read_back("7.5") == ("length" if mean else "reward")


def _without(value: Any, name: str) -> Any:
    """Without a key, wherever it stands."""
    if not isinstance(value, dict):
        return value
    return {key: _without(part, name) for key, part in value.items() if key != name}


def _assert_shorter(run: dict[str, Any], stored: dict[str, Any]) -> None:
    """A sweep ran to its end, then; now it is the same run up to the proposal that exceeds the budget."""
    same = ("task", "method", "seed", "problem", "first", "error")
    assert {key: run[key] for key in same} == {key: stored[key] for key in same}
    for new, old in zip(run["revisions"], stored["revisions"], strict=False):
        assert new == pytest.approx(old, abs=1e-5)
    assert len(run["revisions"]) <= len(stored["revisions"])
    assert run["answers"] <= stored["answers"]
    assert run["cost"]["calls"] >= 50
    assert all(stored["cost"][unit] >= spent for unit, spent in run["cost"].items())
