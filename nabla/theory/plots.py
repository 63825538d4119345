"""Figures as files, and as data from which they can be drawn again."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nabla.core.errors import ConfigError
from nabla.core.files import parse_json, read_text
from nabla.launch.figures import Canvas, panels, style
from nabla.theory.figures import Figure, Line, Panel

FIGURES = "figures.json"


def save(figures: Sequence[Figure], folder: str | Path | Canvas) -> list[Path]:
    """Draws figures into ``folder`` (made if missing) and returns the files."""
    canvas = folder if isinstance(folder, Canvas) else Canvas(Path(folder), dpi=90)
    canvas.folder.mkdir(parents=True, exist_ok=True)
    with style():
        return [canvas.save(_figure(figure), figure.name) for figure in figures]


def write(figures: Sequence[Figure], path: Path) -> None:
    """The figures as data."""
    rows = [_plain(asdict(figure)) for figure in figures]
    path.write_text(json.dumps(rows, ensure_ascii=False) + "\n", encoding="utf-8")


def read(path: Path) -> list[Figure]:
    """The same, back. Raises ConfigError for a damaged file."""
    try:
        return [_of(row) for row in parse_json(read_text(path, FIGURES))]
    except (LookupError, TypeError, ValueError) as error:
        raise ConfigError(f"{FIGURES} is damaged: {error!r}", got=str(path)) from error


def _of(row: dict[str, Any]) -> Figure:
    made = []
    for panel in row["panels"]:
        lines = tuple(
            Line(one["label"], _numbers(one["x"]), _numbers(one["y"]), one["style"]) for one in panel["lines"]
        )
        rest = {name: panel[name] for name in ("title", "x", "y", "log_x", "log_y")}
        made.append(Panel(lines=lines, ticks=tuple(panel["ticks"]), **rest))
    return Figure(row["name"], tuple(made))


def _numbers(values: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(math.nan if value is None else float(value) for value in values)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, str | bool):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None  # JSON has neither NaN nor infinity


def _figure(figure: Figure) -> Any:
    columns = 2 if len(figure.panels) == 4 else min(len(figure.panels), 3)
    made, axes = panels(len(figure.panels), (6.2, 3.5), columns)
    for axis, panel in zip(axes, figure.panels, strict=True):
        _draw(axis, panel)
    return made


def _draw(axis: Any, panel: Panel) -> None:
    for line in panel.lines:
        axis.plot(line.x, line.y, line.style, label=line.label or None, markersize=4.5, linewidth=1.5)
    axis.set_title(panel.title)
    axis.set_xlabel(panel.x)
    axis.set_ylabel(panel.y)
    if panel.log_x:
        axis.set_xscale("log")
    if panel.log_y:
        axis.set_yscale("log")
    if panel.ticks:
        axis.set_xticks(range(len(panel.ticks)), panel.ticks, rotation=30, ha="right", fontsize=7)
    if any(line.label for line in panel.lines):
        axis.legend(fontsize=7.5, loc="upper left", bbox_to_anchor=(1.0, 1.0))  # beside, over no line
