"""Figures as files, and as data from which they can be drawn again."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from nabla.core.extras import require_extra
from nabla.core.files import parse_json, read_text, reading, replace_whole
from nabla.launch.figures import GREY, Canvas, end_labels, panels, style
from nabla.theory.figures import Figure, Line, Panel

FIGURES = "figures.json"
#: So many values are written at an axis, each.
FEW = 7
#: A label at an axis takes this part of it.
ROOM = 0.13
#: Ends of lines that are nearer than this part of the axis fall together.
TOGETHER = 0.02


def save(figures: Sequence[Figure], folder: str | Path | Canvas) -> list[Path]:
    """Draws figures into ``folder`` (made if missing) and returns the files."""
    canvas = folder if isinstance(folder, Canvas) else Canvas(Path(folder))
    canvas.folder.mkdir(parents=True, exist_ok=True)
    with style():
        return [canvas.save(_figure(figure), figure.name) for figure in figures]


def write(figures: Sequence[Figure], path: Path) -> None:
    """The figures as data."""
    rows = [_plain(asdict(figure)) for figure in figures]
    replace_whole(path, json.dumps(rows, ensure_ascii=False) + "\n")


def read(path: Path) -> list[Figure]:
    """The same, back. Raises ConfigError for a damaged file."""
    text = read_text(path, FIGURES)
    with reading(FIGURES, got=path, fix="Run the checks again."):
        return [_of(row) for row in parse_json(text)]


def _of(row: dict[str, Any]) -> Figure:
    made = []
    for panel in row["panels"]:
        lines = tuple(
            Line(one["label"], _numbers(one["x"]), _numbers(one["y"]), one["style"]) for one in panel["lines"]
        )
        rest = {name: panel[name] for name in ("title", "x", "y", "log_x", "log_y")}
        made.append(Panel(lines=lines, ticks=tuple(panel["ticks"]), **rest))
    name = row["name"]
    if not name or Path(name).name != name:  # it is the name of a file
        raise ValueError(f"{name!r} is no name of a figure")
    return Figure(name, tuple(made))


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


# -- drawing -------------------------------------------------------------------------------------


def _figure(figure: Figure) -> Any:
    made, axes = panels(len(figure.panels), (5.0, 3.3), 2)
    for axis, panel in zip(axes, figure.panels, strict=True):
        _named(axis, panel) if panel.ticks else _lines(axis, panel)
        axis.set_title(panel.title)
    made.draw_without_rendering()  # the axes have their sizes
    for axis, panel in zip(axes, figure.panels, strict=True):
        _labels(axis, panel)
    return made


def _named(axis: Any, panel: Panel) -> None:
    """A row for each name, from top to bottom, with its number as a dot."""
    for line in panel.lines:
        axis.hlines(line.x, 0, line.y, color=GREY, linewidth=1.0)
        axis.plot(line.y, line.x, "o", markersize=6)
    axis.set_yticks(range(len(panel.ticks)), panel.ticks, fontsize=8)
    axis.set_ylim(len(panel.ticks) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    axis.set(xlabel=panel.y, ylabel=panel.x)


def _lines(axis: Any, panel: Panel) -> None:
    for line in panel.lines:
        axis.plot(line.x, line.y, line.style, label=line.label or None, **_look(line.style))
    axis.set(xlabel=panel.x, ylabel=panel.y)
    if panel.log_x:
        axis.set_xscale("log")
        _ticks(axis.xaxis, sorted({x for line in panel.lines for x in line.x}))
    if panel.log_y:
        axis.set_yscale("log")
        _decades(axis)


def _look(style: str) -> dict[str, Any]:
    """Points without a line are open and of unlike sizes, so that none hides another one."""
    sizes = {"o": 8.0, "x": 5.5, ".": 4.0, "k.": 4.0}
    look: dict[str, Any] = {"linewidth": 1.0 if style in ("k:", "k--") else 1.5, "markersize": 4.5}
    if style in sizes:
        look |= {"markersize": sizes[style], "markerfacecolor": "none" if style == "o" else None}
    return look


def _ticks(axis: Any, values: Sequence[float]) -> None:
    """What was run is what stands at the axis, where that is little; a label needs its room."""
    require_extra("eval", "matplotlib", purpose="Figures")
    from matplotlib.ticker import NullLocator

    if len(values) <= FEW:
        room = ROOM * math.log(values[-1] / values[0])
        named = [values[0]]
        for x in values[1:]:
            if math.log(x / named[-1]) >= room:
                named.append(x)
        labels = {x: f"{x:,.0f}" if x >= 100 else f"{x:.2g}" for x in named}
        axis.set_ticks(values, [labels.get(x, "") for x in values])
        axis.set_minor_locator(NullLocator())


def _decades(axis: Any) -> None:
    """Plain numbers where the axis has less than two decades, which would leave one label or none."""
    require_extra("eval", "matplotlib", purpose="Figures")
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_ylim()
    if high < 100 * low:
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _labels(axis: Any, panel: Panel) -> None:
    """Names at the ends of lines; in a legend beside them where the ends fall together."""
    drawn = [(mark, line) for mark, line in zip(axis.get_lines(), panel.lines, strict=True) if line.label]
    if panel.ticks or not drawn:
        return
    ends = {
        line.label: max(p for p in zip(line.x, line.y, strict=True) if math.isfinite(p[1]))
        for _, line in drawn
    }
    heights = sorted(
        float(axis.transAxes.inverted().transform(axis.transData.transform(end))[1]) for end in ends.values()
    )
    if sum(b - a < TOGETHER for a, b in pairwise(heights)) > 1:
        axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    else:
        end_labels(axis, ends, {line.label: mark.get_color() for mark, line in drawn})
