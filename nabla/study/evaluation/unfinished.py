"""The finished problems of a unit that is not finished, so that a kill loses only the problems in flight.

They lie in a folder of their own, in a journal per unit whose entries are problems: the same form, and the
same rule that only what an end mark closes counts. When the unit is whole, its records go to the journal of
the process as ever, and its file here goes away; a reader that knows nothing of this folder loses no unit.

A unit that goes on solves its missing problems without the others in their batches. Draws follow from (seed,
problem) alone, so texts, verdicts and counts are those of an unbroken run; rewards may differ in their last
bits.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any

from nabla.core.locks import Lock
from nabla.study.evaluation.journal import Journal, journals, records, units

FOLDER = "unfinished"

Rows = list[dict[str, Any]]


class Unfinished:
    """A unit's finished problems, on disk.

    Args:
        folder: of the results.
        index: of the unit in the plan; no other process works on it.
        key: of the unit.
        size: its problems. The last one is not written: the whole unit's records follow it at once.

    Raises ConfigError for a damaged file, and while another process writes to it.
    """

    def __init__(self, folder: Path, index: int, key: tuple[Any, ...], size: int) -> None:
        self.key, self._size, self._index = key, size, index
        #: Problem id → its records.
        self.rows: dict[str, Rows] = {}
        self._inside = inside = folder / FOLDER
        inside.mkdir(exist_ok=True)
        #: Where a sign of life of the unit goes.
        self.pulse = pulse_path(inside, index)
        path = _path(inside, index)
        if path.exists():
            with Lock(path):
                self._read(path)
        self._journal: Journal | None = None

    def _read(self, path: Path) -> None:
        end = 0
        for key, data, offset in units(path):
            end = offset
            if key[:-1] == self.key:
                self.rows[key[-1]] = [*records(data, path)]
        os.truncate(path, end)  # what a kill left of a write

    def add(self, problem: str, rows: Rows) -> None:
        """A problem's records, on disk when this returns but for the last one's. Raises NablaError as
        ``Journal.append`` does, and ConfigError while another process writes."""
        self.rows[problem] = rows
        if len(self.rows) < self._size:
            self._journal = self._journal or Journal(self._inside, self._index)
            self._journal.append((*self.key, problem), rows)

    def __enter__(self) -> Unfinished:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._journal is not None:
            self._journal.close()


def forget(folder: Path, index: int) -> None:
    """Removes what is kept of a unit that the process's journal holds as a whole."""
    inside = folder / FOLDER
    for path in (_path(inside, index), pulse_path(inside, index)):
        path.unlink(missing_ok=True)


def sweep(folder: Path, missing: Collection[int]) -> None:
    """Removes what kills left of units that are finished; with none missing, the folder too."""
    inside = folder / FOLDER
    if not missing:
        shutil.rmtree(inside, ignore_errors=True)
        return
    kept = {_path(inside, index) for index in missing}
    for path in journals(inside):
        if path not in kept:
            path.unlink()
    for path in inside.glob("*.live"):
        path.unlink()


def pulse_path(inside: Path, index: int) -> Path:
    """Where the process that solves a unit says how far it is."""
    return inside / f"{index}.live"


def _path(inside: Path, index: int) -> Path:
    return inside / f"journal-{index}.jsonl"
