"""An evaluation as it is stored: with its records, or as the tables alone that were kept of it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from nabla.core.errors import ConfigError
from nabla.core.files import parse_json, read_text
from nabla.study.evaluation.journal import RECORDS, journals
from nabla.study.evaluation.results import ABOUT, Results, names_of
from nabla.study.evaluation.summary import summarise

TABLE = "results.csv"
HACKED = "hacking.csv"
_TEXTS = ("task", "unit", "method")


def read_results(folder: Path) -> tuple[Results | None, dict[str, Any]]:
    """(records, their summary); without records what ``results.csv`` has of it, levels under budgets, and
    ``hacking.csv``, reward against correctness, where it was kept.

    Raises ConfigError for a folder without either, and for damaged files.
    """
    records = (folder / RECORDS).is_file() or journals(folder)
    if records or not (folder / TABLE).is_file():
        results = Results.load(folder)
        return results, summarise(results)
    try:
        config = parse_json(read_text(folder / ABOUT, ABOUT))["config"]
        rows = _rows(folder / TABLE)
        if "accuracy" not in rows[0]:
            raise ConfigError(
                "Without records only accuracies are drawn", got=str(folder), fix="Run the evaluation again."
            )
        return None, {
            "problems": {row["task"]: row["problems"] for row in rows},
            "seeds": config["seeds"],
            "reference": config.get("reference"),
            "names": names_of(config),
            "rows": rows,
            "hacking": _rows(folder / HACKED) if (folder / HACKED).is_file() else [],
        }
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"The tables of this evaluation are damaged: {error!r}", got=str(folder)) from error


def _rows(path: Path) -> list[dict[str, Any]]:
    lines = csv.DictReader(read_text(path, path.name).splitlines())
    return [{name: _value(name, text) for name, text in line.items()} for line in lines]


def _value(name: str, text: str) -> Any:
    if name in _TEXTS:
        return text
    if text in ("True", "False"):
        return text == "True"
    return float(text) if text else None
