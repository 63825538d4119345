"""Tables and plots of a results folder, from its records alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from nabla.core.errors import ConfigError
from nabla.core.files import replace_whole, stored_in
from nabla.study.evaluation.hacking import HACKING
from nabla.study.evaluation.plots import write_plots
from nabla.study.evaluation.results import Results
from nabla.study.evaluation.stored import HACKED
from nabla.study.evaluation.summary import summarise
from nabla.study.evaluation.tables import columns, to_csv, to_latex, to_markdown


def write_report(
    folder: Path, reference: str | None = None, metric: str | None = None
) -> tuple[Results, dict[str, Any]]:
    """Writes ``summary.json``, ``results.csv``, ``comparisons.csv``, ``hacking.csv`` (where proposals were
    accepted and graded), ``tables.md``, ``tables.tex`` and the plots; returns what was read and the summary.

    Args:
        folder: of the results.
        reference: method that the others are compared with; None for the configuration's.
        metric: what answers are measured by, if the records know it; None for the configuration's.

    Raises ConfigError for a folder without finished results, for a reference that has none, and for a metric
    that the records lack.
    """
    results = Results.load(folder, metric)
    if reference is not None:
        known = list(dict.fromkeys(method for _, method in results.runs))
        if reference not in known:
            raise ConfigError(
                "The reference is no finished method", got=reference, fix=f"Use {', '.join(known)}."
            )
        results = replace(results, reference=reference)
    summary = summarise(results)
    rows, comparisons = columns(summary)
    texts = {
        "summary.json": json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "results.csv": to_csv(summary["rows"], rows),
        "comparisons.csv": to_csv(summary["comparisons"], comparisons),
        **({HACKED: to_csv(summary["hacking"], HACKING)} if summary["hacking"] else {}),
        "tables.md": to_markdown(summary),
        "tables.tex": to_latex(summary),
    }
    fix = "The records are kept: make room, and write it again by nabla evaluate --report FOLDER."
    with stored_in(folder, "report", fix):
        for name, text in texts.items():
            replace_whole(folder / name, text)
        write_plots(results, summary, folder)
    return results, summary
