"""The figures, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nabla.core.extras import require_extra
from nabla.study.benchmark.bench import Stand
from nabla.study.benchmark.measurement import Measurement

#: Parts that are seconds of the floor, in the order in which they run.
FLOOR_PARTS = ("LM forward", "head logits", "head backward", "LM backward", "RM forward", "RM backward")


def write_plots(bench: Stand, found: Sequence[Measurement], folder: Path) -> list[Path]:
    """``floor.png`` where target 1 was measured, ``growth.png`` where target 7 was, ``pair.png`` of given
    models."""
    paths = []
    ratios = [m for m in found if m.target == 1 and "floor" in m.parts]
    if ratios:
        paths.append(_draw(lambda figure: _floor(ratios, figure), folder / "floor.png"))
    if bench.setting.given and any(m.value is not None for m in found):
        paths.append(_draw(lambda figure: _pair(found, figure), folder / "pair.png"))
    if bench.growth:
        paths.append(_draw(lambda figure: _growth(bench.growth, figure), folder / "growth.png"))
    return paths


def _draw(draw: Any, path: Path) -> Path:
    require_extra("eval", "matplotlib", purpose="Figures")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    figure.savefig(path, dpi=90)
    return path


def _floor(ratios: Sequence[Measurement], figure: Any) -> None:
    """The floor's parts, stacked, beside the whole refinement."""
    figure.set_size_inches(7, 1.6 + 0.9 * len(ratios))
    axis = figure.subplots()
    for index, m in enumerate(ratios):
        left = 0.0
        for color, part in enumerate(FLOOR_PARTS):
            width = 1e3 * m.parts.get(part, 0.0)
            axis.barh(2.5 * index, width, left=left, color=f"C{color}", label=None if index else part)
            left += width
        axis.barh(2.5 * index + 1, 1e3 * m.parts["refine"], color="0.4", label=None if index else "refine")
    ticks = [2.5 * index + 0.5 for index in range(len(ratios))]
    axis.set_yticks(ticks, [m.name.replace(" / floor", "") for m in ratios])
    axis.set_xlabel("milliseconds")
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)


def _pair(found: Sequence[Measurement], figure: Any) -> None:
    """Every ratio of a pair as a bar with its interval, and the shares of a solve's phases."""
    ratios = [m for m in found if m.unit == "×" and m.value is not None]
    solves = [m for m in found if m.target == 5 and "wall" in m.parts]
    figure.set_size_inches(9, 2.2 + 0.34 * len(ratios) + 0.5 * len(solves))
    top, bottom = figure.subplots(2, 1, height_ratios=[max(len(ratios), 1), max(2 * len(solves), 1)])
    for index, m in enumerate(reversed(ratios)):
        assert m.value is not None
        error = [[m.value.value - m.value.low], [m.value.high - m.value.value]]
        top.barh(index, m.value.value, color=f"C{m.target}", xerr=error)
        top.annotate(f" {m.value.value:.3g}×", (m.value.high, index), va="center", fontsize=7)
    top.set_yticks(range(len(ratios)), [m.name for m in reversed(ratios)], fontsize=7)
    top.set(xscale="log", xlabel="ratio")
    top.margins(x=0.1)
    for index, m in enumerate(solves):
        left = 0.0
        for color, (phase, share) in enumerate((k, v) for k, v in m.parts.items() if k != "wall"):
            label = None if index else phase
            bottom.barh(index, share, left=left, color=f"C{color}", label=label)
            left += share
    bottom.set_yticks(range(len(solves)), [m.name.rsplit(", ", 1)[-1] for m in solves], fontsize=7)
    bottom.set_xlabel("share of a solve's seconds")
    figure.legend(loc="outside lower center", ncols=5, fontsize=8)


def _growth(rows: Sequence[dict[str, Any]], figure: Any) -> None:
    axes = list(dict.fromkeys(row["axis"] for row in rows))
    figure.set_size_inches(3.4 * len(axes), 3.9)
    grid = figure.subplots(1, len(axes), squeeze=False)[0]
    for axis, name in zip(grid, axes, strict=True):
        series = dict.fromkeys(row["series"] for row in rows if row["axis"] == name)
        for label in series:
            points = [row for row in rows if row["axis"] == name and row["series"] == label]
            axis.plot(
                [row["value"] for row in points],
                [1e3 * row["seconds"] for row in points],
                marker="o",
                label=label,
            )
        axis.set(xscale="log", yscale="log", xlabel=name, ylabel="milliseconds")
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
