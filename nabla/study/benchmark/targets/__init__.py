"""One module per target; each has ``measure(bench) -> list[Measurement]``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from nabla.core.errors import ConfigError

if TYPE_CHECKING:
    from nabla.study.benchmark.bench import Stand
    from nabla.study.benchmark.measurement import Measurement

#: Number → (module, what it measures).
TARGETS: dict[int, tuple[str, str]] = {
    1: ("first_row", "refine one position"),
    2: ("next_position", "the next position on the same trajectory"),
    3: ("all_rows", "all rows over a support of 64"),
    4: ("peak_memory", "peak memory over the loaded models"),
    5: ("whole_solve", "share of a solve that is not rollouts; rollouts beside transformers' generate"),
    6: ("together", "64 problems together beside one after another"),
    7: ("growth", "growth in response length, vocabulary, steps and batch"),
    8: ("proposals", "a gradient in scored proposals, with kept graphs and without"),
}


def target(number: int) -> Callable[[Stand], list[Measurement]]:
    """The measurement of a target. Raises ConfigError for an unknown number."""
    if number not in TARGETS:
        raise ConfigError(
            "Unknown target", got=number, fix=f"Targets are {', '.join(map(str, TARGETS))}."
        )
    module = importlib.import_module(f"nabla.study.benchmark.targets.{TARGETS[number][0]}")
    measure: Callable[[Stand], list[Measurement]] = module.measure
    return measure
