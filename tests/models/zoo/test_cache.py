"""Conversions are made once, whole, and not trusted when they have changed."""

from __future__ import annotations

import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from nabla.core.errors import ConfigError, ModelError
from nabla.core.locks import Lock
from nabla.models.causal_lm import CausalLM
from nabla.models.zoo import cache, cache_folder, converted
from nabla.models.zoo.cache import MANIFEST, fault
from tests import gguf_files

MISSING = ModelError("It is not here", fix="Run: pip install it.")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: Any) -> Path:
    """A GGUF file; the cache is a folder of the test's own."""
    monkeypatch.setenv("NABLA_CACHE", str(tmp_path / "cache"))
    gguf_files.write(tmp_path / "tiny.gguf")
    return tmp_path / "tiny.gguf"


@pytest.fixture
def made(file: Path) -> Path:
    return converted("tiny", [file], MISSING)


def test_where_it_is_kept(monkeypatch: Any) -> None:
    monkeypatch.delenv("NABLA_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/where")
    assert cache_folder() == Path("/some/where/nabla")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "nabla"
    monkeypatch.setenv("NABLA_CACHE", "~/mine")
    assert cache_folder() == Path.home() / "mine"


def test_a_conversion_is_the_file_and_is_made_once(file: Path, made: Path, monkeypatch: Any) -> None:
    assert made == cache_folder() / "tiny"
    ours, theirs = CausalLM.from_pretrained(str(made)), CausalLM.from_pretrained(str(file))
    for (name, weight), (_, other) in zip(
        ours.model.named_parameters(), theirs.model.named_parameters(), strict=True
    ):
        assert torch.equal(weight, other), name
    text = "x 12==1 <|im_end|>"
    assert ours.tokenizer(text)["input_ids"] == theirs.tokenizer(text)["input_ids"]
    assert ours.tokenizer.chat_template == theirs.tokenizer.chat_template
    assert ours.eos_ids == theirs.eos_ids
    config = json.loads((made / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["dtype"] == "bfloat16"
    monkeypatch.setattr(cache, "write", lambda *_: pytest.fail("converted again"))
    assert converted("tiny", [file], MISSING) == made
    assert converted("tiny", [], MISSING) == made  # the package may have been removed


def forget() -> None:
    """As a new process, which has checked nothing yet."""
    cache._checked.clear()


def flip(path: Path) -> None:
    """One bit of a file, its length and times as they were."""
    data, state = bytearray(path.read_bytes()), path.stat()
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: flip(folder / "model.safetensors"), "model.safetensors is damaged"),
        (lambda folder: (folder / "config.json").write_text("{}"), "config.json is damaged"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json is not there"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "it cannot be read"),
        (lambda folder: (folder / MANIFEST).write_text('{"version": 0}'), "another version"),
    ],
)
def test_a_damaged_one_is_noticed_and_made_anew(
    file: Path, made: Path, harm: Any, said: str, caplog: Any
) -> None:
    harm(made)
    forget()
    assert said in str(fault(made))
    with pytest.raises(ModelError, match="pip install it"):
        converted("tiny", [], MISSING)
    with caplog.at_level(logging.WARNING):
        assert converted("tiny", [file], MISSING) == made
    assert said in caplog.text
    forget()
    assert fault(made) is None
    assert sorted(p.name for p in made.parent.iterdir()) == [".tiny.lock", "tiny"]


def test_a_file_in_parts_is_joined(file: Path, made: Path, tmp_path: Path) -> None:
    data = file.read_bytes()
    parts = [tmp_path / "tiny.gguf.part0", tmp_path / "tiny.gguf.part1"]
    parts[0].write_bytes(data[:1000])
    parts[1].write_bytes(data[1000:])
    folder = converted("parts", parts, MISSING)
    assert (folder / "model.safetensors").read_bytes() == (made / "model.safetensors").read_bytes()
    assert not list(folder.glob("*.gguf"))


