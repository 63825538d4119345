"""How far an evaluation or an ablation is, from its folder alone: whichever process does the work."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from nabla.core.display import Line
from nabla.core.errors import ConfigError
from nabla.study.evaluation.journal import RECORDS, journals, units
from nabla.study.evaluation.metric import REWARD, Metric
from nabla.study.evaluation.unfinished import FOLDER

#: A task and the label of a method.
Kind = tuple[str, str]


class Monitor:
    """Reads what the working processes write, and what they have written since.

    Args:
        folder: of the results.
        problems: how many of each (task, method) there are in all, over seeds and points.
        units: in all.
        points: glob pattern of the evaluations within the folder; "." is the folder itself.
        each: units of one evaluation; None for all.
        metric: what answers are measured by.
    """

    def __init__(
        self,
        folder: Path,
        problems: Mapping[Kind, int],
        units: int,
        points: str = ".",
        each: int | None = None,
        metric: Metric | None = None,
    ) -> None:
        self.folder, self.problems, self.units, self.points = folder, dict(problems), units, points
        self.each = units if each is None else each
        self.metric = metric or Metric()
        #: (point, task, method, seed, problem) → (what the metric says or None, reward, seconds).
        self._runs: dict[tuple[Any, ...], tuple[float | None, float | None, float]] = {}
        self._ended: set[tuple[Any, ...]] = set()
        #: Points whose records are in one file.
        self._merged: set[str] = set()
        self._offsets: dict[Path, int] = {}
        self._since = time.time()
        self._begun: float | None = None
        self._before: set[tuple[Any, ...]] = set()

    def lines(self) -> list[Line]:
        """A line for each unit that is being solved, and one for the whole. Never an error: what a process is
        just writing or removing is read the next time."""
        pulses: list[tuple[str, dict[str, Any]]] = []
        for point in self._points():
            with suppress(OSError, ConfigError, ValueError, KeyError):
                self._read(point)
            pulses += [(point.name, pulse) for pulse in self._pulses(point)]
        if self._begun is None:
            if not pulses:
                return []  # models are being loaded
            self._begun = min(pulse["begun"] for _, pulse in pulses)
            self._before = set(self._runs)
        return [*(self._unit(name, pulse) for name, pulse in pulses), self._whole([p for _, p in pulses])]

    # -- reading -------------------------------------------------------------------------------------

    def _points(self) -> list[Path]:
        return [self.folder] if self.points == "." else sorted(self.folder.glob(self.points))

    def _read(self, point: Path) -> None:
        if point.name in self._merged:
            return
        if (point / RECORDS).exists():  # it is finished, and its journals are gone, maybe unseen
            self._take(point.name, (point / RECORDS).read_bytes())
            self._merged.add(point.name)
            return
        for inside in (point, point / FOLDER):
            for path in journals(inside):
                start = self._offsets.get(path, 0)
                if path.stat().st_size < start:
                    start = 0  # a unit's file, begun anew
                for key, data, offset in units(path, start):
                    self._offsets[path] = offset
                    if inside is point:
                        self._ended.add((point.name, *key))
                    self._take(point.name, data)

    def _take(self, point: str, data: bytes) -> None:
        for text in data.splitlines():
            if b'"kind":"run"' in text:
                row = json.loads(text)
                key = (point, row["task"], row["method"], row["seed"], row["problem"])
                measured = row["correct"] if self.metric.rate else row.get("metric")
                self._runs[key] = measured, row["reward"], row["timing"]["seconds"]

    def _pulses(self, point: Path) -> Iterator[dict[str, Any]]:
        for path in sorted((point / FOLDER).glob("*.live")):
            with suppress(OSError, ValueError):
                if path.stat().st_mtime >= self._since - 1.0:  # not of a run that was killed
                    yield json.loads(path.read_text(encoding="utf-8"))

    # -- telling -------------------------------------------------------------------------------------

    def _unit(self, point: str, pulse: Mapping[str, Any]) -> Line:
        task, method, seed, shard = pulse["unit"]
        seconds = max(time.time() - pulse["begun"], 1e-3)
        made = pulse["done"] + pulse["flying"]
        rest = pulse["problems"] - pulse["kept"] - made
        known = [run for key, run in self._runs.items() if key[0] == point and key[1:3] == (task, method)]
        rewards = [reward for _, reward, _ in known if reward is not None]
        measured = [value for value, _, _ in known if value is not None]
        notes = []
        if measured:
            mean = sum(measured) / len(measured)
            said = f"{100 * mean:.1f} % right" if self.metric.rate else f"{self.metric.noun} {mean:.3g}"
            notes.append(said)
        if rewards and not (measured and self.metric.name == REWARD):
            notes.append(f"reward {sum(rewards) / len(rewards):.3g}")
        elif not rewards and pulse["reward"] is not None:
            notes.append(f"reward {pulse['reward']:.3g} so far")
        name = f"{task} {method} seed {seed} shard {shard}"
        return Line(
            name if self.points == "." else f"{point.rpartition('-')[0]}: {name}",
            pulse["kept"] + pulse["done"],
            pulse["problems"],
            made,
            seconds,
            seconds * rest / made if made else None,
            pulse["flying"],
            tuple(notes),
        )

    @property
    def _units(self) -> int:
        """That are finished."""
        open_ones = sum(key[0] not in self._merged for key in self._ended)
        return self.each * len(self._merged) + open_ones

    def _whole(self, pulses: Sequence[Mapping[str, Any]]) -> Line:
        seconds = max(time.time() - (self._begun or 0.0), 1e-3)
        new = [key for key in self._runs if key not in self._before]
        flying = sum(pulse["flying"] for pulse in pulses)
        return Line(
            "run",
            len(self._runs),
            sum(self.problems.values()),
            len(new) + flying,
            seconds,
            self._left(new, pulses, seconds),
            flying,
            (f"{self._units}/{self.units} units",),
        )

    def _left(
        self, new: Sequence[tuple[Any, ...]], pulses: Sequence[Mapping[str, Any]], seconds: float
    ) -> float | None:
        """Seconds until the end: each method's problems at its own price, as far as it is known, in the
        proportion that the time of this run has to what was done in it."""
        count, usual = Counter(key[1:3] for key in self._runs), self._prices()
        flying: dict[Any, float] = {}
        for pulse in pulses:
            kind = pulse["unit"][0], pulse["unit"][1]
            flying[kind] = flying.get(kind, 0.0) + pulse["flying"]
        done = sum(self._runs[key][2] for key in new)
        done += sum(part * usual.get(kind, 0.0) for kind, part in flying.items())
        if done <= 0:
            return None
        rest = {kind: total - count[kind] - flying.get(kind, 0.0) for kind, total in self.problems.items()}
        return seconds * sum(max(n, 0.0) * usual[kind] for kind, n in rest.items()) / done

    def _prices(self) -> dict[Kind, float]:
        """Seconds of a problem; those of all methods together where one has none yet, and 1 at the start."""
        seconds: dict[Any, list[float]] = {}
        for key, (_, _, price) in self._runs.items():
            seconds.setdefault(key[1:3], []).append(price)
        everything = [price for found in seconds.values() for price in found] or [1.0]
        return {
            kind: sum(found) / len(found)
            for kind in self.problems
            for found in [seconds.get(kind, everything)]
        }
