"""Tables and plots of an ablation's folder, from its records alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nabla.core.files import replace_whole, stored_in
from nabla.study.ablation.effects import summarise
from nabla.study.ablation.plots import write_plots
from nabla.study.ablation.results import Study
from nabla.study.ablation.tables import (
    INTERACTIONS,
    effects_columns,
    points_columns,
    to_latex,
    to_markdown,
)
from nabla.study.evaluation.tables import to_csv


def write_report(folder: Path, metric: str | None = None) -> dict[str, Any]:
    """Writes ``summary.json``, ``points.csv``, ``effects.csv``, ``interactions.csv``, ``tables.md``,
    ``tables.tex`` and the plots; returns the summary.

    Args:
        folder: of the results.
        metric: what answers are measured by, if the records know it; None for the configuration's.

    Raises ConfigError for a folder without finished points, and for a metric that the records lack.
    """
    summary = summarise(Study.load(folder, metric))
    texts = {
        "summary.json": json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "points.csv": to_csv(summary["points"], points_columns(summary)),
        "effects.csv": to_csv(summary["effects"], effects_columns(summary)),
        "interactions.csv": to_csv(summary["interactions"], INTERACTIONS),
        "tables.md": to_markdown(summary),
        "tables.tex": to_latex(summary),
    }
    fix = "The records are kept: make room, and write it again by nabla ablate --report FOLDER."
    with stored_in(folder, "report", fix):
        for name, text in texts.items():
            replace_whole(folder / name, text)
        write_plots(summary, folder)
    return summary
