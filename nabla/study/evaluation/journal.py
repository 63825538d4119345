"""Records on disk, so that a killed run loses no finished unit and repeats none.

A unit's lines and an end mark behind them are appended in one write to the journal of the process that
solved it, and synced. Whatever follows the last end mark was cut by a kill: :func:`recover` removes it. Only
whole units count here; the finished problems of a unit that is not whole are kept beside it
(:mod:`nabla.study.evaluation.unfinished`). When all units are there, :func:`merge` writes them in their
canonical order into one file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nabla.core.errors import ConfigError
from nabla.core.files import append_whole, parse_json, stored_in
from nabla.core.locks import Lock

RECORDS = "records.jsonl"
_END = "unit"
_GO_ON = "Make room and start the same command again; finished units are kept."
_AGAIN = "Remove that file; what it holds is then solved again."


def line(row: dict[str, Any]) -> bytes:
    """One record: floats with as many digits as they have, no NaN."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(
        "utf-8", "backslashreplace"  # half a character as the escape that it came as
    ) + b"\n"


class Journal:
    """Appends units to one process's file.

    Args:
        folder: of the results.
        rank: of this process.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self._folder, path = folder, folder / f"journal-{rank}.jsonl"
        self._lock = Lock(path)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def append(self, key: Sequence[Any], rows: Sequence[dict[str, Any]]) -> None:
        """A unit's records, on disk when this returns. Raises StorageError if the disk does not take all of
        them; a part is taken back."""
        data = b"".join(line(row) for row in rows) + line({_END: list(key), "lines": len(rows)})
        with stored_in(self._folder, "records", _GO_ON):
            append_whole(self._descriptor, data, synced=True)

    def close(self) -> None:
        """Ends this process's use of the file."""
        os.close(self._descriptor)
        self._lock.close()


def journals(folder: Path) -> list[Path]:
    """All processes' files."""
    return sorted(folder.glob("journal-*.jsonl"))


def units(path: Path, start: int = 0) -> Iterator[tuple[tuple[Any, ...], bytes, int]]:
    """(key, its lines, offset behind its end mark) of each whole unit of a journal from an offset on."""
    lines: list[bytes] = []
    offset = start
    with path.open("rb") as file:
        file.seek(start)
        for text in file:
            offset += len(text)
            lines.append(text)
            if not text.startswith(b'{"unit":'):
                continue
            if not text.endswith(b"\n"):
                return  # torn
            mark = _mark(text)
            if mark is None or mark["lines"] != len(lines) - 1:
                raise ConfigError(
                    "A journal of this results folder is damaged",
                    got=f"{path} up to byte {offset}",
                    fix=_AGAIN,
                )
            yield tuple(mark[_END]), b"".join(lines[:-1]), offset
            lines = []


def _mark(text: bytes) -> dict[str, Any] | None:
    """An end mark; None for what is none."""
    try:
        mark = parse_json(text)
    except ValueError:
        return None
    key = mark.get(_END) if isinstance(mark, dict) else None
    plain = isinstance(key, list) and all(isinstance(part, str | int | float | None) for part in key)
    return mark if plain and "lines" in mark else None


def recover(folder: Path) -> set[tuple[Any, ...]]:
    """Keys of the finished units; cuts off what kills left behind the last whole one of each journal.

    Raises ConfigError while a process still writes.
    """
    found: set[tuple[Any, ...]] = set()
    for path in journals(folder):
        with Lock(path):
            end = 0
            for key, _, offset in units(path):
                end = offset
                found.add(key)
            if end < path.stat().st_size:
                os.truncate(path, end)
    return found


def merge(folder: Path, keys: Sequence[tuple[Any, ...]]) -> Path:
    """All units in the given order in one file, complete or not there at all; the journals go.

    A unit that two journals hold (a process outlived its run) counts once. Raises StorageError for a full
    disk; the journals stay then.
    """
    where: dict[tuple[Any, ...], tuple[Path, int, int]] = {}
    for path in journals(folder):
        for key, data, offset in units(path):
            mark = len(line({_END: list(key), "lines": data.count(b"\n")}))
            where.setdefault(key, (path, offset - mark - len(data), len(data)))
    target, partial = folder / RECORDS, folder / f"{RECORDS}.partial"
    try:
        with stored_in(folder, "records", _GO_ON):
            with partial.open("wb") as file:
                for key in keys:
                    path, start, length = where[key]
                    with path.open("rb") as source:
                        source.seek(start)
                        file.write(source.read(length))
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
            _sync(folder)
    finally:
        partial.unlink(missing_ok=True)
    discard(folder)
    return target


def discard(folder: Path) -> None:
    """Removes journals that were merged."""
    for path in journals(folder):
        path.unlink()


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """All records of a folder, of an unfinished run too. Raises ConfigError for a malformed line."""
    merged = folder / RECORDS
    if merged.exists():
        with merged.open("rb") as file:
            for number, text in enumerate(file, 1):
                yield _parsed(text, f"Line {number} of {RECORDS}")
        return
    seen: set[tuple[Any, ...]] = set()
    for path in journals(folder):
        for key, data, _ in units(path):
            if key not in seen:
                seen.add(key)
                yield from records(data, path)


def records(data: bytes, path: Path) -> Iterator[dict[str, Any]]:
    """Of a unit's lines in a journal. Raises ConfigError for a malformed one."""
    for text in data.splitlines():
        yield _parsed(text, f"A line of {path.name}")


def _parsed(text: bytes, place: str) -> dict[str, Any]:
    try:
        row = parse_json(text)
        if not isinstance(row, dict):
            raise ValueError("it is no mapping")
    except ValueError as error:
        raise ConfigError(f"{place} is no record: {error}", got=text[:80], fix=_AGAIN) from error
    return row


def _sync(folder: Path) -> None:
    """Makes the renaming itself last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
