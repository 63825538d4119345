"""Records read back into arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nabla.core.budget import UNITS
from nabla.core.errors import ConfigError
from nabla.core.files import parse_json, read_text, reading
from nabla.study.evaluation.config import unreached
from nabla.study.evaluation.journal import RECORDS, read
from nabla.study.evaluation.metric import ANSWER, REWARD, Metric
from nabla.study.evaluation.statistics import Array

ABOUT = "evaluation.json"
#: What is read of a cost: units of budgets, and the critical path, which earlier versions did not write down.
COSTS = (*UNITS, "critical_steps")


@dataclass
class Cell:
    """One method on one task under one budget. Arrays are ``[seeds, problems]``."""

    correct: Array
    answered: Array
    exhausted: Array
    failed: Array
    #: COSTS → cost until the answer that counts; NaN where there is none.
    cost: dict[str, Array]
    #: Of that answer; NaN where there is none, or none that was scored.
    reward: Array
    #: What the metric says of it: ``correct``, or its number, NaN where it has none.
    value: Array = field(default_factory=lambda: np.full((0, 0), np.nan))
    #: The task's partial score of that answer, 0 without an answer and for a run that failed, as it is wrong;
    #: NaN where the task gives none.
    score: Array = field(default_factory=lambda: np.full((0, 0), np.nan))


@dataclass
class Runs:
    """One method on one task, whole runs. Arrays are ``[seeds, problems]``."""

    correct: Array
    #: As a cell's.
    value: Array
    failed: Array
    #: COSTS → cost of the whole run.
    cost: dict[str, Array]
    #: COSTS → cost of the first answer; NaN where there is none.
    first: dict[str, Array]
    length: Array
    #: phase → unit → cost, summed over all runs.
    phases: dict[str, dict[str, float]] = field(default_factory=dict)
    #: [relative position, old reward, new reward, accepted, old right, new right, problem] of every proposal.
    proposals: list[list[Any]] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    peak_bytes: int = 0
    #: FLOPs that the method spent once, before its first problem, in no problem's cost.
    prepared_flops: float = 0.0


@dataclass
class Results:
    """What a folder holds.

    Args:
        tasks: label → problem ids, in their order.
        methods: labels.
        seeds: of the runs.
        ladder: (unit, value).
        reference: the method that others are compared with.
        complete: whether every unit is there; methods without all of their records are left out.
        runs: by (task, method).
        cells: by (task, method, unit, value).
        metric: what answers are measured by.
        ungraded: tasks without right and wrong.
        names: label → registered name of the method.
        unreached: what to know of shared arguments that methods lack.
    """

    tasks: dict[str, list[str]]
    methods: list[str]
    seeds: list[int]
    ladder: list[tuple[str, float]]
    reference: str
    complete: bool
    runs: dict[tuple[str, str], Runs]
    cells: dict[tuple[str, str, str, float], Cell]
    metric: Metric = field(default_factory=Metric)
    ungraded: frozenset[str] = frozenset()
    names: Mapping[str, str] = field(default_factory=dict)
    unreached: Sequence[str] = ()

    def methods_of(self, task: str) -> list[str]:
        """Methods with records of a task."""
        return [m for m in self.methods if (task, m) in self.runs]

    @classmethod
    def load(cls, folder: Path, metric: str | None = None) -> Results:
        """From a results folder.

        Args:
            folder: of the results.
            metric: in place of the one that it was run with, if the records know it; None for that one.

        Raises ConfigError if it is none, holds no finished method, or its records lack the metric.
        """
        path = folder / ABOUT
        fix = "Start the evaluation again with another --output."
        with reading(ABOUT, got=path, fix=fix):
            if not path.is_file():
                raise ConfigError("There are no results of an evaluation here", got=str(folder))
            config = parse_json(read_text(path, ABOUT))["config"]
        with reading("A record of this results folder", got=folder, fix=fix):
            own = Reading.of(config, metric)
            return _collect(read(folder), config, own, complete=(folder / RECORDS).exists())


@dataclass(frozen=True)
class Reading:
    """Where in a record a metric stands.

    Args:
        metric: the metric.
        field: of a record.
    """

    metric: Metric
    field: str

    @classmethod
    def of(cls, config: Mapping[str, Any], wanted: str | None) -> Reading:
        """Of a results folder. Raises ConfigError for a metric that its records lack."""
        own = config.get("metric", ANSWER)
        metric = Metric(own if wanted is None else wanted)
        if metric.name == ANSWER:
            return cls(metric, "correct")
        if metric.name == own:
            return cls(metric, "metric")
        another = "Run the evaluation with this metric in another --output."
        if metric.name != REWARD:
            raise ConfigError("These results were not measured by that metric", got=metric.name, fix=another)
        for task in config["tasks"]:
            used = {str(specs[task].get("rm")) for specs in config["methods"].values() if task in specs}
            if len(used) > 1:
                raise ConfigError(
                    f"The methods' rewards on {task!r} are not the same one, and cannot be compared",
                    got=sorted(used),
                    fix=another,
                )
        return cls(metric, "reward")

    def require(self, cells: Mapping[tuple[str, str, str, float], Cell], ungraded: Set[str]) -> None:
        """Raises ConfigError for results that the metric says nothing of."""
        if self.metric.rate and ungraded:
            raise ConfigError(
                "A task without gold answers has no right and wrong",
                got=sorted(ungraded),
                fix="Choose another metric (--metric).",
            )
        for (task, method, *_), cell in cells.items():
            if self.field == "reward" and np.isnan(cell.value[cell.answered]).any():
                raise ConfigError(
                    f"Not every answer of {method!r} on {task!r} has a reward",
                    fix="Run the evaluation with metric: reward in another --output, which scores them all.",
                )


def _collect(
    rows: Iterable[dict[str, Any]], config: dict[str, Any], reading: Reading, *, complete: bool
) -> Results:
    seeds = list(config["seeds"])
    ladder = [(unit, float(value)) for unit, values in config["budgets"].items() for value in values]
    methods = list(config["methods"])
    tasks: dict[str, dict[str, int]] = {task: {} for task in config["tasks"]}
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    ungraded: set[str] = set()
    scored: set[str] = set()
    for row in rows:
        problems = tasks[row["task"]]
        problems.setdefault(row["problem"], len(problems))
        if row["correct"] is None:
            ungraded.add(row["task"])
        if "score" in row:
            scored.add(row["task"])
        found.setdefault((row["task"], row["method"]), []).append(row)
    runs: dict[tuple[str, str], Runs] = {}
    cells: dict[tuple[str, str, str, float], Cell] = {}
    at = {seed: index for index, seed in enumerate(seeds)}
    for (task, method), own in found.items():
        size = (len(seeds), len(tasks[task]))
        if len(own) != size[0] * size[1] * (1 + len(ladder)):
            continue  # of an unfinished run
        made = {(unit, value): _empty_cell(size) for unit, value in ladder}
        run = _empty_runs(size)
        for row in own:
            where = (at[row["seed"]], tasks[task][row["problem"]])
            if row["kind"] == "run":
                _put_run(run, where, row, reading)
            else:
                _put_answer(made[row["unit"], float(row["value"])], where, row, reading)
        if task in scored:
            for cell in made.values():
                cell.score[cell.failed & np.isnan(cell.score)] = 0.0
        runs[task, method] = run
        cells.update({(task, method, *key): cell for key, cell in made.items()})
    if not runs:
        raise ConfigError("No method has been run to its end yet", fix="Start the evaluation again.")
    reading.require(cells, ungraded)
    reference = config.get("reference") or methods[-1]
    return Results(
        {task: list(problems) for task, problems in tasks.items() if problems},
        methods, seeds, ladder, reference, complete, runs, cells, reading.metric, frozenset(ungraded),
        names_of(config),
        unreached(config),
    )  # fmt: skip


def names_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Label → registered name of each method of an evaluation's configuration, as far as it says."""
    found = {}
    for label, specs in config["methods"].items():
        spec = next(iter(specs.values()), None)  # the first task's
        if isinstance(spec, Mapping) and "name" in spec:
            found[label] = str(spec["name"])
    return found


