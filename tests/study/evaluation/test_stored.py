"""A journal that an earlier version wrote is taken up, not refused and not written again."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from nabla.study.evaluation.config import EvaluationConfig
from nabla.study.evaluation.journal import RECORDS, read
from nabla.study.evaluation.lines import reproducible
from nabla.study.evaluation.runner import ABOUT, Evaluation
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
    assert [reproducible(row) for row in rows] == [reproducible(row) for row in read(unbroken)]
