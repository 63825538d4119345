"""The notebooks run from their first cell to their last, and are shown as they ran."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.site.blocks import ROOT

FOLDER = ROOT / "docs" / "notebooks"
NAMES = ("first_solve", "estimator", "ablation", "duality")


def test_there_are_four():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NAMES)


def test_they_are_shown_with_what_they_printed_and_nothing_of_a_machine():
    nbformat = pytest.importorskip("nbformat")
    for name in NAMES:
        notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert all(cell.execution_count for cell in cells), name
        assert sum(bool(cell.outputs) for cell in cells) >= len(cells) / 2, name
        text = (FOLDER / f"{name}.ipynb").read_text()
        marks = ("/home/", "/root/", "/work/", "/tmp/", "site-packages")
        assert not any(mark in text for mark in marks), name


def test_they_run():
    pytest.importorskip("nbmake")
    changed = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbmake", "--nbmake-timeout=120",
         "--rootdir", str(FOLDER), "-c", os.devnull, str(FOLDER)],
        env={**os.environ, **changed}, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
