"""Writes the measured tables of ``experiments/theory.md`` from a run's ``reports.json``.

nabla theory --output runs/theory && cp runs/theory/* experiments/theory
python -m experiments.theory.tables
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
PAGE = FOLDER.parent / "theory.md"
HEAD = "| report | value | noise floor | tolerance | unit | order (expected) | s | verdict |\n"


def row(report: dict[str, Any]) -> str:
    """One line of a table."""
    order = report["order"]
    slope = ""
    if order is not None and order["slope"] is not None:
        slope = f"{order['slope']:.2f} [{order['low']:.2f}, {order['high']:.2f}] ({order['expected']:g})"
    detail = f"<br><sub>{report['detail']}</sub>" if report["detail"] else ""
    cells = (
        (report["name"] + detail).replace("|", "\\|"),
        f"{report['value']:.2e}",
        f"{report['noise_floor']:.0e}",
        f"{report['tolerance']:.1e}",
        report["unit"],
        slope,
        f"{report['seconds']:.0f}",
        report["verdict"],
    )
    return "| " + " | ".join(cells) + " |\n"


def main() -> None:
    """Replaces what stands between ``<!-- table: CHECK -->`` and ``<!-- end -->``."""
    reports = json.loads((FOLDER / "reports.json").read_text(encoding="utf-8"))
    page = PAGE.read_text(encoding="utf-8")
    for check in {report["check"] for report in reports}:
        rows = "".join(row(report) for report in reports if report["check"] == check)
        table = f"<!-- table: {check} -->\n{HEAD}|---|---|---|---|---|---|---|---|\n{rows}<!-- end -->"
        page = re.sub(f"<!-- table: {check} -->.*?<!-- end -->", lambda _, t=table: t, page, flags=re.S)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