def _empty_cell(size: tuple[int, int]) -> Cell:
    cost, nan = _unknown(size), np.full(size, np.nan)
    return Cell(_no(size), _no(size), _no(size), _no(size), cost, nan, nan.copy(), nan.copy())


def _empty_runs(size: tuple[int, int]) -> Runs:
    nan = np.full(size, np.nan)
    return Runs(_no(size), nan, _no(size), _unknown(size), _unknown(size), np.zeros(size))


def _no(size: tuple[int, int]) -> Array:
    return np.zeros(size, dtype=bool)


def _unknown(size: tuple[int, int]) -> dict[str, Array]:
    return {unit: np.full(size, np.nan) for unit in COSTS}


def _put_answer(cell: Cell, where: tuple[int, int], row: dict[str, Any], reading: Reading) -> None:
    cell.correct[where] = bool(row["correct"])
    if row[reading.field] is not None:
        cell.value[where] = row[reading.field]
    cell.answered[where] = row["cost"] is not None
    cell.exhausted[where] = row["exhausted"]
    cell.failed[where] = row["error"] is not None
    if row["reward"] is not None:
        cell.reward[where] = row["reward"]
    if "score" in row:
        cell.score[where] = row["score"] or 0.0
    if row["cost"] is not None:
        for unit, value in {**row["cost"], "seconds": row["timing"]["seconds"]}.items():
            cell.cost[unit][where] = value


def _of(cost: dict[str, Any], unit: str) -> float:
    return float(cost.get(unit, np.nan) if unit == "critical_steps" else cost[unit])


def _put_run(run: Runs, where: tuple[int, int], row: dict[str, Any], reading: Reading) -> None:
    timing = row["timing"]
    run.correct[where] = bool(row["correct"])
    if row[reading.field] is not None:
        run.value[where] = row[reading.field]
    run.failed[where] = row["error"] is not None
    run.length[where] = row["length"]
    for unit, costs in run.cost.items():
        costs[where] = timing["seconds"] if unit == "seconds" else _of(row["cost"], unit)
        if row["first"] is not None:
            first = timing["first_seconds"] if unit == "seconds" else _of(row["first"], unit)
            run.first[unit][where] = first
    for phase in {**row["phases"], **timing["phases"]}:
        usage = {**row["phases"].get(phase, {}), "seconds": timing["phases"].get(phase, 0.0)}
        total = run.phases.setdefault(phase, dict.fromkeys(UNITS, 0.0))
        for unit in UNITS:
            total[unit] += usage.get(unit, 0)
    run.proposals += [[r[0] / max(row["length"], 1), *r[1:], where[1]] for r in row["revisions"]]
    run.peak_bytes = max(run.peak_bytes, timing["peak_bytes"])
    run.prepared_flops = max(run.prepared_flops, row.get("prepared_flops", 0.0))
    if row["error"] is not None:
        name = row["error"]["class"]
        run.errors[name] = run.errors.get(name, 0) + 1
