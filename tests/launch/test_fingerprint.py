"""What two runs must have in common: a model's files, its commit, packages; what earlier ones left out."""

from __future__ import annotations

import copy
import logging
import shutil
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest

import nabla
from nabla.launch.fingerprint import (
    difference,
    gates,
    known_to,
    model,
    parts,
    plugins,
    versions,
    without_later,
)
from nabla.problems.sandbox import model_path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_large_weights_are_sampled_to_their_end(tmp_path, monkeypatch):
    monkeypatch.setattr("nabla.launch.fingerprint.WHOLE", 10)
    monkeypatch.setattr("nabla.launch.fingerprint._BLOCK", 4)
    file = tmp_path / "model.safetensors"
    file.write_bytes(bytes(100))
    before = model(str(tmp_path), {})
    file.write_bytes(bytes(99) + b"\x01")
    assert model(str(tmp_path), {}) != before


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "modeling_own.py",
        "additional_chat_templates/tool.jinja",
    ],
)
def test_whatever_decides_what_a_model_computes_is_seen(name, tmp_path):
    folder = tmp_path / "policy"
    shutil.copytree(model_path("latin-policy"), folder)
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    old = file.read_bytes() if file.exists() else b""
    file.write_bytes(old)
    before = model(str(folder), {})
    file.write_bytes(old + b" ")
    assert f"settings.{name}" in difference(before, model(str(folder), {}))


def test_notes_beside_a_model_are_not(tmp_path):
    shutil.copytree(model_path("latin-policy"), tmp_path / "policy")
    before = model(str(tmp_path / "policy"), {})
    for name in ("README.txt", "LICENSE.txt", "trainer_state.json", "picture.png"):
        (tmp_path / "policy" / name).write_text("x")
    assert model(str(tmp_path / "policy"), {}) == before


def test_what_is_given_apart_is_seen(tmp_path):
    adapter, template = tmp_path / "adapter", tmp_path / "chat.jinja"
    adapter.mkdir()
    template.write_text("{{ messages }}")
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(b"a")
    path = str(model_path("latin-policy"))
    arguments = {"adapter": str(adapter), "tokenizer": str(adapter), "chat_template": str(template)}
    before = model(path, arguments)
    template.write_text("{{ messages }}!")
    assert "chat_template" in difference(before, model(path, arguments))
    template.write_text("{{ messages }}")
    (adapter / "adapter_model.safetensors").write_bytes(b"b")
    assert "adapter.files.adapter_model.safetensors" in difference(before, model(path, arguments))
    assert model(path, {"chat_template": "{{ a template in itself }}" * 99})["chat_template"] is None


def test_a_hub_id_stands_for_the_commit_in_the_cache(tmp_path):
    cache = tmp_path / "hub" / "models--some--model"
    where = {"cache_dir": str(tmp_path / "hub")}
    unknown = model("some/model", where)
    assert unknown["revision"] is None
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(COMMIT)
    snapshot = cache / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    found = model("some/model", where)
    assert found["revision"] == COMMIT
    assert difference(unknown, found) is None  # downloaded by the run itself
    other = COMMIT[::-1]
    assert "revision" in difference(found, {**found, "revision": other})
    assert model("no hub id at all", {})["revision"] is None


def test_versions_have_nablas_own():
    assert versions()["nabla-reasoner"] == nabla.__version__


def test_plugins_are_those_whose_components_are_named(monkeypatch):
    from nabla.launch.config.slots import slots

    points = []
    for name, package in (("swaps", "nabla-swaps"), ("other", "nabla-other")):
        point = EntryPoint(name, "json:JSONDecoder", "nabla.methods")
        vars(point).update(dist=SimpleNamespace(name=package, version="1.2"))
        points.append(point)
    monkeypatch.setattr(slots()["methods"], "_entry_points", {p.name: p for p in points})
    assert plugins({"methods": {"mine": {"latin": {"name": "swaps"}}}}) == {"nabla-swaps": "1.2"}
    assert plugins({"methods": {"mine": {"latin": {"name": "greedy"}}}}) == {}


