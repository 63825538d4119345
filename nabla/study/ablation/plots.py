"""The figures of an ablation; bars are 95 % intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from nabla.core.extras import require_extra
from nabla.launch.figures import (
    COLOURS,
    GREY,
    LINES,
    MARKERS,
    Canvas,
    end_labels,
    log_ticks,
    looks,
    panels,
    style,
)
from nabla.study.ablation.tables import short
from nabla.study.evaluation.metric import Metric
from nabla.study.evaluation.summary import metric_of

Row = Mapping[str, Any]
#: p, corrected, from which on a cell of a heat map is hatched.
SIGNIFICANT = 0.05


def write_plots(summary: Row, folder: Path | Canvas) -> list[Path]:
    """``effects``, ``cost`` and, for two factors or more, a heat map of each two; under budgets the largest
    of the first unit."""
    canvas = folder if isinstance(folder, Canvas) else Canvas(folder)
    drawn: dict[str, Callable[[Row], Any]] = {}
    if summary["effects"]:
        drawn["effects"] = _effects
    with style():
        drawn["cost"] = _cost
        for index, pair in enumerate(combinations(summary["factors"], 2)):
            name = "heat_map" if len(summary["factors"]) == 2 else f"heat_map_{index}"
            drawn[name] = _heat_map(*pair)
        return [canvas.save(draw(summary), name) for name, draw in drawn.items()]


def shown(rows: Sequence[Row], task: str) -> list[Row]:
    """Of a task; under budgets those of the first unit's largest."""
    own = [row for row in rows if row["task"] == task]
    if not own or own[0]["unit"] is None:
        return own
    unit = own[0]["unit"]
    top = max(row["value"] for row in own if row["unit"] == unit)
    return [row for row in own if (row["unit"], row["value"]) == (unit, top)]


def _effects(summary: Row) -> Any:
    """Differences from the reference levels, a colour per factor, and what could have been seen."""
    lines = len({(r["factor"], r["level"]) for r in summary["effects"]})
    figure, axes = panels(len(summary["tasks"]), (5.4, 1.5 + 0.3 * lines))
    metric = metric_of(summary)
    for task, axis in zip(summary["tasks"], axes, strict=True):
        _effects_of(shown(summary["effects"], task), metric, axis)
        axis.set_title(task)
    return figure


def _effects_of(rows: Sequence[Row], metric: Metric, axis: Any) -> None:
    factors = list(dict.fromkeys(row["factor"] for row in rows))
    for place, row in enumerate(rows):
        values = [metric.scale * row[key] for key in ("difference", "low", "high")]
        index = factors.index(row["factor"])
        look = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
        if row["detectable"] is not None:
            wide = metric.scale * row["detectable"]
            axis.barh(place, 2 * wide, left=-wide, height=0.8, color="0.5", alpha=0.14, linewidth=0)
        axis.plot(values[1:], [place, place], color=look["color"], linewidth=2.2, alpha=0.6)
        hollow = {} if row["p_holm"] < SIGNIFICANT else {"markerfacecolor": "white"}
        axis.plot(values[0], place, linestyle="none", markersize=6, **look, **hollow)
    many = len(factors) > 1
    names = [f"{short(r['factor'])}: {r['level']}" if many else r["level"] for r in rows]
    axis.set_yticks(range(len(rows)), names, fontsize=8)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    axis.axvline(0, color="0.3", linewidth=0.8)
    left, right = axis.get_xlim()
    if metric.rate:
        axis.set_xlim(min(left, -1.0), max(right, 1.0))  # differences of 0 are not magnified
    against = ", ".join(dict.fromkeys(row["reference"] for row in rows))
    axis.set_xlabel(f"{metric.difference} against {against}\n(hollow: not significant; grey: below the MDE)")


