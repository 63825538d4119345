"""The figures of an evaluation, as PNG; bands and bars are 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nabla.core.budget import UNITS
from nabla.core.extras import require_extra
from nabla.study.evaluation.metric import Metric
from nabla.study.evaluation.results import Results
from nabla.study.evaluation.statistics import bootstrap_share

MARKERS = "osD^v<>pPX*hd8H"
_UNIT = {"calls": "model calls", "tokens": "tokens", "flops": "FLOPs", "seconds": "seconds"}
#: Intervals of equal width along a response.
BINS = 10


def write_plots(results: Results, summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """All figures; those about proposals only where a method makes any."""
    require_extra("eval", "matplotlib", purpose="Figures")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metric = results.metric
    drawn = [(f"{metric.noun}_{unit}.png", _level(unit, metric)) for unit in UNITS]
    if len(results.seeds) > 1:
        drawn.append(("best_of_k.png", _best(metric)))
    drawn.append(("phases.png", _phases))
    if any(run.proposals for run in results.runs.values()):
        graded = set(results.tasks) - results.ungraded
        drawn += [
            ("rejection.png", _rejection),
            *([("reward_hacking.png", _hacking)] if graded else []),
            ("positions.png", _positions),
        ]
    paths = []
    for name, draw in drawn:
        figure = Figure(figsize=(5.5 * len(results.tasks), 5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, len(results.tasks), squeeze=False)[0]
        for task, axis in zip(results.tasks, axes, strict=True):
            draw(results, summary, task, axis)
            axis.set_title(task)
        entries: dict[str, Any] = {}
        for axis in axes:
            handles, labels = axis.get_legend_handles_labels()
            entries.update(zip(labels, handles, strict=True))
        if entries:
            figure.legend(
                list(entries.values()), list(entries), loc="outside lower center", ncols=4, fontsize=8
            )
        paths.append(folder / name)
        figure.savefig(paths[-1], dpi=110)
    return paths


def _style(results: Results, method: str) -> dict[str, Any]:
    require_extra("eval", "matplotlib", purpose="Figures")
    from matplotlib import colormaps

    index = results.methods.index(method)
    return {"color": colormaps["tab20"](index % 20), "marker": MARKERS[index % len(MARKERS)], "markersize": 4}


def _level(unit: str, metric: Metric) -> Any:
    """Against the budget where there is a ladder in this unit, else whole runs at their mean cost."""

    def draw(results: Results, summary: Mapping[str, Any], task: str, axis: Any) -> None:
        ladder = [r for r in summary["rows"] if (r["task"], r["unit"]) == (task, unit) and r["answered"]]
        ends = [] if ladder else [r for r in summary["runs"] if r["task"] == task and r[unit]]
        for method in results.methods_of(task):
            mine = [r for r in (ladder or ends) if r["method"] == method]
            rows = [r for r in mine if r[metric.key] is not None]
            xs = [r["value"] if ladder else r[unit] for r in rows]
            ys = [metric.scale * r[metric.key] for r in rows]
            style = _style(results, method)
            axis.plot(xs, ys, label=method, linewidth=1, **style)
            low, high = [metric.scale * r["low"] for r in rows], [metric.scale * r["high"] for r in rows]
            if len(rows) > 1:
                axis.fill_between(xs, low, high, color=style["color"], alpha=0.1, linewidth=0)
            else:
                axis.vlines(xs, low, high, color=style["color"], linewidth=1)
        kind = "budget" if ladder else "mean cost of a run"
        axis.set(xlabel=f"{_UNIT[unit]} per problem ({kind})", ylabel=metric.axis)
        if ladder or ends:
            axis.set_xscale("log")

    return draw


def _best(metric: Metric) -> Any:
    """The best of k runs by reward, at the first unit's largest budget: the mean over all choices of k of the
    seeds' runs. Dotted, for right and wrong: whether one of the k is right."""

    def draw(results: Results, summary: Mapping[str, Any], task: str, axis: Any) -> None:
        ladder = [(unit, value) for unit, value in results.ladder if unit == results.ladder[0][0]]
        key = (task, *max(ladder, default=(None, None)))
        for row in summary["rows"]:
            if (row["task"], row["unit"], row["value"]) != key:
                continue
            style = _style(results, row["method"])
            for name, look in (("best_of_k", "-"), ("pass_at_k", ":")):
                curve = row[name] if name == "best_of_k" or metric.rate else None
                if curve is None:
                    continue
                label = {"label": row["method"]} if look == "-" or row["best_of_k"] is None else {}
                ys = [metric.scale * value for value in curve.values()]
                axis.plot([int(k) for k in curve], ys, linestyle=look, linewidth=1, **label, **style)
        unit, value = key[1:]
        within = "" if unit is None else f" at {value:g} {_UNIT[unit]} each"
        dotted = " (dotted: pass@k)" if metric.rate else ""
        axis.set(xlabel=f"k runs{within}; best by reward{dotted}", ylabel=metric.axis)
        axis.locator_params(axis="x", integer=True)

    return draw


