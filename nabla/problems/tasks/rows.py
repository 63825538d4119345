"""Rows of a JSONL file or of a dataset, each knowing where it stands, for messages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nabla.core.errors import ConfigError, nearest
from nabla.core.extras import require_extra
from nabla.core.files import parse_json, read_bytes, reason


@dataclass(frozen=True)
class Row:
    """One record and its place, such as ``problems.jsonl, line 3``."""

    place: str
    fields: Mapping[str, Any]

    def get(self, names: Sequence[str]) -> Any:
        """The value of the first of these fields that the record has. Raises ConfigError if it has none."""
        for name in names:
            if name in self.fields:
                return self.fields[name]
        known = ", ".join(map(repr, self.fields)) or "none"
        raise ConfigError(
            f"{self.place} has no field {' or '.join(map(repr, names))}",
            fix=f"{nearest(names[0], self.fields)}Its fields are {known}.",
        )

    def text(self, names: Sequence[str], what: str) -> str:
        """A field that must be a text with more than white space, or a finite number (27.0 gives "27")."""
        value = self.get(names)
        if isinstance(value, float) and math.isfinite(value) and value == int(value):
            value = int(value)
        whole = isinstance(value, int) and not isinstance(value, bool)  # of any size
        number = whole or (isinstance(value, float) and math.isfinite(value))
        if not number and not (isinstance(value, str) and value.strip()):
            raise ConfigError(
                f"{self.place} has no {what}", got=value, fix=f"The {what} must be a text or a number."
            )
        return value.strip() if isinstance(value, str) else str(value)


def read_jsonl(path: str | Path) -> list[Row]:
    """The rows of a file with one JSON object per line, UTF-8; blank lines are skipped.

    Raises ConfigError with the file's name and the line's number.
    """
    path = Path(path)
    try:
        lines = read_bytes(path).removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except (OSError, ValueError) as error:
        raise ConfigError(f"The file of problems cannot be read: {reason(error)}", got=str(path)) from error
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        place = f"{path.name}, line {number}"
        if not line.strip():
            continue
        try:
            fields = parse_json(line)
        except ValueError as error:
            raise ConfigError(f"{place} is not JSON: {error}", got=line[:80], fix=f"Mend {path}.") from error
        if not isinstance(fields, dict):
            raise ConfigError(
                f"{place} is not a JSON object", got=fields, fix='Write {"prompt": ..., "answer": ...}.'
            )
        rows.append(Row(place, fields))
    if not rows:
        raise ConfigError("The file of problems is empty", got=str(path))
    return rows


def read_dataset(dataset: str, subset: str | None, split: str) -> list[Row]:
    """The rows of a dataset that the library ``datasets`` can load: a hub id or a folder of data files.

    Raises ConfigError if the library is not there or cannot load it.
    """
    require_extra("eval", "datasets", purpose="Loading a dataset other than path=FILE.jsonl")
    from datasets import load_dataset  # type: ignore[import-untyped]

    try:
        loaded = load_dataset(dataset, name=subset, split=split)
    except Exception as error:  # the library raises almost anything, connection errors included
        raise ConfigError(
            f"The dataset cannot be loaded: {type(error).__name__}: {error}",
            got={"dataset": dataset, "subset": subset, "split": split},
            fix="Check its name and the connection, or pass path= with a local JSONL file.",
        ) from error
    rows = [Row(f"{dataset} ({split}), row {i}", fields) for i, fields in enumerate(loaded)]
    if not rows:
        raise ConfigError("The dataset is empty", got={"dataset": dataset, "split": split})
    return rows
