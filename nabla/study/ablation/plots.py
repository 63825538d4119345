"""The figures of an ablation, as PNG; bars are 95 % intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from nabla.core.extras import require_extra
from nabla.study.ablation.tables import short
from nabla.study.evaluation.plots import MARKERS
from nabla.study.evaluation.summary import metric_of

Row = Mapping[str, Any]


def write_plots(summary: Row, folder: Path) -> list[Path]:
    """``effects.png``, ``cost.png`` and, for two factors or more, a heat map of each two; under budgets the
    largest of the first unit."""
    drawn: list[tuple[str, Callable[[Row, str, Any], None], float]] = []
    lines = len({(r["factor"], r["level"]) for r in summary["effects"]})
    if lines:
        drawn.append(("effects.png", _effects, 1.6 + 0.32 * lines))
    drawn.append(("cost.png", _cost, 5.5))
    for index, pair in enumerate(combinations(summary["factors"], 2)):
        name = "heat_map.png" if len(summary["factors"]) == 2 else f"heat_map_{index}.png"
        height = 1.8 + 0.45 * len(summary["factors"][pair[0]])
        drawn.append((name, _heat_map(*pair), height))
    return [_figure(summary, folder / name, draw, height) for name, draw, height in drawn]


def _figure(summary: Row, path: Path, draw: Callable[[Row, str, Any], None], height: float) -> Path:
    require_extra("eval", "matplotlib", purpose="Figures")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tasks = summary["tasks"]
    figure = Figure(figsize=(6 * len(tasks), height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(tasks), squeeze=False)[0]
    for task, axis in zip(tasks, axes, strict=True):
        draw(summary, task, axis)
        axis.set_title(task)
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=7)
    figure.savefig(path, dpi=110)
    return path


def shown(rows: Sequence[Row], task: str) -> list[Row]:
    """Of a task; under budgets those of the first unit's largest."""
    own = [row for row in rows if row["task"] == task]
    if not own or own[0]["unit"] is None:
        return own
    unit = own[0]["unit"]
    top = max(row["value"] for row in own if row["unit"] == unit)
    return [row for row in own if (row["unit"], row["value"]) == (unit, top)]


def _effects(summary: Row, task: str, axis: Any) -> None:
    """Differences from the reference levels, a colour per factor, and what could have been seen."""
    rows = shown(summary["effects"], task)
    factors, metric = list(dict.fromkeys(row["factor"] for row in rows)), metric_of(summary)
    for place, row in enumerate(rows):
        values = metric.scale * np.array([row["difference"], row["low"], row["high"]])
        error = [[max(values[0] - values[1], 0)], [max(values[2] - values[0], 0)]]
        index = factors.index(row["factor"])
        axis.errorbar(values[0], place, xerr=error, fmt=MARKERS[index % len(MARKERS)], color=f"C{index % 10}",
                      capsize=2, markersize=4)  # fmt: skip
        if row["detectable"] is not None:
            wide = metric.scale * row["detectable"]
            axis.barh(place, 2 * wide, left=-wide, height=0.8, color="0.5", alpha=0.12, linewidth=0)
    many = len(factors) > 1
    labels = [f"{short(r['factor'])}: {r['level']}" if many else r["level"] for r in rows]
    axis.set_yticks(range(len(rows)), labels, fontsize=8)
    axis.invert_yaxis()
    axis.axvline(0, color="0.3", linewidth=0.8)
    left, right = axis.get_xlim()
    if metric.rate:
        axis.set_xlim(min(left, -1.0), max(right, 1.0))  # differences of 0 are not magnified
    against = ", ".join(dict.fromkeys(row["reference"] for row in rows))
    axis.set_xlabel(f"{metric.difference} against {against} (grey: below the MDE)", fontsize=8)


def _cost(summary: Row, task: str, axis: Any) -> None:
    """Accuracy, or mean, of each point against the FLOPs of a run."""
    require_extra("eval", "matplotlib", purpose="Figures")
    from matplotlib import colormaps

    metric = metric_of(summary)
    for index, row in enumerate(shown(summary["points"], task)):
        if row["flops"] is None or row[metric.key] is None:
            continue
        values = metric.scale * np.array([row[metric.key], row["low"], row["high"]])
        error = [[max(values[0] - values[1], 0)], [max(values[2] - values[0], 0)]]
        axis.errorbar(
            row["flops"], values[0], yerr=error, fmt=MARKERS[index % len(MARKERS)], capsize=2, markersize=5,
            color=colormaps["tab20"](index % 20), label=row["point"],
        )  # fmt: skip
    axis.set(xscale="log", xlabel="FLOPs per problem", ylabel=metric.axis)


def _heat_map(one: str, two: str) -> Callable[[Row, str, Any], None]:
    """Mean accuracy, or mean of a number, by the levels of two factors."""

    def draw(summary: Row, task: str, axis: Any) -> None:
        rows, metric = shown(summary["points"], task), metric_of(summary)
        down, across = summary["factors"][one], summary["factors"][two]
        values = np.full((len(down), len(across)), np.nan)
        for i, a in enumerate(down):
            for j, b in enumerate(across):
                own = [row[metric.key] for row in rows if (row[one], row[two]) == (a, b)]
                known = [value for value in own if value is not None]
                values[i, j] = metric.scale * np.mean(known) if known else np.nan
        image = axis.imshow(values, aspect="auto", cmap="viridis")
        middle = (np.nanmin(values) + np.nanmax(values)) / 2
        for (i, j), value in np.ndenumerate(values):
            if not np.isnan(value):
                colour = "white" if value < middle else "black"
                text = metric.text(value / metric.scale)
                axis.text(j, i, text, ha="center", va="center", color=colour, fontsize=8)
        axis.set_xticks(range(len(across)), across, fontsize=8, rotation=20, ha="right")
        axis.set_yticks(range(len(down)), down, fontsize=8)
        axis.set(xlabel=short(two), ylabel=short(one))
        axis.figure.colorbar(image, ax=axis, label=metric.axis)

    return draw
