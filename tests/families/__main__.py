"""``python -m tests.families``: the whole sweep, and its table in ``docs/models.md``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.families.table import Row, put, table

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"


class Recorder:
    """A plug-in of pytest that collects the rows."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Of each test: its row, or that it was left out."""
        if report.skipped:
            self.skipped.append(report.nodeid)
        elif report.when == "call" and report.passed:
            self.rows += [Row(**value) for name, value in report.user_properties if name == "row"]


def main() -> int:
    """The exit code; the table is written where every test passed and none was skipped."""
    recorder = Recorder()
    folder = str(Path(__file__).parent)
    code = pytest.main([folder, "-q", "-m", "families or not families"], plugins=[recorder])
    if code:
        return int(code)
    if recorder.skipped:
        print(f"The table stays as it is: {len(recorder.skipped)} tests skipped (no published tokenizers)")
        return 0
    DOCUMENT.write_text(put(DOCUMENT.read_text(), table(recorder.rows)))
    print(f"{len(recorder.rows)} rows written to {DOCUMENT.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
