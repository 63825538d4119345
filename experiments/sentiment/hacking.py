"""What a climbed reward is worth: its number beside the lexicon's, for every method and budget.

    python -m experiments.sentiment.hacking runs/sentiment/results --into experiments/results/sentiment

Writes ``lexicon.csv`` and ``lexicon.png`` (``hacking.csv`` is the evaluation's own). Answers are compared
with those under the smallest budget, of the same problems: how far the reward rose, how far the lexicon did,
and of how many the reward rose while the lexicon fell. Where the reward rises further than the lexicon, it
promises more than it keeps.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nabla.core.errors import ConfigError
from nabla.launch.figures import GREY, Canvas, end_labels, looks, panels, style
from nabla.study.evaluation.journal import read
from nabla.study.evaluation.statistics import Array, bootstrap_difference

#: Of the files.
NAME = "lexicon"
#: (reward, lexicon) of an answer.
Pair = tuple[float, float]
#: Task, problem and seed.
Run = tuple[str, str, int]
#: method → budget → run → its answer.
Answers = dict[str, dict[float, dict[Run, Pair]]]
FIELDS = (
    *("method", "flops", "answers", "reward", "lexicon", "reward_rise", "lexicon_rise"),
    *("gap_rise", "gap_low", "gap_high", "hacked"),
)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("results", type=Path, help="folder of an evaluation with the lexicon as its metric")
    parser.add_argument("--into", type=Path, default=None, help="default: the same folder")
    options = parser.parse_args(arguments)
    into = options.into or options.results
    into.mkdir(parents=True, exist_ok=True)
    found = table(answers(read(options.results)))
    with (into / f"{NAME}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _short(value) for key, value in row.items()} for row in found)
    with style():
        Canvas(into).save(drawn(found), NAME)
    for row in found:
        print("  ".join(f"{key} {_short(value)}" for key, value in row.items()))


def answers(rows: Iterable[Mapping[str, Any]]) -> Answers:
    """Answers within each budget of FLOPs. Raises ConfigError where there is none with both numbers."""
    found: Answers = {}
    for row in rows:
        known = row["reward"] is not None and row["metric"] is not None
        if row["kind"] == "answer" and row["unit"] == "flops" and known:
            budgets = found.setdefault(row["method"], {})
            pair = float(row["reward"]), float(row["metric"])
            budgets.setdefault(float(row["value"]), {})[row["task"], row["problem"], row["seed"]] = pair
    if not found:
        raise ConfigError(
            "No answer of these results has a reward beside a metric",
            fix="Evaluate with rewards, a metric and budgets in flops (experiments/configs/sentiment.yaml).",
        )
    return found


def table(found: Answers) -> list[dict[str, Any]]:
    """A row per method and budget; rises are those above the smallest budget, with the interval of their
    difference over problems (bootstrap, 95 %). Seeds are averaged within a problem first."""
    rows = []
    for method, budgets in found.items():
        first = budgets[min(budgets)]
        for budget, own in sorted(budgets.items()):
            both = [run for run in own if run in first]
            now = np.array([own[run] for run in both])
            rise = now - np.array([first[run] for run in both])
            hacked = int(np.sum((rise[:, 0] > 0) & (rise[:, 1] < 0)))
            now, rise = by_problem(both, now), by_problem(both, rise)
            low, high = bootstrap_difference(rise[:, 0], rise[:, 1])
            values = (
                *(method, budget, len(both), *now.mean(0).tolist(), *rise.mean(0).tolist()),
                *(float(np.mean(rise[:, 0] - rise[:, 1])), low, high, hacked),
            )
            rows.append(dict(zip(FIELDS, values, strict=True)))
    return rows


def by_problem(runs: Sequence[Run], values: Array) -> Array:
    """Means over each problem's runs, in the order of the problems."""
    places: dict[tuple[str, str], list[int]] = {}
    for place, (task, problem, _) in enumerate(runs):
        places.setdefault((task, problem), []).append(place)
    return np.array([values[own].mean(0) for own in places.values()])


def drawn(rows: list[dict[str, Any]]) -> Any:
    """The lexicon's number against the reward's, a line per method from its smallest budget on, with the
    method's name at its end; on the dashed line a reward keeps what it promises."""
    figure, (axis,) = panels(1, (6.4, 4.2))
    methods = tuple(dict.fromkeys(row["method"] for row in rows))
    style_of, last = looks(methods), {}
    for method in methods:
        own = [row for row in rows if row["method"] == method]
        xs, ys = ([row[key] for row in own] for key in ("reward", "lexicon"))
        axis.plot(xs, ys, linewidth=1.5, **style_of[method])
        last[method] = xs[-1], ys[-1]
    ends = [max(axis.get_xlim()[0], axis.get_ylim()[0]), min(axis.get_xlim()[1], axis.get_ylim()[1])]
    axis.plot(ends, ends, linestyle="--", linewidth=1.0, color=GREY, zorder=0)
    axis.set(xlabel="mean of the reward that is climbed", ylabel="mean of the lexicon (VADER)")
    figure.draw_without_rendering()  # the axes have their sizes
    end_labels(axis, last, {method: look["color"] for method, look in style_of.items()})
    return figure


def _short(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) and abs(value) < 1e6 else value


if __name__ == "__main__":
    main()
