"""Kills at random moments lose nothing, repeat nothing, change nothing (``make kill``: fifty of them)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("door", ["evaluate", "ablate", "solve"])
def test_killed_runs_end_like_unbroken_ones(door):
    command = [sys.executable, "-m", "tests.kills", door, "--kills", "5", "--problems", "12"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert re.match(rf"{door}: 5 kills, [1-4] of them in a write, over 12 problems; [1-9]", done.stdout)
