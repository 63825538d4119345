"""Files that users name: everything that once gave a traceback, a hang or silent harm."""

from __future__ import annotations

import errno
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from nabla.core.errors import ConfigError, PromptError, StorageError
from nabla.core.files import (
    Appender,
    json_line,
    parse_json,
    read_bytes,
    read_text,
    reading,
    replace_whole,
    require_free,
    require_writable,
    stored_in,
    write_new,
)


def test_a_pipe_that_nobody_writes_to_is_an_error_and_no_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="it is a pipe"):
        read_text(tmp_path / "pipe", "configuration")
    with pytest.raises(OSError, match="a device"):
        read_bytes("/dev/zero")


def test_a_pipe_that_is_open_already_is_read():
    reader, writer = os.pipe()
    os.write(writer, b"a: 1")
    os.close(writer)
    assert read_bytes(f"/dev/fd/{reader}") == b"a: 1"
    os.close(reader)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("é".encode("latin-1"), "byte 0 .* is no UTF-8"),
        (b"one\ntwo\xff", r"byte 7 \(line 2\)"),
        (bytes(range(256)), "no UTF-8"),
        ("a".encode("utf-16"), "UTF-16"),
        ("a".encode("utf-32"), "UTF-32"),
    ],
)
def test_other_encodings_are_said(data, said, tmp_path):
    (tmp_path / "f").write_bytes(data)
    with pytest.raises(PromptError, match=said):
        read_text(tmp_path / "f", "prompts", kind=PromptError)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    (tmp_path / "f").write_bytes(b"\xef\xbb\xbf28*6")
    assert read_text(tmp_path / "f", "prompts") == "28*6"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested"),
        ('{"a":' * 100 + "1" + "}" * 100, "nested"),
        ("9" * 5000, "too many digits"),
        ("{", "Expecting"),
        (b"\xff", "utf-8"),
    ],
)
def test_json_that_python_stumbles_over_is_a_value_error(text, said):
    with pytest.raises(ValueError, match=said):
        parse_json(text)


def test_brackets_in_texts_are_no_nesting():
    assert parse_json(json.dumps(["[{" * 500])) == ["[{" * 500]


def test_half_a_character_is_written_as_its_escape():
    row = {"a": "\ud800", "b": "∇"}
    assert json_line(row) == '{"a": "\\ud800", "b": "∇"}'
    assert json.loads(json_line(row)) == row


# -- writing -----------------------------------------------------------------------------------------


def test_a_folder_with_somebody_else_s_files_is_left_alone(tmp_path):
    (tmp_path / "config.yaml").write_text("mine")
    with pytest.raises(ConfigError, match=r"not empty \(config.yaml\)"):
        require_free(tmp_path)
    with pytest.raises(ConfigError, match="it is a file"):
        require_free(tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match="--output none"):
        require_free(tmp_path / ("x" * 5000))
    require_free(tmp_path / "new")


def test_trying_a_folder_leaves_nothing_behind(tmp_path):
    require_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "b", tmp_path / "a\0b"):
        with pytest.raises(ConfigError, match="cannot be written"):
            require_writable(place)


def test_what_another_process_has_left_of_a_trial_is_in_nobodys_way(tmp_path, monkeypatch):
    (tmp_path / ".writable").write_text("x")  # as a kill may leave it
    require_writable(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(require_writable, [tmp_path] * 40))
    assert [p.name for p in tmp_path.iterdir()] == [".writable"]

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", stopped)
    with pytest.raises(KeyboardInterrupt):
        require_writable(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_threads_that_write_one_file_do_not_meet(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda text: replace_whole(tmp_path / "a", str(text)), range(400)))
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_line_is_written_whole_or_kept_until_there_is_room(tmp_path, monkeypatch, capsys):
    file = Appender(tmp_path / "rows.jsonl")
    file.append("one")
    write, room = os.write, [2]

    def full(descriptor: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0], left = 0, room[0]
        return write(descriptor, data[:left])  # a part of the line, then nothing

    monkeypatch.setattr(os, "write", full)
    file.append("two")
    file.append("three")
    assert (tmp_path / "rows.jsonl").read_text() == "one\n"
    assert file.left == 2
    error = file.flush()
    assert error is not None
    assert "No space left" in str(error)
    monkeypatch.undo()
    assert file.flush() is None
    assert (tmp_path / "rows.jsonl").read_text() == "one\ntwo\nthree\n"
    assert capsys.readouterr().err.count("kept in memory") == 1


