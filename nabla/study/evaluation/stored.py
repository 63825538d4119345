"""An evaluation as it is stored: with its records, or as the tables alone that were kept of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nabla.core.errors import ConfigError
from nabla.core.files import parse_json, read_text, reading
from nabla.study.evaluation.hacking import HACKING
from nabla.study.evaluation.journal import RECORDS, journals
from nabla.study.evaluation.metric import ANSWER, REWARD, Metric
from nabla.study.evaluation.results import ABOUT, Results, names_of
from nabla.study.evaluation.summary import summarise

TABLE = "results.csv"
HACKED = "hacking.csv"
_TEXTS = ("task", "unit", "method")


def read_results(folder: Path) -> tuple[Results | None, dict[str, Any]]:
    """(records, their summary); without records what ``results.csv`` has of it, levels under budgets (of
    the configuration's metric), and ``hacking.csv``, reward against correctness, where it was kept.

    Raises ConfigError for a folder without either, and for damaged files.
    """
    with reading("This evaluation", got=folder):
        records = (folder / RECORDS).is_file() or journals(folder) or not (folder / TABLE).is_file()
    if records:
        results = Results.load(folder)
        return results, summarise(results)
    with reading("A table of this evaluation", got=folder, fix="Run the evaluation again."):
        config = parse_json(read_text(folder / ABOUT, ABOUT))["config"]
        rows = _rows(folder / TABLE)
        metric = _metric(config, rows)
        return None, {
            **({} if metric.rate else {"metric": metric.name}),
            "problems": {row["task"]: row["problems"] for row in rows},
            "seeds": config["seeds"],
            "reference": config.get("reference"),
            "names": names_of(config),
            "rows": rows,
            "hacking": _hacking(folder / HACKED) if (folder / HACKED).is_file() else [],
        }


def _metric(config: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Metric:
    """What the rows' levels are of: a report may be of rewards in place of right and wrong, and of the
    configuration's own function. The means are then those of the column of rewards."""
    named = Metric(config.get("metric", ANSWER))
    if "mean" in rows[0]:
        pairs = [(row["mean"], row.get("reward")) for row in rows if row["mean"] is not None]
        rewards = bool(pairs) and all(mean == reward for mean, reward in pairs)
        return Metric(REWARD) if named.rate or rewards else named
    return Metric(ANSWER) if "accuracy" in rows[0] else named


def _hacking(path: Path) -> list[dict[str, Any]]:
    rows = _rows(path)
    if rows and not set(HACKING) <= set(rows[0]):
        raise ConfigError(
            f"{HACKED} has other columns than 'nabla evaluate' writes",
            got=", ".join(rows[0]),
            fix=f"Its columns are {', '.join(HACKING)}: write the other table into a file of another name.",
        )
    return rows


def _rows(path: Path) -> list[dict[str, Any]]:
    lines = csv.DictReader(io.StringIO(read_text(path, path.name), newline=""))
    return [{name: _value(name, text) for name, text in line.items()} for line in lines]


def _value(name: str, text: str) -> Any:
    if name in _TEXTS:
        return text
    if text in ("True", "False"):
        return text == "True"
    return float(text) if text else None