def test_another_file_is_converted_anew(file: Path, made: Path, caplog: Any) -> None:
    before = (made / "model.safetensors").read_bytes()
    flip(file)
    with caplog.at_level(logging.WARNING):
        converted("tiny", [file], MISSING, sha256="0" * 64)
    assert "it was made of another file" in caplog.text
    assert "another one than the shipped adapters were trained on" in caplog.text
    assert (made / "model.safetensors").read_bytes() != before


def test_a_conversion_that_breaks_off_leaves_nothing(file: Path, monkeypatch: Any) -> None:
    def broken(_: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(cache, "write", broken)
        with pytest.raises(ModelError, match=r"No space left on device.*\n?.*NABLA_CACHE"):
            converted("tiny", [file], MISSING)
    assert [p.name for p in cache_folder().iterdir()] == [".tiny.lock"]
    (cache_folder() / ".tiny.made-killed").mkdir()  # as SIGKILL leaves it
    converted("tiny", [file], MISSING)
    assert sorted(p.name for p in cache_folder().iterdir()) == [".tiny.lock", "tiny"]


def test_several_at_once_make_one(file: Path, monkeypatch: Any) -> None:
    calls = []
    real = cache.write

    def slow(source: Path, folder: Path) -> None:
        calls.append(folder)
        real(source, folder)

    monkeypatch.setattr(cache, "write", slow)
    with ThreadPoolExecutor(3) as pool:
        found = set(pool.map(lambda _: converted("tiny", [file], MISSING), range(3)))
    assert found == {cache_folder() / "tiny"}
    assert len(calls) == 1


def test_a_broken_file_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("gguf", reason="the package gguf is not installed")
    monkeypatch.setenv("NABLA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF\0\0")
    with pytest.raises(ModelError, match="model of this file cannot be loaded"):
        converted("broken", [tmp_path / "broken.gguf"], MISSING)
    assert [p.name for p in cache_folder().iterdir()] == [".broken.lock"]


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_nabla_did_not_make_is_never_removed(kind: str, file: Path, tmp_path: Path) -> None:
    place, theirs = cache_folder() / "tiny", tmp_path / "theirs"
    place.parent.mkdir()
    if kind == "link":
        theirs.mkdir()
        place.symlink_to(theirs)
    elif kind == "folder":
        place.mkdir()
        (place / "thesis.txt").write_text("mine")
    else:
        place.write_text("mine")
    with pytest.raises(ModelError, match=r"something that nabla did not make.*NABLA_CACHE"):
        converted("tiny", [file], MISSING)
    assert os.path.lexists(place)
    assert kind != "folder" or (place / "thesis.txt").read_text() == "mine"


def test_a_full_disk_is_said_and_leaves_nothing(file: Path, monkeypatch: Any) -> None:
    from safetensors import SafetensorError
    from transformers import LlamaForCausalLM

    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", full)
    with pytest.raises(ModelError, match=r"cannot be kept: .*No space left.*NABLA_CACHE"):
        converted("tiny", [file], MISSING)
    assert [p.name for p in cache_folder().iterdir()] == [".tiny.lock"]


def test_who_waits_for_another_process_says_so(file: Path, made: Path, monkeypatch: Any, caplog: Any) -> None:
    (made / MANIFEST).write_text("{")
    forget()
    monkeypatch.setattr(cache, "PATIENCE", 0.3)
    with Lock(made.parent / ".tiny.lock"), pytest.raises(ConfigError, match="Another process"):
        converted("tiny", [file], MISSING)
    assert caplog.text.count("Another process converts tiny: waiting for it") == 1


def test_a_conversion_of_a_longer_name_is_left_alone(file: Path, made: Path) -> None:
    other = made.parent / ".tiny-0123.made-x"  # another process makes it now
    left = made.parent / ".tiny.made-x"  # of a process that was killed
    for folder in (other, left):
        folder.mkdir()
    (made / "config.json").write_text("{}")
    forget()
    converted("tiny", [file], MISSING)
    assert (other.exists(), left.exists()) == (True, False)
