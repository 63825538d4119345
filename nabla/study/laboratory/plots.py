"""The three figures; bars and bands are 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from nabla.core.errors import require_one_of
from nabla.launch.figures import (
    COLOURS,
    GREY,
    LINES,
    Canvas,
    end_labels,
    line,
    line_styles,
    looks,
    panels,
    style,
)
from nabla.study.laboratory.measure import Interval
from nabla.study.laboratory.study import Row, Study, softmax_norms
from nabla.study.laboratory.truths import SHARES, WIDTHS

#: Smallest value shown on a logarithmic axis: exact zeros stand there.
FLOOR = 1e-4
#: The estimator of the inner loop by default: always drawn.
DEFAULT = "straight-through"

Curve = tuple[list[float], list[Interval]]


def write_plots(study: Study, folder: Path | Canvas, methods: Sequence[str] | None = None) -> list[Path]:
    """Bias and variance, gradient norm against entropy, cosine against temperature.

    Args:
        study: what was measured.
        folder: where figures go.
        methods: estimators that lines are drawn of; None for at most eight, by their cosine. Bias and
            variance are of all.

    Raises ConfigError for unknown estimators.
    """
    canvas = folder if isinstance(folder, Canvas) else Canvas(folder)
    shown = _chosen(study, methods)
    with style():
        return [
            canvas.save(_bias_variance(study), "bias_variance"),
            canvas.save(_gradient_norm(study, shown), "gradient_norm"),
            canvas.save(_cosine(study, shown), "cosine"),
        ]


def _chosen(study: Study, wanted: Sequence[str] | None) -> list[str]:
    known = study.estimators
    if wanted is not None:
        for name in wanted:
            require_one_of(name, known, "This estimator was not measured", "Estimators")
        return [name for name in known if name in wanted]
    cosines: dict[str, list[float]] = {}
    for row in study.select(temperature=1.0):
        cosines.setdefault(row.estimator, []).append(row.result.cosine.value)
    ordered = sorted(known, key=lambda name: -sum(cosines.get(name, [0.0])) / len(cosines.get(name, [0.0])))
    picked = dict.fromkeys([*(name for name in (DEFAULT,) if name in known), *ordered])
    return [name for name in known if name in list(picked)[:LINES]]


def _bias_variance(study: Study) -> Any:
    """A row per estimator, both quantities in it: nothing can hide behind another point."""
    settings, names = study.settings, study.estimators
    found = {
        family: study.select(family=family, length=settings.length, temperature=1.0, share=settings.middle)
        for family in study.families
    }
    rank = {name: [r.result.bias.value for rows in found.values() for r in rows if r.estimator == name]
            for name in names}  # fmt: skip
    names = sorted(names, key=lambda name: sum(rank[name]) / max(len(rank[name]), 1))
    figure, axes = panels(len(found), (3.3, 1.3 + 0.3 * len(names)), columns=4, sharey=True)
    for axis, (family, rows) in zip(axes, found.items(), strict=True):
        own = {row.estimator: row for row in rows}
        for place, name in enumerate(names):
            if name in own:
                result = own[name].result
                _mark(axis, result.bias, place - 0.15, COLOURS[0], "o", "relative bias")
                _mark(axis, result.variance, place + 0.15, COLOURS[1], "D", "relative variance")
        axis.set(xscale="log", title=family)
        axis.set_xlim(left=FLOOR / 2)
        _zero_tick(axis)
        axis.grid(axis="y", visible=False)
        for place in range(0, len(names), 2):
            axis.axhspan(place - 0.5, place + 0.5, color="0.5", alpha=0.06, linewidth=0)
    axes[0].set_yticks(range(len(names)), names, fontsize=8)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    handles, known = axes[0].get_legend_handles_labels()
    unique = dict(zip(known, handles, strict=True))
    figure.legend(list(unique.values()), list(unique), loc="outside upper left", ncols=2)
    figure.supxlabel("of one estimate at τ = 1, relative to the exact gradient", fontsize=9)
    return figure


def _mark(axis: Any, interval: Interval, place: float, colour: str, marker: str, label: str) -> None:
    value, low, high = (max(x, FLOOR) for x in (interval.value, interval.low, interval.high))
    axis.plot([low, high], [place, place], color=colour, linewidth=1.8, alpha=0.5)
    axis.plot([value], [place], marker, color=colour, markersize=5, label=label)


def _zero_tick(axis: Any) -> None:
    """The axis begins with 0, where exact zeros stand; a dotted line parts it from the others."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    def named(value: float, _: Any) -> str:
        if math.isclose(value, FLOOR):
            return "0"
        return f"{value:g}" if value >= 1e-3 else ""

    axis.xaxis.set_major_locator(LogLocator(numticks=12))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(named))
    axis.axvline(FLOOR * 3, color="0.6", linewidth=0.8, linestyle=":")


