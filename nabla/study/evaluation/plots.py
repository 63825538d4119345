"""The figures of an evaluation; bands and bars are 95 % intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from nabla.core.budget import UNITS
from nabla.core.extras import require_extra
from nabla.launch.figures import (
    BANDS,
    COLOURS,
    GREY,
    Canvas,
    counted,
    dots,
    end_labels,
    line,
    line_styles,
    looks,
    panels,
    style,
)
from nabla.study.evaluation.choice import at_top, choose, labels, ranking
from nabla.study.evaluation.metric import Metric
from nabla.study.evaluation.results import Results
from nabla.study.evaluation.summary import metric_of

UNIT = {"calls": "model calls", "tokens": "tokens", "flops": "FLOPs", "seconds": "seconds"}
#: Intervals of equal width along a response.
BINS = 10
#: Tasks side by side: three would be too small to read on a page.
ACROSS = 2
#: Small panels side by side.
SMALL = 4
#: Characters of a line above a small panel, and beside it.
WRAPPED, BESIDE = 22, 16
#: Around a single budget an axis goes so many times up and down.
AROUND = 1.6
#: Bars at the ends of lines are so far apart, points.
BAR = 2.0
#: Row of a figure whose rows are methods, and its head and foot, inches.
ROW, REST = 0.24, 1.1

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Drawing:
    """What a figure is drawn from.

    Args:
        summary: of the evaluation.
        results: its records; None where there are none: then what needs every proposal is not drawn.
        shown: labels of the methods that are drawn, each with its colour.
    """

    summary: Row
    results: Results | None
    shown: tuple[str, ...]

    @property
    def metric(self) -> Metric:
        """Of the summary."""
        return metric_of(self.summary)

    @property
    def tasks(self) -> list[str]:
        """In order."""
        return list(self.summary["problems"])

    def look(self, method: str) -> dict[str, Any]:
        """Colour and marker; grey for a method that is not drawn as a line."""
        return looks(self.shown).get(method, {"color": GREY, "marker": "o", "markersize": 4.5})


def write_plots(
    results: Results | None,
    summary: Row,
    folder: Path | Canvas,
    methods: Sequence[str] | None = None,
) -> list[Path]:
    """All figures; those about proposals only where a method makes any.

    Args:
        results: the records, where they are there.
        summary: of them.
        folder: where figures go.
        methods: labels of those that lines are drawn of; None for at most eight, see
            :func:`~nabla.study.evaluation.choice.choose`.

    Raises ConfigError for unknown methods.
    """
    canvas = folder if isinstance(folder, Canvas) else Canvas(folder)
    drawing = Drawing(summary, results, tuple(choose(summary, methods)))
    with style():
        return [canvas.save(draw(drawing), name) for name, draw in _figures(drawing).items()]


def _figures(drawing: Drawing) -> dict[str, Callable[[Drawing], Any]]:
    """Name of a figure → what draws it."""
    noun, results, summary = drawing.metric.noun, drawing.results, drawing.summary
    units = {row["unit"] for row in summary["rows"]}
    drawn: dict[str, Callable[[Drawing], Any]] = {
        f"{noun}_{unit}": partial(_lines, partial(_level, unit))
        for unit in UNITS
        if unit in units or summary.get("runs")
    }
    drawn |= {
        f"{name}_others": partial(_others, name.removeprefix(f"{noun}_"))
        for name in (*drawn,)
        if set(labels(summary)) > set(drawing.shown)
    }
    drawn[f"{noun}_all"] = _all
    if len(summary.get("seeds", ())) > 1 and any(row.get("best_of_k") for row in summary["rows"]):
        drawn["best_of_k"] = partial(_lines, _best)
    if summary.get("runs"):
        drawn["phases"] = _phases
    if any(row["method"] in drawing.shown for row in summary.get("hacking", ())):
        drawn["reward_hacking"] = _hacking
    if results is not None and any(run.proposals for run in results.runs.values()):
        drawn["rejection"] = _rejection
        drawn["positions"] = partial(_lines, _positions)
    return drawn


# -- lines ---------------------------------------------------------------------------------------


def _lines(draw: Callable[[Drawing, str, Any], dict[str, tuple[float, float]]], drawing: Drawing) -> Any:
    """A panel per task; names at the ends of the lines."""
    figure, axes = panels(len(drawing.tasks), (5.6, 3.9), ACROSS)
    ends = []
    for task, axis in zip(drawing.tasks, axes, strict=True):
        ends.append(draw(drawing, task, axis))
        axis.set_title(task)
    figure.draw_without_rendering()  # the axes have their sizes
    colours = {name: drawing.look(name)["color"] for name in drawing.shown}
    for axis, own in zip(axes, ends, strict=True):
        end_labels(axis, own, colours)
    return figure


def _level(unit: str, drawing: Drawing, task: str, axis: Any) -> dict[str, tuple[float, float]]:
    """Against the budget where there is a ladder in this unit, else whole runs at their mean cost."""
    metric, ends = drawing.metric, {}
    curves, budgets = _curves(drawing, unit, task)
    own = [method for method in drawing.shown if method in curves]
    heights = [curves[method][1] for method in own]
    styles = line_styles(heights, chain.from_iterable(heights))
    for i, (method, dash) in enumerate(zip(own, styles, strict=True)):
        xs, ys, *bounds = curves[method]
        more = {"linestyle": dash, "aside": BAR * (i - (len(own) - 1) / 2)}
        band = len(drawing.shown) <= BANDS
        line(axis, xs, ys, (bounds[0], bounds[1]), drawing.look(method), band=band, **more)
        ends[method] = (xs[-1], ys[-1])
    kind = "budget" if budgets else "mean cost of a run"
    axis.set(xlabel=f"{UNIT[unit]} per problem ({kind})", ylabel=metric.axis)
    if curves:
        axis.set_xscale("log")
        _plain_ticks(axis, budgets)
    return ends


def _curves(drawing: Drawing, unit: str, task: str) -> tuple[dict[str, list[list[float]]], list[float]]:
    """Method → costs, levels, lower and upper ends; and the budgets of the ladder, none where there is no
    ladder in this unit."""
    summary, metric = drawing.summary, drawing.metric
    ladder = [r for r in summary["rows"] if (r["task"], r["unit"]) == (task, unit) and r["answered"]]
    points = ladder or [r for r in summary.get("runs", ()) if r["task"] == task and r[unit]]
    found: dict[str, list[list[float]]] = {}
    for row in points:
        if row[metric.key] is not None:
            own = found.setdefault(row["method"], [[], [], [], []])
            own[0].append(row["value"] if ladder else row[unit])
            for part, key in zip(own[1:], (metric.key, "low", "high"), strict=True):
                part.append(metric.scale * row[key])
    return found, sorted({r["value"] for r in ladder if r["value"]})


def _others(unit: str, drawing: Drawing) -> Any:
    """A small panel for each method that has no line in the figure of this unit, a band of rows per task;
    thin: the lines of all methods. A method that a task was not solved by has no panel there."""
    metric, names = drawing.metric, [name for name in _rows_of(drawing) if name not in drawing.shown]
    found = {task: _curves(drawing, unit, task) for task in drawing.tasks}
    own = {task: [name for name in names if name in found[task][0]] for task in drawing.tasks}
    most = max(max(map(len, own.values())), 1)
    across = -(-most // -(-most // SMALL))  # as many rows as it takes, evenly filled
    places = [(task, name) for task in drawing.tasks for name in _filled(own[task], across)]
    figure, axes = panels(len(places), (1.75, 1.45), across, sharex=True)
    for k, (axis, (task, name)) in enumerate(zip(axes, places, strict=True)):
        if name is None:
            axis.set_axis_off()
            continue
        curves, budgets = found[task]
        for curve in curves.values():
            axis.plot(curve[0], curve[1], color=GREY, linewidth=0.5, alpha=0.45)
        xs, ys, low, high = curves[name]
        line(axis, xs, ys, (low, high), {"color": "black", "marker": "o", "markersize": 3}, band=True)
        values = [y for curve in curves.values() for part in curve[2:] for y in part]
        axis.set_xscale("log")
        axis.set_ylim(min(values, default=0.0), max(values, default=1.0))
        axis.set_title(_wrapped(name, WRAPPED), fontsize=7.5, fontweight="normal")
        axis.tick_params(labelsize=7)
        _plain_ticks(axis, [budgets[0], budgets[-1]] if len(budgets) > 1 else budgets)
        if k % across == 0:
            axis.set_ylabel(_wrapped(task, BESIDE), fontsize=8, fontweight="bold")
        below = places[k + across][1] if k + across < len(places) else None
        axis.tick_params(axis="x", labelbottom=below is None)
    figure.supxlabel(f"{UNIT[unit]} per problem", fontsize=8)
    figure.supylabel(metric.axis, fontsize=8)
    return figure


def _wrapped(name: str, width: int) -> str:
    """On several lines where it is longer; names with hyphens stay whole."""
    return fill(name, width, break_on_hyphens=False)


def _filled(names: Sequence[str], across: int) -> list[str | None]:
    """The names, and nothing up to the end of their last row."""
    return [*names, *[None] * (-len(names) % across)]


def _plain_ticks(axis: Any, values: Sequence[float]) -> None:
    """The budgets themselves, where they are few. Around one alone a logarithmic axis shows decades."""
    require_extra("eval", "matplotlib", purpose="Figures")
    from matplotlib.ticker import NullLocator

    if 1 <= len(values) <= 6:
        axis.set_xticks(values, [counted(value) for value in values])
        axis.xaxis.set_minor_locator(NullLocator())
    if len(values) == 1:
        axis.set_xlim(values[0] / AROUND, values[0] * AROUND)


def _best(drawing: Drawing, task: str, axis: Any) -> dict[str, tuple[float, float]]:
    """The best of k runs by reward, at the first unit's largest budget: the mean over all choices of k of the
    seeds' runs. Dotted, for right and wrong: whether one of the k is right."""
    metric, ends = drawing.metric, {}
    top = at_top(drawing.summary)
    for row in top:
        if row["task"] != task or row["method"] not in drawing.shown:
            continue
        look = drawing.look(row["method"])
        for name, dash in (("pass_at_k", ":"), ("best_of_k", "-")):
            curve = row.get(name) if name == "best_of_k" or metric.rate else None
            if not curve:
                continue
            xs, ys = [int(k) for k in curve], [metric.scale * value for value in curve.values()]
            axis.plot(xs, ys, linestyle=dash, linewidth=1.5 if dash == "-" else 1.0, **look)
            ends[row["method"]] = (float(xs[-1]), ys[-1])
    unit = f" at {counted(top[0]['value'])} {UNIT[top[0]['unit']]} each" if "unit" in top[0] else ""
    dotted = " (dotted: pass@k)" if metric.rate else ""
    axis.set(xlabel=f"k runs{unit}; best by reward{dotted}", ylabel=metric.axis)
    axis.locator_params(axis="x", integer=True)
    return ends


