"""The script that compares settings of the engine runs, and its settings are the engine's arguments."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parents[3] / "experiments" / "benchmarks" / "engine_settings.py"


def script() -> Any:
    spec = importlib.util.spec_from_file_location("engine_settings", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_settings_are_compared_on_the_same_problems(capsys: Any) -> None:
    module = script()
    assert module.setting("live=16 keep_graph=true split_padding=48.5") == {
        "live": 16, "keep_graph": True, "split_padding": 48.5
    }  # fmt: skip
    module.main(["arithmetic", "live=1", "live=2 batch_size=1", "--problems", "2", "--repeats", "1"])
    one, two = capsys.readouterr().out.splitlines()
    assert one.startswith("live=1: ")
    assert two.startswith("live=2 batch_size=1: ")
    assert one.split(", ")[1] == two.split(", ")[1]  # FLOPs
    assert two.endswith("the same answers")
