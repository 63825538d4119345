"""Units on disk: whole or not there."""

from __future__ import annotations

import errno
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nabla.core.errors import ConfigError, StorageError
from nabla.study.evaluation import journal
from nabla.study.evaluation.journal import RECORDS, Journal, Lock, journals, line, merge, read, recover, units


def rows(unit: int, count: int = 3) -> list[dict]:
    fixed = {"task": "t", "number": unit, "text": "∇ß"}
    return [{**fixed, "row": row, "x": 0.1 * row} for row in range(count)]


def written(folder, *numbers: int, rank: int = 0) -> bytes:
    book = Journal(folder, rank)
    for number in numbers:
        book.append(("t", number), rows(number))
    book.close()
    return (folder / f"journal-{rank}.jsonl").read_bytes()


def test_lines_round_trip_with_every_digit():
    row = {"a": 0.1 + 0.2, "b": 1e-300, "c": None, "d": "ü\n", "e": [1, True]}
    assert json.loads(line(row)) == row
    assert repr(0.1 + 0.2).encode() in line(row)
    with pytest.raises(ValueError, match="not JSON compliant"):
        line({"a": float("nan")})


@given(cut=st.integers(0, 2000))
def test_whatever_a_kill_leaves_behind_whole_units_is_cut(cut, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cut")
    whole = written(folder, 1, 2)
    path = folder / "journal-0.jsonl"
    cut = min(cut, len(whole))
    path.write_bytes(whole[:cut])
    ends = [offset for _, _, offset in units(path)]
    found = recover(folder)
    assert found == {("t", number) for number in range(1, len(ends) + 1)}
    assert path.read_bytes() == whole[: ends[-1] if ends else 0]
    if cut == len(whole):
        assert found == {("t", 1), ("t", 2)}
    missing = [n for n in (1, 2) if ("t", n) not in found]
    assert written(folder, *missing) == whole  # solved again: as if nothing had happened


def test_units_of_several_processes_are_merged_in_the_canonical_order(tmp_path):
    written(tmp_path, 3, 1, rank=0)
    written(tmp_path, 2, rank=1)
    target = merge(tmp_path, [("t", 1), ("t", 2), ("t", 3)])
    assert target.read_bytes() == b"".join(line(row) for number in (1, 2, 3) for row in rows(number))
    assert journals(tmp_path) == []
    assert list(read(tmp_path)) == [row for number in (1, 2, 3) for row in rows(number)]


def test_a_unit_in_two_journals_counts_once(tmp_path):
    written(tmp_path, 1, rank=0)
    written(tmp_path, 1, 2, rank=1)
    assert list(read(tmp_path)) == rows(1) + rows(2)
    merge(tmp_path, [("t", 1), ("t", 2)])
    assert list(read(tmp_path)) == rows(1) + rows(2)


def test_an_unfinished_run_can_be_read(tmp_path):
    written(tmp_path, 1)
    with (tmp_path / "journal-0.jsonl").open("ab") as file:
        file.write(line(rows(2)[0])[:20])
    assert list(read(tmp_path)) == rows(1)


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def nearly_full(write):
    """A disk that takes ten bytes more."""
    room = [10]
    return lambda descriptor, data: write(descriptor, data[: room.pop()]) if room else full()


@pytest.mark.parametrize(
    ("call", "disk"), [("write", full), ("write", nearly_full(os.write)), ("fsync", full)],
    ids=["nothing", "a part", "unsynced"],
)  # fmt: skip
def test_a_disk_that_does_not_take_a_unit_keeps_none_of_it(call, disk, tmp_path, monkeypatch):
    whole = written(tmp_path, 1)
    book = Journal(tmp_path, 0)
    with monkeypatch.context() as patch:
        patch.setattr(journal.os, call, disk)
        with pytest.raises(StorageError, match=r"records cannot be written: No space left.*start the same"):
            book.append(("t", 2), rows(2))
    assert (tmp_path / "journal-0.jsonl").read_bytes() == whole
    book.append(("t", 3), rows(3))
    book.close()
    assert list(read(tmp_path)) == rows(1) + rows(3)


def test_a_full_disk_leaves_the_journals_where_it_takes_no_whole(tmp_path, monkeypatch):
    whole = written(tmp_path, 1)
    monkeypatch.setattr(journal.os, "replace", full)
    with pytest.raises(StorageError, match="No space left"):
        merge(tmp_path, [("t", 1)])
    assert (tmp_path / "journal-0.jsonl").read_bytes() == whole
    assert [p.name for p in tmp_path.iterdir()] == ["journal-0.jsonl"]


def test_two_processes_do_not_share_a_file(tmp_path):
    with Lock(tmp_path / "lock"), pytest.raises(ConfigError, match="Another process"):
        Lock(tmp_path / "lock")
    Lock(tmp_path / "lock").close()
    book = Journal(tmp_path, 0)
    with pytest.raises(ConfigError, match="Another process"):
        recover(tmp_path)
    book.close()
    assert recover(tmp_path) == set()


def test_damage_is_named(tmp_path):
    written(tmp_path, 1)
    path = tmp_path / "journal-0.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[1:]))  # somebody edited it
    with pytest.raises(ConfigError, match="damaged"):
        recover(tmp_path)
    (tmp_path / RECORDS).write_bytes(b'{"a":1}\n{"b":\n')
    with pytest.raises(ConfigError, match=r"Line 2 of records\.jsonl"):
        list(read(tmp_path))
    (tmp_path / RECORDS).write_bytes(b"[1]\n")
    with pytest.raises(ConfigError, match="no record"):
        list(read(tmp_path))
