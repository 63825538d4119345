"""Runs the targets of a setting, one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nabla.study.benchmark.bench import Stand
from nabla.study.benchmark.measurement import Measurement
from nabla.study.benchmark.targets import target


def run_targets(
    bench: Stand,
    numbers: Sequence[int],
    keep: Callable[[list[Measurement]], None] = lambda _: None,
) -> list[Measurement]:
    """Figures of the targets, in order; ``keep`` gets all of them so far after each target.

    Raises ConfigError for an unknown number.
    """
    chosen = [target(number) for number in numbers]
    found: list[Measurement] = []
    for number, measure in zip(numbers, chosen, strict=True):
        bench.tell(f"target {number}")
        found += bench.judge(measure(bench))
        keep(found)
    return found