@pytest.mark.parametrize("error", [OSError(errno.EDQUOT, "Disk quota exceeded"), KeyboardInterrupt()])
def test_a_line_whose_syncing_fails_is_written_once(error, tmp_path, monkeypatch):
    def broken(descriptor: int) -> None:
        raise error  # some file systems know only now; a signal comes most probably here

    file = Appender(tmp_path / "rows.jsonl")
    file.append("one")
    monkeypatch.setattr(os, "fsync", broken)
    with suppress(KeyboardInterrupt):
        file.append("two")
    monkeypatch.undo()
    assert file.flush() is None
    file.append("three")
    assert (tmp_path / "rows.jsonl").read_text() == "one\ntwo\nthree\n"


@pytest.mark.parametrize("synced", [True, False])
def test_what_is_tried_again_leaves_the_lines_of_others(synced, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    first, second = (Appender(tmp_path / "rows.jsonl", many=True) for _ in range(2))
    first.append("a1")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write" if synced else "fsync", full)
        first.append("a2")
    second.append("b1")
    first.append("a3")
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert lines == (["a1", "b1", "a2", "a3"] if synced else ["a1", "a2", "b1", "a3"])


def test_a_line_that_a_signal_breaks_off_leaves_no_part(tmp_path, monkeypatch):
    write = os.write

    def broken(descriptor, data):
        write(descriptor, data[:1])
        raise KeyboardInterrupt

    first, second = (Appender(tmp_path / "rows.jsonl", many=True) for _ in range(2))
    monkeypatch.setattr(os, "write", broken)
    with pytest.raises(KeyboardInterrupt):
        first.append("a1")
    monkeypatch.undo()
    second.append("b1")
    assert first.flush() is None
    assert (tmp_path / "rows.jsonl").read_text() == "b1\na1\n"


def test_lines_of_several_writers_take_turns(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:1]))  # bit by bit

    def many(letter):
        file = Appender(tmp_path / "rows.jsonl", many=True)
        for _ in range(20):
            file.append(letter * 10)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(many, "abc"))
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert sorted(lines) == [letter * 10 for letter in "abc" for _ in range(20)]


def test_a_file_of_another_run_is_not_appended_to(tmp_path):
    (tmp_path / "rows.jsonl").write_text("theirs\n")
    file = Appender(tmp_path / "rows.jsonl")
    file.append("mine")
    error = file.flush()
    assert error is not None
    assert "did not make" in str(error)
    assert (tmp_path / "rows.jsonl").read_text() == "theirs\n"


def test_what_is_replaced_is_whole_at_any_time(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    write_new(path, "old")
    with pytest.raises(FileExistsError):
        write_new(path, "new")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        replace_whole(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_is_whole_or_not_there(tmp_path, monkeypatch, links):
    """A kill in the middle of writing leaves no part of it under its name, where files can be linked."""
    path = tmp_path / "config.yaml"

    def killed(descriptor, data):
        os.write(descriptor, data[:2])
        raise KeyboardInterrupt

    def no_links(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with monkeypatch.context() as patch:
        patch.setattr("nabla.core.files.append_whole", killed)
        with pytest.raises(KeyboardInterrupt):
            write_new(path, "seed: 1")
    assert not path.exists()
    write_new(path, "seed: 1")
    with pytest.raises(FileExistsError):
        write_new(path, "seed: 2")
    assert path.read_text() == "seed: 1"
    assert list(tmp_path.iterdir()) == [path]


def test_what_replaces_takes_nobody_elses_part(tmp_path, monkeypatch):
    """Two processes may write one file at once, and a user's own file may be called like a part."""
    path, theirs = tmp_path / "tables.md", tmp_path / "tables.md.partial"
    theirs.write_text("by hand")
    replace_whole(path, "one")
    assert (path.read_text(), theirs.read_text()) == ("one", "by hand")

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        replace_whole(path, b"two")
    assert path.read_text() == "one"
    assert {p.name for p in tmp_path.iterdir()} == {"tables.md", "tables.md.partial"}


@pytest.mark.parametrize(
    "work",
    [lambda: {}["a"], lambda: int("x"), lambda: math.exp(1e9), lambda: None.a, lambda: next(iter(()))],
    ids=["key", "value", "range", "attribute", "end"],
)
def test_data_of_a_wrong_shape_are_an_error_that_names_the_file(work):
    with pytest.raises(ConfigError, match=r"It is damaged: .*\(got 'a.json'\). Run it again"), reading(
        "It", got="a.json", fix="Run it again."
    ):
        work()


def test_a_disk_that_takes_no_more_says_where_and_what_to_do(tmp_path):
    with pytest.raises(StorageError, match=r"The report cannot be written: No space.*Make room"), stored_in(
        tmp_path, "report", "Make room."
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_what_the_system_refuses_to_read_is_an_error_that_names_the_file(tmp_path):
    with pytest.raises(ConfigError, match=r"It cannot be read: Is a directory \(got 'a'\)"), reading(
        "It", got="a"
    ):
        tmp_path.read_bytes()
