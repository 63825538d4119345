"""Seconds, medians and their intervals."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

#: Bootstrap resamples.
RESAMPLES = 2000


def now() -> float:
    """Seconds; waits for the GPU first where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def settle() -> None:
    """Takes what has been loaded so far out of the garbage collector's sight: a pass over a million objects
    takes 0.2 s, and would fall on whichever sample it likes."""
    gc.collect()
    gc.freeze()


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock of one call."""
    begin = now()
    call()
    return now() - begin


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % bootstrap interval (the value itself where there is one sample)."""

    value: float
    low: float
    high: float


def median(samples: Sequence[float]) -> Interval:
    """The median."""
    return ratio(samples, [1.0] * len(samples))


def ratio(top: Sequence[float], bottom: Sequence[float]) -> Interval:
    """``median(top) / median(bottom)``; samples of equal number were taken in turn and are resampled in
    pairs, so that a slow moment of the machine counts on both sides."""
    a, b = np.asarray(top, dtype=float), np.asarray(bottom, dtype=float)
    draw = np.random.default_rng(0)
    first = draw.integers(len(a), size=(RESAMPLES, len(a)))
    second = first if len(a) == len(b) else draw.integers(len(b), size=(RESAMPLES, len(b)))
    found = np.median(a[first], -1) / np.median(b[second], -1)
    low, high = np.quantile(found, (0.025, 0.975))
    return Interval(float(np.median(a) / np.median(b)), float(low), float(high))


def interleave(cases: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Each case once to warm up, then all in turn, ``repeats`` times."""
    found: dict[str, list[float]] = {name: [] for name in cases}
    for call in cases.values():
        call()
    for _ in range(repeats):
        for name, call in cases.items():
            found[name].append(seconds(call))
    return found
