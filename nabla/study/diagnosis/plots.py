"""The figure: which swaps succeed, right texts against wrong ones, and calibration; bars are 95 %
intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nabla.launch.figures import COLOURS, GREY, MARKERS, Canvas, panels, style

Row = Mapping[str, Any]


def write_figure(told: Row, canvas: Canvas, name: str) -> Path:
    """Three panels, from what a diagnosis has stored.

    Args:
        told: as :func:`nabla.study.diagnosis.report.to_dict` has it.
        canvas: where the figure goes.
        name: of the file, without its ending.
    """
    seen = told["findings"]
    with style():
        figure, (swaps, texts, bins) = panels(3, (5.4, 4.8))
        _bars(
            swaps,
            [(f"{p['name']} ({p['reward'] or 'language model'})", p["auc"]) for p in seen["predictors"]],
            "swaps that turn it right",
        )
        _bars(
            texts,
            [
                *[(f"text right: {c['name']}", c["pooled"]) for c in seen["choosers"]],
                *[(f"mistake made: {x['name']}", x["prefix"]) for x in seen["locators"]],
                *[(f"first mistake: {x['name']}", x["first"]) for x in seen["locators"]],
            ],
            "texts and mistakes",
        )
        _calibration(bins, [c for c in seen["choosers"] if c["bins"]])
        figure.suptitle(f"{told['task']}: {seen['problems']} problems")
        return canvas.save(figure, name)


def _bars(axis: Any, rows: Iterable[tuple[str, Row]], title: str) -> None:
    known = [(name, found) for name, found in rows if found["value"] is not None][::-1]
    places = list(range(len(known)))
    values = [found["value"] for _, found in known]
    # One problem has no interval.
    sides = [
        [0 if found[end] is None else max(sign * (found[end] - found["value"]), 0) for _, found in known]
        for end, sign in (("low", -1), ("high", 1))
    ]
    axis.errorbar(values, places, xerr=sides, fmt="o", capsize=3)
    axis.axvline(0.5, color=GREY, linewidth=1, linestyle=":")
    axis.set(yticks=places, xlim=(0, 1.02), title=title, xlabel="AUC")
    axis.set_yticklabels([name for name, _ in known], fontsize=8)


def _calibration(axis: Any, choosers: Iterable[Row]) -> None:
    axis.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    for index, chooser in enumerate(choosers):
        axis.plot(
            [b["said"] for b in chooser["bins"]],
            [b["right"] for b in chooser["bins"]],
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            label=f"{chooser['name']}, error {chooser['error']:.2f}",
        )
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)
    axis.set(title="calibration", xlabel="probability that is said", ylabel="share that is right")