def _curves(axis: Any, curves: Mapping[str, Curve], shown: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Curves of the shown estimators in their colours, all others thin and grey; ends by name. Of those that
    coincide all but the first are dashed, so that each shows."""
    ends: dict[str, tuple[float, float]] = {}
    for name, (xs, intervals) in curves.items():
        if name not in shown:
            axis.plot(xs, [i.value for i in intervals], color=GREY, linewidth=0.8, alpha=0.7, zorder=1)
    heights = {name: [i.value for i in intervals] for name, (_, intervals) in curves.items()}
    look, drawn = looks(shown), [name for name in shown if name in curves]
    styles = line_styles([heights[name] for name in drawn], chain.from_iterable(heights.values()))
    for name, dash in zip(drawn, styles, strict=True):
        xs, intervals = curves[name]
        bounds = [i.low for i in intervals], [i.high for i in intervals]
        line(axis, xs, heights[name], bounds, look[name], band=True, linestyle=dash)
        ends[name] = (xs[-1], intervals[-1].value)
    return ends


def _others(curves: Mapping[str, Curve], shown: Sequence[str]) -> str:
    return "" if set(curves) <= set(shown) else " (grey: the other estimators)"


def _colours(shown: Sequence[str]) -> dict[str, str]:
    return {name: str(look["color"]) for name, look in looks(shown).items()}


def _gradient_norm(study: Study, shown: Sequence[str]) -> Any:
    figure, (left, right) = panels(2, (5.6, 4.4))
    found: dict[int, list[tuple[float, Interval]]] = {}
    for width, entropy, norm in softmax_norms(WIDTHS, SHARES, 100, study.seed):
        found.setdefault(width, []).append((entropy / math.log(width), norm))
    names = [f"K = {width}" for width in found]
    look, first = looks(names), dict[str, tuple[float, float]]()
    for name, points in zip(names, found.values(), strict=True):
        xs, norms = [x for x, _ in points], [i for _, i in points]
        bounds = [i.low for i in norms], [i.high for i in norms]
        line(left, xs, [i.value for i in norms], bounds, look[name], band=True)
        first[name] = (xs[-1], norms[-1].value)
    left.set(yscale="log", xlabel="entropy / log K", ylabel="||∂L/∂z|| / ||∂L/∂y||")
    left.set_title("Eq. 25: the softmax rule, both ends")
    family = study.families[-1]
    curves: dict[str, Curve] = {}
    for name in study.estimators:
        rows = sorted(
            study.select(estimator=name, family=family, length=study.settings.length, temperature=1.0),
            key=lambda row: row.entropy,
        )
        if rows:
            xs = [row.entropy / math.log(row.width) for row in rows]
            curves[name] = xs, [_scaled(row) for row in rows]
    second = _curves(right, curves, shown)
    right.set(xlabel="entropy / log K", ylabel="mean norm of one estimate")
    right.set_yscale("symlog", linthresh=1e-3)
    right.set_title(f"{family}, τ = 1{_others(curves, shown)}")
    figure.draw_without_rendering()
    end_labels(left, first, {name: look[name]["color"] for name in names})
    end_labels(right, second, _colours(shown))
    return figure


def _scaled(row: Row) -> Interval:
    return row.result.norm / (1 / row.result.exact) if row.result.exact > 0 else row.result.norm


def _cosine(study: Study, shown: Sequence[str]) -> Any:
    settings = study.settings
    figure, axes = panels(len(study.families), (5.6, 3.7), columns=2)
    ends = []
    for family, axis in zip(study.families, axes, strict=True):
        curves: dict[str, Curve] = {}
        for name in study.estimators:
            rows = sorted(
                study.select(estimator=name, family=family, length=settings.length, share=settings.middle),
                key=lambda row: row.temperature,
            )
            if rows:
                curves[name] = [row.temperature for row in rows], [row.result.cosine for row in rows]
        ends.append(_curves(axis, curves, shown))
        axis.set(xscale="log", xlabel="temperature", ylabel="cosine of one estimate")
        axis.set_title(family + _others(curves, shown))
        temperatures = sorted({tau for xs, _ in curves.values() for tau in xs})
        axis.set_xticks(temperatures, [f"{tau:g}" for tau in temperatures])
        axis.minorticks_off()
        axis.axhline(0, color="0.4", linewidth=0.6)
    figure.draw_without_rendering()
    for axis, own in zip(axes, ends, strict=True):
        end_labels(axis, own, _colours(shown))
    return figure