def test_what_an_earlier_nabla_did_not_write_down_is_named_once_and_not_compared(caplog):
    new = {
        "config": {"seed": 0},
        "models": {"lm": model(str(model_path("latin-policy")), {}), "rm": model("some/model", {})},
        "versions": versions(),
        "plugins": {},
    }
    assert known_to(new, new) == new
    assert not caplog.records
    old = copy.deepcopy(new)
    del old["plugins"], old["versions"]["nabla-reasoner"]
    for name in old["models"]:
        old["models"][name] = {k: v for k, v in old["models"][name].items() if k in ("arguments", "files")}
    with caplog.at_level(logging.WARNING, "nabla"):
        assert difference(old, known_to(old, new)) is None
    (record,) = caplog.records
    for part in ("plug-ins", "version of nabla-reasoner", "settings of the models", "revision of the models"):
        assert record.getMessage().count(part) == 1
    changed = copy.deepcopy(new)
    changed["models"]["lm"]["files"]["model.safetensors"][1] = "0"
    changed["config"]["seed"] = 1
    assert "config.seed" in difference(old, known_to(old, changed))
    del changed["config"]
    assert "config is in one of them alone" in difference(old, known_to(old, changed))
    changed["config"] = old["config"]
    assert "models.lm.files" in difference(old, known_to(old, changed))


def test_a_path_may_be_a_file(tmp_path: Path):
    file = tmp_path / "m.gguf"
    file.write_bytes(b"1")
    before = model(str(file), {})
    file.write_bytes(b"2")
    assert "gguf" in difference(before, model(str(file), {}))


def test_arguments_that_came_later_are_no_difference_while_they_change_nothing():
    old = {"methods": {"a": {"name": "revision", "rounds": 1}, "b": {"name": "self-consistency"}}}
    new = {"methods": {name: dict(method) for name, method in old["methods"].items()}}
    new["methods"]["a"]["width"], new["methods"]["b"]["score"] = 1, None
    assert difference(old, new) is None
    assert without_later({"method": new["methods"]["a"]})["method"] == old["methods"]["a"]
    new["methods"]["a"]["width"] = 2
    assert "width" in difference(old, new)
    assert "width" in difference({"task": {}}, {"task": {"width": 1}})


def test_weights_in_a_subfolder_and_a_named_gguf_file_are_seen(tmp_path):
    (tmp_path / "v1").mkdir()
    weights, gguf = tmp_path / "v1" / "model.safetensors", tmp_path / "m.gguf"
    weights.write_bytes(b"1")
    gguf.write_bytes(b"1")
    folder = str(tmp_path)
    inner, named = model(folder, {"subfolder": "v1"}), model(folder, {"gguf_file": "m.gguf"})
    weights.write_bytes(b"2")
    gguf.write_bytes(b"2")
    found = difference(inner, model(folder, {"subfolder": "v1"}))
    assert "subfolder.model.safetensors" in found
    assert "gguf_file" in difference(named, model(folder, {"gguf_file": "m.gguf"}))
    (tmp_path / "v1" / "m.gguf").write_bytes(b"3")
    one = model(folder, {"subfolder": "v1", "gguf_file": "m.gguf"})
    assert one["gguf_file"] == model(str(tmp_path / "v1"), {"gguf_file": "m.gguf"})["gguf_file"]


def test_what_a_specification_says_itself_comes_before_what_is_shared():
    inner = {"name": "outcome", "path": "a", "tokenizer": "own", "scale": 2.0}
    found = parts({"members": [inner, "b"]}, {"tokenizer": "shared", "dtype": "auto"})
    assert found == [
        ("a", {"tokenizer": "own", "dtype": "auto"}),
        ("b", {"tokenizer": "shared", "dtype": "auto"}),
    ]


def test_the_file_of_a_gate_is_seen(tmp_path):
    file = tmp_path / "a.gate.json"
    file.write_text("1")
    config = {"methods": {"a": {"latin": {"name": "backtrack", "gate": {"file": str(file)}}}}}
    before = gates(config)
    assert list(before) == [str(file)]
    file.write_text("2")
    assert str(file) in difference(before, gates(config))
    assert gates({"method": {"gate": {"file": None}}}) == {}
    assert gates({"gate": {"file": "none.json"}}) == {"none.json": None}
