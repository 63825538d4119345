"""Figures as PNG files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nabla.theory.figures import Figure, Panel


def save(figures: Sequence[Figure], folder: str | Path, *, dpi: int = 70) -> list[Path]:
    """Draws figures into ``folder`` (made if missing) and returns the files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    paths = []
    for figure in figures:
        columns = 2 if len(figure.panels) == 4 else min(len(figure.panels), 3)
        rows = math.ceil(len(figure.panels) / columns)
        made, axes = pyplot.subplots(rows, columns, figsize=(5.6 * columns, 4.0 * rows), squeeze=False)
        for ax, panel in zip(axes.ravel(), figure.panels, strict=False):
            _draw(ax, panel)
        for ax in axes.ravel()[len(figure.panels) :]:
            ax.axis("off")
        made.tight_layout()
        path = target / f"{figure.name}.png"
        made.savefig(path, dpi=dpi)
        pyplot.close(made)
        paths.append(path)
    return paths


def _draw(a: Any, panel: Panel) -> None:
    for line in panel.lines:
        a.plot(line.x, line.y, line.style, label=line.label or None, markersize=4, linewidth=1.3)
    a.set_title(panel.title, fontsize=10)
    a.set_xlabel(panel.x)
    a.set_ylabel(panel.y)
    if panel.log_x:
        a.set_xscale("log")
    if panel.log_y:
        a.set_yscale("log")
    if panel.ticks:
        a.set_xticks(range(len(panel.ticks)), panel.ticks, rotation=30, ha="right", fontsize=7)
    if any(line.label for line in panel.lines):
        a.legend(fontsize=7)
    a.grid(alpha=0.25)