def _phases(results: Results, summary: Mapping[str, Any], task: str, axis: Any) -> None:
    """Seconds of a run by phase, as bars."""
    require_extra("eval", "matplotlib", purpose="Figures")
    from matplotlib import colormaps

    del results
    runs = [r for r in summary["runs"] if r["task"] == task]
    phases = list(dict.fromkeys(p for r in summary["runs"] for p in r["phases"]))
    places = np.arange(len(runs))
    left = np.zeros(len(runs))
    for index, phase in enumerate(phases):
        widths = np.array([r["phases"].get(phase, {}).get("seconds", 0.0) for r in runs])
        axis.barh(places, widths, left=left, label=phase, color=colormaps["tab10"](index))
        left += widths
    axis.set_yticks(places, [r["method"] for r in runs], fontsize=8)
    axis.invert_yaxis()
    axis.set(xlabel="seconds per problem")


def _rejection(results: Results, summary: Mapping[str, Any], task: str, axis: Any) -> None:
    """Share of proposals turned down."""
    del results
    runs = [r for r in summary["runs"] if r["task"] == task and r["rejection"] is not None]
    places = np.arange(len(runs))
    values = np.array([r["rejection"] for r in runs]).reshape(-1, 3) * 100
    errors = [values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]]
    axis.barh(places, values[:, 0], xerr=errors, color="tab:blue", alpha=0.7)
    axis.set_yticks(places, [r["method"] for r in runs], fontsize=8)
    axis.invert_yaxis()
    axis.set(xlabel="rejected proposals, %", xlim=(0, 100))


def _hacking(results: Results, summary: Mapping[str, Any], task: str, axis: Any) -> None:
    """Accepted proposals: share of right responses by new reward, in five equal parts of each method's."""
    del summary
    for method in results.methods_of(task):
        made = results.runs[task, method].proposals
        taken = [p for p in made if p[3] and p[2] is not None and p[5] is not None]
        if len(taken) < 5:
            continue
        taken.sort(key=lambda p: p[2])
        parts = [[taken[i] for i in chosen] for chosen in np.array_split(np.arange(len(taken)), 5)]
        xs = [float(np.mean([p[2] for p in part])) for part in parts]
        ys = np.array([_right(part) for part in parts]) * 100
        errors = np.maximum([ys[:, 0] - ys[:, 1], ys[:, 2] - ys[:, 0]], 0)
        axis.errorbar(xs, ys[:, 0], yerr=errors, label=method, linewidth=1, **_style(results, method))
    axis.set(xlabel="reward of the accepted proposal", ylabel="right by the checker, %")


def _right(proposals: list[list[Any]]) -> tuple[float, float, float]:
    """Share of proposals that are right, with its interval over problems."""
    right = np.array([bool(p[5]) for p in proposals])
    return (float(right.mean()), *bootstrap_share(right, np.array([p[6] for p in proposals]), resamples=999))


def _positions(results: Results, summary: Mapping[str, Any], task: str, axis: Any) -> None:
    """Where along the response proposals are made (thin) and accepted (thick)."""
    del summary
    edges = np.linspace(0, 1, BINS + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    for method in results.methods_of(task):
        run = results.runs[task, method]
        if not run.proposals:
            continue
        where = np.clip([p[0] for p in run.proposals], 0, 1)
        chosen = np.array([p[3] for p in run.proposals])
        style = _style(results, method)
        made = np.histogram(where, edges)[0] / run.correct.size
        kept = np.histogram(where[chosen], edges)[0] / run.correct.size
        axis.plot(centres, made, linewidth=0.7, linestyle=":", color=style["color"])
        axis.plot(centres, kept, label=method, linewidth=1, **style)
    axis.set(xlabel="position / length of the response", ylabel="proposals per run (dotted) and accepted")