def _cost(summary: Row) -> Any:
    """Level of each point against the FLOPs of a run; the best, the cheapest and the reference by name."""
    figure, axes = panels(len(summary["tasks"]), (5.8, 4.2))
    metric, named = metric_of(summary), []
    for task, axis in zip(summary["tasks"], axes, strict=True):
        rows = [r for r in shown(summary["points"], task) if r["flops"] and r[metric.key] is not None]
        names = notable(rows, metric, summary.get("reference"))
        look = looks(names)
        for row in rows:
            value, low, high = (metric.scale * row[key] for key in (metric.key, "low", "high"))
            own = look.get(row["point"], {"color": GREY, "marker": "o"})
            colour = own["color"]
            axis.vlines(row["flops"], low, high, color=colour, linewidth=1.4, alpha=0.6)
            axis.plot(row["flops"], value, own["marker"], color=colour, markersize=5.5)
        axis.set(xscale="log", xlabel="FLOPs per problem", ylabel=metric.axis)
        log_ticks(axis.xaxis)
        axis.set_title(task)
        ends = {r["point"]: (r["flops"], metric.scale * r[metric.key]) for r in rows if r["point"] in names}
        named.append((axis, ends, {name: own["color"] for name, own in look.items()}))
    figure.draw_without_rendering()
    for axis, ends, colours in named:
        end_labels(axis, ends, colours)
    return figure


def notable(rows: Sequence[Row], metric: Metric, reference: str | None) -> list[str]:
    """Points that are named: all if they are few, else the reference, the cheapest and the best."""
    names = [row["point"] for row in rows]
    if len(names) <= LINES:
        return names
    by_level = sorted(rows, key=lambda row: -row[metric.key])
    cheapest = min(rows, key=lambda row: row["flops"])["point"]
    first = [name for name in (reference, cheapest) if name in names]
    picked = dict.fromkeys([*first, *(row["point"] for row in by_level)])
    return list(picked)[:LINES]


def _heat_map(one: str, two: str) -> Callable[[Row], Any]:
    """Differences from both reference levels, over the levels of two factors: one scale for all maps of the
    study, zero in the middle; cells that are not significant are hatched."""

    def draw(summary: Row) -> Any:
        metric = metric_of(summary)
        down, across = summary["factors"][one], summary["factors"][two]
        size = (2.6 + 0.95 * len(across), 1.9 + 0.55 * len(down))
        figure, axes = panels(len(summary["tasks"]), size)
        every = [c for task in summary["tasks"] for c in shown(summary["cells"], task)]
        top = metric.scale * max((abs(cell["difference"]) for cell in every), default=0.0) or 1.0
        image = None
        for task, axis in zip(summary["tasks"], axes, strict=True):
            own = [c for c in shown(summary["cells"], task) if (c["factor"], c["other_factor"]) == (one, two)]
            cells = {(cell["level"], cell["other_level"]): cell for cell in own}
            image = _map(axis, down, across, cells, metric, top)
            axis.set(xlabel=short(two), ylabel=short(one))
            axis.set_title(task)
        reference = f"{down[0]}, {across[0]}"
        label = f"{metric.difference} against\n{reference} (hatched: p ≥ {SIGNIFICANT:g})"
        figure.colorbar(image, ax=axes, label=label, shrink=0.9)
        return figure

    return draw


def _map(
    axis: Any,
    down: Sequence[str],
    across: Sequence[str],
    cells: Mapping[tuple[str, str], Row],
    metric: Metric,
    top: float,
) -> Any:
    values = np.full((len(down), len(across)), np.nan)
    values[0, 0] = 0.0
    for i, a in enumerate(down):
        for j, b in enumerate(across):
            if (a, b) in cells:
                values[i, j] = metric.scale * cells[a, b]["difference"]
    image = axis.imshow(values, aspect="auto", cmap="PuOr_r", vmin=-top, vmax=top)
    for i, a in enumerate(down):
        for j, b in enumerate(across):
            if np.isnan(values[i, j]):
                axis.text(j, i, "–", ha="center", va="center", color="0.4")
                continue
            cell = cells.get((a, b))
            plain = cell is not None and cell["p_holm"] >= SIGNIFICANT
            if plain:
                axis.add_patch(_hatched(j, i))
            text = "reference" if cell is None else metric.signed(cell["difference"])
            dark = abs(values[i, j]) > 0.62 * top
            back = None if not plain else {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1.2}
            axis.text(
                j, i, text, ha="center", va="center", fontsize=8, bbox=back,
                color="white" if dark and not plain else "black",
            )  # fmt: skip
    axis.set_xticks(range(len(across)), across, fontsize=8, rotation=20, ha="right")
    axis.set_yticks(range(len(down)), down, fontsize=8)
    axis.grid(visible=False)
    return image


def _hatched(x: int, y: int) -> Any:
    require_extra("eval", "matplotlib", purpose="Figures")
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, hatch="////", edgecolor="0.35", linewidth=0)
