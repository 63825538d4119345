"""Small runs of every kind as they are stored, made without a model."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nabla.core.costs import Cost, Usage
from nabla.core.prompt import Prompt
from nabla.core.solution import Checkpoint, Revision, Solution
from nabla.study.evaluation.journal import line
from nabla.study.evaluation.lines import rows
from nabla.theory.figures import Figure, Line, Panel
from nabla.theory.plots import write
from tests.launch.view.made import Made

LADDER = [("calls", 5.0), ("flops", 100.0)]
INTERVAL = {"value": 0.7, "low": 0.6, "high": 0.8, "count": 3}


def solution(number: int, right: bool) -> Solution:
    """Of one problem, after two proposals."""
    usage = Usage(decode_steps=3, tokens=6, flops=9.0, seconds=0.03)
    text = "yes" if right else "no"
    revisions = (
        Revision(0, 1, 2, 0.0, 1.0, True, "no", text),
        Revision(1, 1, 2, 1.0, 0.0, False, text, "no"),
    )
    return Solution(
        Prompt.of("q", id=str(number)), text, (1, 2), 1.0, True, "m", Cost({"rollout": usage}),
        revisions=revisions, checkpoints=(Checkpoint(usage, (1, 2), text, 1.0, True),),
    )  # fmt: skip


def evaluation(folder: Path, methods: Iterable[str] = ("greedy", "nabla")) -> None:
    """Two methods on three problems; both have accepted proposals enough for every figure."""
    folder.mkdir(parents=True)
    config = {
        "tasks": {"t": {}},
        "methods": {method: {"t": {"name": method, "rm": "r"}} for method in methods},
        "seeds": [0, 1],
        "budgets": {unit: [value] for unit, value in LADDER},
    }
    _json(folder / "evaluation.json", {"config": config})
    records = b""
    for method in methods:
        for seed in (0, 1):
            for number in range(3):
                labels = {"task": "t", "method": method, "seed": seed, "problem": str(number)}
                found = rows(labels, solution(number, number > 0), {"yes": True, "no": False}, LADDER)
                records += b"".join(map(line, found))
    (folder / "records.jsonl").write_bytes(records)


def ablation(folder: Path) -> None:
    """One factor of two levels."""
    points = []
    for level in ("1", "2"):
        evaluation(folder / "points" / level, ["method"])
        points.append({"label": f"n={level}", "levels": {"n": level}, "folder": f"points/{level}"})
    factors = [{"name": "n", "levels": ["1", "2"], "reference": "1"}]
    _json(folder / "design.json", {"factors": factors, "sampler": "grid", "size": 2, "points": points})


def theory(folder: Path) -> None:
    """A figure with an axis of numbers and one of names."""
    folder.mkdir()
    lines = (Line("one", (1.0, 2.0), (3.0, 4.0), "C1--"), Line("two", (1.0, 2.0), (3.0, 5.0), "o"))
    panels = Panel("a", "x", "y", lines, log_x=True, log_y=True), Panel("b", "", "y", lines, ticks=("p", "q"))
    write([Figure("own", panels)], folder / "figures.json")


def estimators(folder: Path) -> None:
    """Two estimators in two cells."""
    folder.mkdir()
    figures = ("bias", "variance", "cosine", "mean_cosine", "norm")
    record: dict[str, Any] = {
        "family": "linear", "length": 1, "candidates": 8, "temperature": 1.0, "entropy_nats": 1.0,
        "draws": 4, "evaluations": 4, "exact_norm": 1.0, "worst_z": 1.0, "p_value": 0.5,
        **{f"{name}{end}": 0.5 for name in figures for end in ("", "_low", "_high")},
    }  # fmt: skip
    records = [
        {"estimator": name, **record, "temperature": temperature}
        for name in ("straight-through", "reinmax")
        for temperature in (0.5, 1.0)
    ]
    with (folder / "estimators.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, records[0])
        writer.writeheader()
        writer.writerows(records)


def bench(folder: Path) -> None:
    """A floor and a growth."""
    folder.mkdir()
    parts = {"LM forward": 0.1, "RM forward": 0.1, "refine": 0.3, "floor": 0.2}
    ratio = {"target": 1, "name": "refine / floor", "unit": "×", "value": 1.5, "low": 1.4, "high": 1.6}
    phases = {"wall": 1.0, "rollout": 1.0}
    shares = {"target": 5, "name": "a solve", "unit": "s", "value": None, "parts": phases}
    rows = [{"axis": "length", "series": "one", "value": v, "seconds": 0.1 * v} for v in (1, 2)]
    found = [{**ratio, "parts": parts}, shares]
    _json(folder / "results.json", {"given": True, "measurements": found, "growth": rows})


def diagnosis(folder: Path) -> None:
    """One reward."""
    folder.mkdir()
    bins = [{"said": 0.2, "right": 0.1}, {"said": 0.9, "right": 0.8}]
    findings = {
        "problems": 3,
        "predictors": [{"name": "position", "reward": None, "auc": INTERVAL}],
        "choosers": [{"name": "r", "pooled": INTERVAL, "within": INTERVAL, "error": 0.1, "bins": bins}],
        "locators": [{"name": "r", "prefix": INTERVAL, "first": INTERVAL, "hit": INTERVAL}],
    }
    _json(folder / "sums.json", {"task": "sums", "findings": findings, "verdicts": []})


def solves(folder: Path) -> None:
    """A trace and solutions."""
    folder.mkdir()
    trace = Made()
    for name in ("0", "1"):
        trace.problem(name, length=6, proposals=2)
    trace.write(folder / "trace.jsonl")
    told = [json.dumps(solution(number, True).to_dict()) for number in range(2)]
    (folder / "solutions.jsonl").write_text("".join(f"{row}\n" for row in told), encoding="utf-8")


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


#: Kind → what makes one, and the command lines that read it.
RUNS = {
    "evaluation": (evaluation, ["evaluate --report run", "plot run --output out"]),
    "ablation": (ablation, ["ablate --report run", "plot run --output out"]),
    "theory": (theory, ["plot run --output out"]),
    "estimators": (estimators, ["plot run --output out"]),
    "bench": (bench, ["plot run --output out"]),
    "diagnosis": (diagnosis, ["plot run --output out"]),
    "solves": (solves, ["view run --output page.html", "view run/trace.jsonl run --output page.html"]),
}
