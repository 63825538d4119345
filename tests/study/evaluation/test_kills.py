"""Fifty kills at random moments lose nothing, repeat nothing and change nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from nabla.study.evaluation.journal import journals, line, read
from nabla.study.evaluation.lines import reproducible

ROOT = Path(__file__).parents[3]
KILLS = 50


def stripped(folder: Path) -> bytes:
    return b"".join(line(found) for row in read(folder) if (found := reproducible(row)) is not None)


def test_killed_runs_end_like_unbroken_ones(tmp_path):
    command = [sys.executable, "-m", "tests.study.evaluation.kills", str(tmp_path), str(KILLS), "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    kills, torn, finished = map(int, done.stdout.split())
    assert kills == KILLS
    assert 0 < torn < kills  # both kinds
    expected = stripped(tmp_path / "unbroken")
    assert expected.count(b"\n") == 2 * 2 * 2 * 3
    for number in range(finished):
        folder = tmp_path / f"killed-{number}"
        assert stripped(folder) == expected
        assert journals(folder) == []