def _hacking(drawing: Drawing) -> Any:
    """Accepted proposals: share of right responses by new reward, in equal parts of each method's. A small
    panel for each method, a band of rows per task; thin: the other methods, which mostly coincide."""
    rows = [row for row in drawing.summary["hacking"] if row["method"] in drawing.shown]
    parts: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        parts.setdefault((row["task"], row["method"]), []).append(row)
    names = [name for name in drawing.shown if any(method == name for _, method in parts)]
    tasks = [task for task in drawing.tasks if any(own == task for own, _ in parts)]
    across = min(SMALL, len(names))
    down = -(-len(names) // across)
    figure, axes = panels(across * down * len(tasks), (2.2, 1.7), across, sharey=True)
    for k, axis in enumerate(axes):
        task, place = tasks[k // (across * down)], k % (across * down)
        own = parts.get((task, names[place])) if place < len(names) else None
        if own is None:
            axis.set_axis_off()
            continue
        for (other, _), line_of in parts.items():
            if other == task:
                axis.plot(*_shares(line_of), color=GREY, linewidth=0.5, alpha=0.6)
        look = drawing.look(names[place])
        xs, ys = _shares(own)
        axis.vlines(xs, *([100 * row[key] for row in own] for key in ("low", "high")), color=look["color"])
        axis.plot(xs, ys, linewidth=1.5, **look)
        axis.set_title(names[place], fontsize=7.5, fontweight="normal")
        axis.tick_params(labelsize=7)
        axis.set_ylabel(_wrapped(task, BESIDE) if k % across == 0 else "", fontsize=8, fontweight="bold")
    figure.supxlabel("reward of the accepted proposal", fontsize=8)
    figure.supylabel("right by the checker, %", fontsize=8)
    return figure


def _shares(parts: Sequence[Row]) -> tuple[list[float], list[float]]:
    return [row["reward"] for row in parts], [100 * row["right"] for row in parts]


def _positions(drawing: Drawing, task: str, axis: Any) -> dict[str, tuple[float, float]]:
    """Where along the response proposals are made (dotted) and accepted."""
    assert drawing.results is not None
    edges = np.linspace(0, 1, BINS + 1)
    centres, ends = (edges[:-1] + edges[1:]) / 2, {}
    for method in drawing.shown:
        run = drawing.results.runs.get((task, method))
        if run is None or not run.proposals:
            continue
        where = np.clip([p[0] for p in run.proposals], 0, 1)
        chosen = np.array([p[3] for p in run.proposals])
        look = drawing.look(method)
        made = np.histogram(where, edges)[0] / run.correct.size
        kept = np.histogram(where[chosen], edges)[0] / run.correct.size
        axis.plot(centres, made, linewidth=0.9, linestyle=":", color=look["color"])
        axis.plot(centres, kept, linewidth=1.5, **look)
        ends[method] = (float(centres[-1]), float(kept[-1]))
    axis.set(xlabel="position / length of the response", ylabel="proposals per run: made (dotted), accepted")
    return ends


# -- a row per method ----------------------------------------------------------------------------


def _rows_of(drawing: Drawing) -> list[str]:
    """All methods, the best first."""
    levels = ranking(drawing.summary)
    return sorted(labels(drawing.summary), key=lambda label: -levels.get(label, float("-inf")))


def _all(drawing: Drawing) -> Any:
    """Every method with its interval at the largest budget; those of the lines in their colours."""
    metric, names, top = drawing.metric, _rows_of(drawing), at_top(drawing.summary)
    figure, axes = panels(len(drawing.tasks), (4.6, REST + ROW * max(len(names), 3)), ACROSS)
    for i, (task, axis) in enumerate(zip(drawing.tasks, axes, strict=True)):
        own = {r["method"]: r for r in top if r["task"] == task and r[metric.key] is not None}
        rows = [
            (name, *(metric.scale * own[name][key] for key in (metric.key, "low", "high")))
            if name in own else (name, np.nan, np.nan, np.nan)
            for name in names
        ]  # fmt: skip
        dots(axis, rows, drawing.look, labels=i % ACROSS == 0)
        unit = top[0].get("unit")
        within = "" if unit is None else f" within {counted(top[0]['value'])} {UNIT[unit]}"
        axis.set(xlabel=f"{metric.axis}{within}")
        axis.set_title(task)
    return figure


def _phases(drawing: Drawing) -> Any:
    """Seconds of a run by phase, as bars."""
    every = drawing.summary["runs"]
    phases = list(dict.fromkeys(p for r in every for p in r["phases"]))
    names = _rows_of(drawing)
    figure, axes = panels(len(drawing.tasks), (5.2, REST + 0.3 + ROW * len(names)), ACROSS)
    for task, axis in zip(drawing.tasks, axes, strict=True):
        runs = {r["method"]: r for r in every if r["task"] == task}
        left = np.zeros(len(names))
        for index, phase in enumerate(phases):
            found = [runs.get(name, {"phases": {}})["phases"].get(phase, {}) for name in names]
            widths = np.array([usage.get("seconds", 0.0) for usage in found])
            look = {"height": 0.72, "color": COLOURS[index % len(COLOURS)]}
            axis.barh(range(len(names)), widths, left=left, label=phase, **look)
            left += widths
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.set(xlabel="seconds per problem")
        axis.set_title(task)
    handles, known = axes[0].get_legend_handles_labels()
    figure.legend(handles, known, loc="outside upper right", ncols=len(known), fontsize=8)
    return figure


def _rejection(drawing: Drawing) -> Any:
    """Share of proposals turned down."""
    every = [r for r in drawing.summary["runs"] if r["rejection"] is not None]
    names = [name for name in _rows_of(drawing) if any(r["method"] == name for r in every)]
    figure, axes = panels(len(drawing.tasks), (4.6, REST + ROW * max(len(names), 3)), ACROSS)
    for i, (task, axis) in enumerate(zip(drawing.tasks, axes, strict=True)):
        own = {r["method"]: r["rejection"] for r in every if r["task"] == task}
        rows = [(name, *(100 * x for x in own.get(name, (np.nan,) * 3))) for name in names]
        dots(axis, rows, drawing.look, labels=i % ACROSS == 0)
        axis.set(xlabel="rejected proposals, %", xlim=(-2, 102))
        axis.set_title(task)
    return figure
