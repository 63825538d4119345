"""The benchmark of long responses runs, and rows that grow are moved ever more seldom."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from nabla.models.layers import GrowingLayer

SCRIPT = Path(__file__).parents[3] / "experiments" / "benchmarks" / "long_responses.py"


def script() -> Any:
    spec = importlib.util.spec_from_file_location("long_responses", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_short_table() -> None:
    module = script()
    rows = module.table(module.tiny(256), rows=2, tokens=64, stretch=32)
    assert [end for end, _, _ in rows] == [32, 64]
    assert all(ours > 0 and floor > 0 for _, ours, floor in rows)


def test_buffers_are_moved_a_logarithmic_number_of_times() -> None:
    """Each move copies all columns: one in every so many steps would go with the square of the length."""
    module = script()
    lm, moved = module.tiny(2100), []
    arrange = GrowingLayer.arrange

    def noted(self: GrowingLayer, *arguments: Any) -> None:
        moved.append(self.keys.shape[-2])
        arrange(self, *arguments)

    with mock.patch.object(GrowingLayer, "arrange", noted), torch.no_grad():
        module.decoding(lm, 1, 2048, 2048)
    copied = sum(moved) / 2  # two layers
    assert copied < 10 * 2048  # an eighth of room: a geometric series with the ratio 9/8
