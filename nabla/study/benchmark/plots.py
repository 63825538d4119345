"""The figures, from what ``nabla bench`` has stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nabla.launch.figures import COLOURS, MARKERS, Canvas, panels, style

Row = Mapping[str, Any]

#: Parts that are seconds of the floor, in the order in which they run.
FLOOR_PARTS = ("LM forward", "head logits", "head backward", "LM backward", "RM forward", "RM backward")


def write_plots(told: Row, canvas: Canvas) -> list[Path]:
    """``floor`` where target 1 was measured, ``growth`` where target 7 was, ``pair`` of given models.

    Args:
        told: as ``results.json`` has it.
        canvas: where the figures go.
    """
    found, growth = told["measurements"], told["growth"]
    ratios = [m for m in found if m["target"] == 1 and "floor" in m["parts"]]
    drawn: dict[str, Callable[[], Any]] = {}
    if ratios:
        drawn["floor"] = lambda: _floor(ratios)
    if told.get("given") and any(m["value"] is not None for m in found):
        drawn["pair"] = lambda: _pair(found)
    if growth:
        drawn["growth"] = lambda: _growth(growth)
    with style():
        return [canvas.save(draw(), name) for name, draw in drawn.items()]


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _floor(ratios: Sequence[Row]) -> Any:
    """The floor's parts, stacked, beside the whole refinement."""
    figure, (axis,) = panels(1, (7, 1.6 + 0.9 * len(ratios)))
    for index, m in enumerate(ratios):
        left = 0.0
        for colour, part in enumerate(FLOOR_PARTS):
            width = 1e3 * m["parts"].get(part, 0.0)
            axis.barh(2.5 * index, width, left=left, color=_colour(colour), label=None if index else part)
            left += width
        label = None if index else "refine"
        axis.barh(2.5 * index + 1, 1e3 * m["parts"]["refine"], color=_colour(7), label=label)
    ticks = [2.5 * index + 0.5 for index in range(len(ratios))]
    axis.set_yticks(ticks, [m["name"].replace(" / floor", "") for m in ratios])
    axis.set_xlabel("milliseconds")
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _pair(found: Sequence[Row]) -> Any:
    """Every ratio of a pair as a bar with its interval, and the shares of a solve's phases."""
    ratios = [m for m in found if m["unit"] == "×" and m["value"] is not None][::-1]
    solves = [m for m in found if m["target"] == 5 and "wall" in m["parts"]]
    height = 1.1 + 0.17 * len(ratios) + 0.25 * len(solves)
    figure, (top, bottom) = panels(2, (9, height), columns=1)
    for index, m in enumerate(ratios):
        error = [[m["value"] - m["low"]], [m["high"] - m["value"]]]
        top.barh(index, m["value"], color=_colour(m["target"]), xerr=error)
        top.annotate(f" {m['value']:.3g}×", (m["high"], index), va="center", fontsize=7)
    top.set_yticks(range(len(ratios)), [m["name"] for m in ratios], fontsize=7)
    top.set(xscale="log", xlabel="ratio")
    top.margins(x=0.1)
    for index, m in enumerate(solves):
        left = 0.0
        for colour, (phase, share) in enumerate((k, v) for k, v in m["parts"].items() if k != "wall"):
            label = None if index else phase
            bottom.barh(index, share, left=left, color=_colour(colour), label=label)
            left += share
    bottom.set_yticks(range(len(solves)), [m["name"].rsplit(", ", 1)[-1] for m in solves], fontsize=7)
    bottom.set_xlabel("share of a solve's seconds")
    if solves:
        figure.legend(loc="outside lower center", ncols=5, fontsize=8)
    return figure


def _growth(rows: Sequence[Row]) -> Any:
    names = list(dict.fromkeys(row["axis"] for row in rows))
    figure, axes = panels(len(names), (3.4, 3.9), columns=len(names))
    for axis, name in zip(axes, names, strict=True):
        series = dict.fromkeys(row["series"] for row in rows if row["axis"] == name)
        for index, label in enumerate(series):
            points = [row for row in rows if row["axis"] == name and row["series"] == label]
            axis.plot(
                [row["value"] for row in points],
                [1e3 * row["seconds"] for row in points],
                color=_colour(index),
                marker=MARKERS[index % len(MARKERS)],
                label=label,
            )
        axis.set(xscale="log", yscale="log", xlabel=name, ylabel="milliseconds")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure
