"""The finished points of an ablation, read back into arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nabla.core.errors import ConfigError
from nabla.core.files import parse_json, read_text, reading
from nabla.study.evaluation.journal import read
from nabla.study.evaluation.metric import Metric
from nabla.study.evaluation.results import Cell, Results, Runs
from nabla.study.evaluation.statistics import Array

DESIGN = "design.json"
#: Of whole runs, or under a budget (unit, value).
Measure = tuple[str, float] | None


@dataclass
class Outcome:
    """One point on one task. Arrays are ``[seeds, problems]``.

    Args:
        correct: by measure: right or wrong; where the metric is a number, that, NaN for none.
        cost: unit → cost of the whole run.
        responses: final ones; None where a run failed.
        failed: runs.
    """

    correct: dict[Measure, Array]
    cost: Mapping[str, Array]
    responses: Array
    failed: int = 0


@dataclass
class PointResult:
    """One point.

    Args:
        label: for tables.
        levels: factor → label, or number of a range.
        outcomes: by task.
    """

    label: str
    levels: dict[str, Any]
    outcomes: dict[str, Outcome] = field(default_factory=dict)


@dataclass
class Study:
    """What the folder of an ablation holds.

    Args:
        factors: name → labels in their order, the reference first.
        points: finished ones.
        tasks: labels.
        measures: what accuracies there are.
        grid: whether the points are all combinations of levels.
        complete: whether every point is there.
        metric: what answers are measured by.
    """

    factors: dict[str, list[str]]
    points: list[PointResult]
    tasks: list[str]
    measures: list[Measure]
    grid: bool = True
    complete: bool = True
    metric: Metric = field(default_factory=Metric)

    @property
    def reference(self) -> PointResult:
        """The point at the reference level of every factor; in a search the first point."""
        levels = {name: labels[0] for name, labels in self.factors.items()}
        return next((point for point in self.points if point.levels == levels), self.points[0])

    @classmethod
    def load(cls, folder: Path, metric: str | None = None) -> Study:
        """From a results folder; ``metric`` as :meth:`nabla.study.evaluation.results.Results.load` takes it.
        Raises ConfigError if it is none, no point is finished, or the records lack the metric."""
        path = folder / DESIGN
        with reading(DESIGN, got=path, fix="Start the ablation again."):
            if not path.is_file():
                raise ConfigError("There are no results of an ablation here", got=str(folder))
            return cls._of(folder, parse_json(read_text(path, DESIGN)), metric)

    @classmethod
    def _of(cls, folder: Path, design: Mapping[str, Any], metric: str | None) -> Study:
        listed, factors = design["points"], design["factors"]
        once = {entry["folder"]: entry for entry in reversed(listed)}  # a search may come to a point twice
        found = [_point(folder, entry, metric) for entry in reversed(once.values())]
        points = [point for point, _ in found]
        first = points[0].outcomes
        measures = list(next(iter(first.values())).correct)
        return cls(
            _split(factors, points),
            points,
            list(first),
            measures,
            grid=design["sampler"] == "grid",
            complete=len(listed) == design["size"],
            metric=found[0][1],
        )


def _point(folder: Path, entry: Mapping[str, Any], metric: str | None) -> tuple[PointResult, Metric]:
    own = folder / entry["folder"]
    results = Results.load(own, metric)
    found = PointResult(entry["label"], dict(entry["levels"]))
    for (task, method), run in results.runs.items():
        measured: dict[Measure, Runs | Cell] = {None: run}
        if results.ladder:
            measured = {key: results.cells[task, method, *key] for key in results.ladder}
        correct = {key: part.correct if results.metric.rate else part.value for key, part in measured.items()}
        empty = np.full(run.correct.shape, None, dtype=object)
        found.outcomes[task] = Outcome(correct, run.cost, empty, int(run.failed.sum()))
    places = {task: {name: i for i, name in enumerate(ids)} for task, ids in results.tasks.items()}
    seeds = {seed: i for i, seed in enumerate(results.seeds)}
    for row in read(own):
        if row["kind"] == "run":
            where = seeds[row["seed"]], places[row["task"]][row["problem"]]
            found.outcomes[row["task"]].responses[where] = row["response"]
    return found, results.metric


def _split(factors: list[dict[str, Any]], points: list[PointResult]) -> dict[str, list[str]]:
    """Labels of every factor's levels, the reference first. A range becomes two levels, the points' halves
    below and above the median; the points are labelled so."""
    found = {}
    for entry in factors:
        name = entry["name"]
        if "levels" in entry:
            first = entry["reference"]
            found[name] = [first, *(label for label in entry["levels"] if label != first)]
            continue
        middle = float(np.median([point.levels[name] for point in points]))
        found[name] = [f"below {middle:.3g}", f"from {middle:.3g}"]
        for point in points:
            point.levels[name] = found[name][point.levels[name] >= middle]
    return found
