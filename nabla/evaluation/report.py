"""Tables and plots of a results folder, from its records alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nabla.evaluation.plots import write_plots
from nabla.evaluation.results import Results
from nabla.evaluation.summary import summarise
from nabla.evaluation.tables import COMPARISONS, ROWS, to_csv, to_latex, to_markdown


def write_report(folder: Path) -> tuple[Results, dict[str, Any]]:
    """Writes ``summary.json``, ``results.csv``, ``comparisons.csv``, ``tables.md``, ``tables.tex`` and the
    plots; returns what was read and the summary. Raises ConfigError for a folder without finished results."""
    results = Results.load(folder)
    summary = summarise(results)
    texts = {
        "summary.json": json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "results.csv": to_csv(summary["rows"], ROWS),
        "comparisons.csv": to_csv(summary["comparisons"], COMPARISONS),
        "tables.md": to_markdown(summary),
        "tables.tex": to_latex(summary),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    write_plots(results, summary, folder)
    return results, summary
