"""The three figures, as PNG; error bars and bands are 95 % intervals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from nabla.study.laboratory.study import Row, Study, softmax_norms
from nabla.study.laboratory.truths import SHARES, WIDTHS

MARKERS = "osD^v<>pPX*hd8H"
#: Smallest value shown on a logarithmic axis: exact zeros stand there.
FLOOR = 1e-4


def write_plots(study: Study, folder: Path) -> list[Path]:
    """Bias-variance plane, gradient norm against entropy, cosine against temperature."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    paths = []
    for name, draw in (
        ("bias_variance.png", _bias_variance),
        ("gradient_norm.png", _gradient_norm),
        ("cosine.png", _cosine),
    ):
        figure = Figure(layout="constrained")
        FigureCanvasAgg(figure)
        draw(study, figure)
        path = folder / name
        figure.savefig(path, dpi=90)
        paths.append(path)
    return paths


def _style(study: Study, name: str) -> dict[str, Any]:
    from matplotlib import colormaps

    index = study.estimators.index(name)
    color = colormaps["tab20"](index % 20)
    return {"color": color, "marker": MARKERS[index % len(MARKERS)], "markersize": 5}


def _legend(figure: Any, axis: Any) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)


def _panels(study: Study, figure: Any) -> list[tuple[str, Any]]:
    families = study.families
    columns = min(2, len(families))
    lines = math.ceil(len(families) / columns)
    figure.set_size_inches(5 * columns, 3.6 * lines + 1)
    grid = figure.subplots(lines, columns, squeeze=False)
    return list(zip(families, grid.flat, strict=False))


def _bias_variance(study: Study, figure: Any) -> None:
    settings = study.settings
    panels = _panels(study, figure)
    for family, axis in panels:
        rows = study.select(family=family, length=settings.length, temperature=1.0, share=settings.middle)
        for row in rows:
            bias, variance = row.result.bias, row.result.variance
            x, y = max(bias.value, FLOOR), max(variance.value, FLOOR)
            axis.errorbar(
                x,
                y,
                xerr=[[x - max(bias.low, FLOOR) if x > FLOOR else 0], [max(bias.high, FLOOR) - x]],
                yerr=[[y - max(variance.low, FLOOR)], [max(variance.high, FLOOR) - y]],
                label=row.estimator,
                linestyle="none",
                **_style(study, row.estimator),
            )
        axis.set(xscale="log", yscale="log", title=family)
        axis.set(xlabel="relative bias", ylabel="relative variance")
    figure.suptitle(f"One estimate, τ=1; {FLOOR:g} stands for 0", fontsize=10)
    _legend(figure, panels[0][1])


def _line(axis: Any, xs: list[float], intervals: list[Any], label: str, **style: Any) -> None:
    axis.plot(xs, [i.value for i in intervals], label=label, linewidth=1, **style)
    color = style.get("color")
    axis.fill_between(xs, [i.low for i in intervals], [i.high for i in intervals], color=color, alpha=0.2)


def _gradient_norm(study: Study, figure: Any) -> None:
    families = study.families
    figure.set_size_inches(10, 5.5)
    left, right = figure.subplots(1, 2)
    found: dict[int, list[tuple[float, Any]]] = {}
    for width, entropy, norm in softmax_norms(WIDTHS, SHARES, 100, study.seed):
        found.setdefault(width, []).append((entropy / math.log(width), norm))
    for width, points in found.items():
        _line(left, [x for x, _ in points], [i for _, i in points], f"K={width}", marker=".")
    left.set(yscale="log", xlabel="entropy / log K", ylabel="||∂L/∂z|| / ||∂L/∂y||")
    left.set_title("Eq. 25: the softmax rule, both ends")
    left.legend(fontsize=8)
    family = families[-1]
    for name in study.estimators:
        rows = _sorted(study, name, family)
        scaled = [_scaled(row) for row in rows]
        xs = [row.entropy / math.log(row.width) for row in rows]
        _line(right, xs, scaled, name, **_style(study, name))
    right.set(yscale="symlog", xlabel="entropy / log K", ylabel="mean norm of one estimate")
    right.set_yscale("symlog", linthresh=1e-3)
    right.set_title(f"{family}, τ=1")
    _legend(figure, right)


def _sorted(study: Study, name: str, family: str) -> list[Row]:
    rows = study.select(estimator=name, family=family, length=study.settings.length, temperature=1.0)
    return sorted(rows, key=lambda row: row.entropy)


def _scaled(row: Row) -> Any:
    return row.result.norm / (1 / row.result.exact) if row.result.exact > 0 else row.result.norm


def _cosine(study: Study, figure: Any) -> None:
    settings = study.settings
    panels = _panels(study, figure)
    for family, axis in panels:
        for name in study.estimators:
            rows = sorted(
                study.select(estimator=name, family=family, length=settings.length, share=settings.middle),
                key=lambda row: row.temperature,
            )
            xs = [row.temperature for row in rows]
            _line(axis, xs, [row.result.cosine for row in rows], name, **_style(study, name))
        axis.set(xscale="log", title=family, xlabel="temperature", ylabel="cosine of one estimate")
        axis.set_xticks(settings.temperatures, [f"{tau:g}" for tau in settings.temperatures])
        axis.minorticks_off()
        axis.axhline(0, color="grey", linewidth=0.5)
    _legend(figure, panels[0][1])
