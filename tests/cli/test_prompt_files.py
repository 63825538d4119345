"""Files of prompts: what once gave a traceback, a hang or another problem than the one that was meant."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nabla.cli import main
from nabla.cli.prompts import read_prompts
from nabla.core.errors import PromptError
from nabla.core.prompt import Message, Prompt

SUM = "28*6+68-71+94"


def read(path: Path, name: str, data: bytes):
    (path / name).write_bytes(data)
    return read_prompts([], str(path / name), None)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("latin.txt", "é".encode("latin-1"), "no UTF-8"),
        ("binary.jsonl", bytes(range(256)), "no UTF-8"),
        ("wide.txt", SUM.encode("utf-16"), "UTF-16"),
        ("unmarked.txt", SUM.encode("utf-16-le"), "line 1 has a zero byte"),
        ("crashed.jsonl", b'{"prompt": "1"}\n' + bytes(9), "line 2 has a zero byte"),
        ("deep.jsonl", b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested"),
        ("digits.jsonl", b'{"prompt": "1", "answer": ' + b"9" * 5000 + b"}", "digits"),
        ("role.jsonl", b'{"messages": [{"role": "root", "content": "1"}]}', "role is unknown .*'root'"),
        ("id.jsonl", b'{"prompt": "1", "id": [1]}', "id is a text or a number"),
        ("id.jsonl", b'{"prompt": "1", "id": true}', "id is a text or a number"),
        ("id.jsonl", b'{"prompt": "1", "id": ""}', "id is a text or a number"),
        ("list.jsonl", b"[1]", "either 'prompt' or 'messages'"),
        ("number.jsonl", b'{"prompt": 5}', "A prompt is"),
        ("empty.jsonl", b'{"prompt": "1"}\n{"prompt": " "}', "empty.jsonl:2: The prompt is empty"),
    ],
)
def test_a_file_that_cannot_be_meant_is_an_error_with_its_place(name, data, said, tmp_path):
    with pytest.raises(PromptError, match=said) as caught:
        read(tmp_path, name, data)
    assert name in str(caught.value)


def test_a_pipe_is_no_file(tmp_path, capsys):
    os.mkfifo(tmp_path / "p.jsonl")
    with pytest.raises(PromptError, match="it is a pipe"):
        read_prompts([], str(tmp_path / "p.jsonl"), None)
    os.mkfifo(tmp_path / "c.yaml")
    for arguments in (["solve", SUM, "--config"], ["show"], ["evaluate"], ["ablate"]):
        assert main([*arguments, str(tmp_path / "c.yaml")]) == 2
        assert "it is a pipe" in capsys.readouterr().err
    spec = f"{{name: jsonl, path: {tmp_path / 'p.jsonl'}}}"
    assert main(["solve", "--task", spec]) == 2
    assert "it is a pipe" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["p.txt", "p.jsonl"])
def test_a_byte_order_mark_is_no_part_of_the_first_prompt(name, tmp_path):
    line = SUM if name == "p.txt" else json.dumps({"prompt": SUM})
    (prompt,) = read(tmp_path, name, b"\xef\xbb\xbf" + line.encode() + b"\r\n")
    assert prompt.text == SUM


@pytest.mark.parametrize("name", ["p.txt", "p.jsonl"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_of_any_editor(end, name, tmp_path):
    sums = [SUM, "53*6-50+29-41"]
    lines = sums if name == "p.txt" else [json.dumps({"prompt": text}) for text in sums]
    assert [p.text for p in read(tmp_path, name, (end.join(lines) + end).encode())] == sums


def test_line_ends_inside_a_text_are_text(tmp_path):
    answer = "a\u2028b\u2029c\x85d\x0be\x1cf"
    row = json.dumps({"prompt": f"x{answer}", "answer": answer}, ensure_ascii=False)
    (prompt,) = read(tmp_path, "p.jsonl", row.encode())
    assert prompt.text == f"x{answer}"
    assert prompt.metadata == {"answer": answer}


def test_an_id_of_null_is_none(tmp_path):
    rows = b'{"prompt": "1", "id": null}\n{"prompt": "2", "id": 7}\n{"prompt": "3"}\n'
    found = read(tmp_path, "p.jsonl", rows)
    assert [p.id for p in found] == ["0", "7", "2"]
    assert found[0].noise is not None  # numbered, not named
    assert found[1].noise is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: Prompt(5, (Message("user", "x"),)),  # type: ignore[arg-type]
        lambda: Prompt("a", (Message("root", "x"),)),
        lambda: Prompt.of([{"role": "User", "content": "x"}]),
    ],
)
def test_the_same_is_so_in_python(make):
    with pytest.raises((PromptError, TypeError)):  # or the type checker
        make()


def test_a_prompt_that_looks_like_an_option_gets_a_hint(capsys):
    assert main(["solve", "-5+3"]) == 2
    assert "nabla solve -- '-5+3'" in capsys.readouterr().err
    assert main(["solve", "--", "-5+3"]) == 2  # read as a prompt, and no embedded model's
    assert "got '-5+3'" in capsys.readouterr().err
