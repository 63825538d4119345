"""The figure: which swaps succeed, right texts against wrong ones, and calibration; bars are 95 %
intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nabla.core.extras import require_extra
from nabla.study.diagnosis.measures import Estimate
from nabla.study.diagnosis.study import Diagnosis


def write_figure(found: Diagnosis, path: Path) -> None:
    """A PNG of three panels."""
    require_extra("eval", "matplotlib", purpose="Figures")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 5), layout="constrained")
    FigureCanvasAgg(figure)
    swaps, texts, bins = figure.subplots(1, 3, width_ratios=(5, 4, 3))
    seen = found.findings
    _bars(
        swaps,
        [(f"{p.name} ({p.reward})" if p.reward else p.name, p.auc) for p in seen.predictors],
        "AUC: swaps that turn it right",
    )
    _bars(
        texts,
        [
            *[(f"text right: {c.name}", c.pooled) for c in seen.choosers],
            *[(f"mistake made: {x.name}", x.prefix) for x in seen.locators],
            *[(f"first mistake: {x.name}", x.first) for x in seen.locators],
        ],
        "AUC: texts and mistakes",
    )
    bins.plot([0, 1], [0, 1], color="grey", linewidth=1)
    for chooser in seen.choosers:
        if chooser.bins:
            bins.plot(
                [b.said for b in chooser.bins],
                [b.right for b in chooser.bins],
                marker="o",
                label=f"{chooser.name}, error {chooser.error:.2f}",
            )
    if any(chooser.bins for chooser in seen.choosers):
        bins.legend(fontsize=8)
    bins.set(xlabel="probability that is said", ylabel="share that is right")
    figure.suptitle(f"{found.subject.task.name}: {seen.problems} problems")
    figure.savefig(path, dpi=110)


def _bars(axis: Any, rows: Sequence[tuple[str, Estimate]], title: str) -> None:
    known = [(name, found) for name, found in rows if found.known][::-1]
    places = list(range(len(known)))
    values = [found.value for _, found in known]
    sides = [
        [max(found.value - found.low, 0) for _, found in known],
        [max(found.high - found.value, 0) for _, found in known],
    ]
    axis.errorbar(values, places, xerr=sides, fmt="o", capsize=3)
    axis.axvline(0.5, color="grey", linewidth=1, linestyle=":")
    axis.set(yticks=places, yticklabels=[name for name, _ in known], xlim=(0, 1.02), title=title)
