"""Runs an ablation: each point is an evaluation in a folder of its own, resumable like any other."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nabla.core.errors import ConfigError
from nabla.core.files import replace_whole
from nabla.core.locks import Lock
from nabla.core.processes import require_guarded, spawned
from nabla.core.quiet import quiet
from nabla.launch.fingerprint import without_later
from nabla.launch.launcher import make_fabric
from nabla.study.ablation.config import AblationConfig, Point
from nabla.study.ablation.results import DESIGN
from nabla.study.ablation.search import Search, Storage
from nabla.study.evaluation.claim import claim
from nabla.study.evaluation.config import EvaluationConfig
from nabla.study.evaluation.fingerprint import fingerprint
from nabla.study.evaluation.monitor import Monitor
from nabla.study.evaluation.results import Cell, Results, Runs
from nabla.study.evaluation.runner import Evaluation
from nabla.study.evaluation.summary import mean

#: What a results folder is a result of.
ABOUT = "ablation.json"
POINTS = "points"


class Ablation:
    """An ablation and the folder of its results.

    Args:
        config: what to run.
        folder: made if it does not exist. Started again on the folder of a killed run, the ablation goes on
            behind the last whole unit of each point and ends with the same records, timings aside.
        workers: processes, each of which solves whole points; the results do not depend on how many.
        progress: hears of (finished points, all points, the point, its accuracy or mean by task, seconds
            waited).

    Raises ConfigError for whatever could not run, and for a folder that holds something else, before
    anything is written.
    """

    def __init__(
        self,
        config: AblationConfig,
        folder: Path,
        *,
        workers: int = 1,
        progress: Callable[[int, int, Point, Mapping[str, float], float], None] | None = None,
    ) -> None:
        if workers < 1:
            raise ConfigError("workers must be at least 1", got=workers)
        self.config, self.folder, self.workers, self.progress = config, folder, workers, progress
        self._base = Evaluation(config.base, folder)
        self.problems = self._base.problems

    def run(self) -> None:
        """Solves what is missing. Raises NablaError; finished units are kept."""
        if self.workers > 1:
            require_guarded()  # before anything is written
        with self._open(), self._processes() as pool:
            search = Search(self.config)
            storage = Storage(self.folder, search)
            done: list[dict[str, Any]] = []
            for batch in search.batches():
                values = []
                begin = time.perf_counter()
                for point, folder in zip(batch, self._solved(batch, pool), strict=True):
                    accuracies = accuracy(Results.load(folder))
                    values.append(float(np.mean(list(accuracies.values()))))
                    name = str(folder.relative_to(self.folder))
                    done.append({"label": point.label, "levels": dict(point.levels), "folder": name})
                    storage.add(point, values[-1], {"folder": name, "accuracy": accuracies})
                    self._describe(done)
                    if self.progress is not None:
                        spent = time.perf_counter() - begin
                        self.progress(len(done), self.config.size, point, accuracies, spent)
                    begin = time.perf_counter()
                search.tell(values)

    def monitor(self) -> Monitor:
        """How far it is, while it runs, in whatever process. A search that comes to a point again solves it
        once, and ends before the numbers do."""
        size, base = self.config.size, self._base.monitor()
        problems = {kind: size * count for kind, count in base.problems.items()}
        return Monitor(
            self.folder / POINTS,
            problems,
            size * base.units,
            points="*",
            each=base.units,
            metric=base.metric,
        )

    def _solved(self, batch: Sequence[Point], pool: ProcessPoolExecutor | None) -> Iterator[Path]:
        """Folders of the points in their order, each when it is finished."""
        folders = [self.folder / POINTS / _name(point) for point in batch]
        work = dict(zip(folders, (point.config for point in batch), strict=True))  # equal points once
        waiting = {} if pool is None else {f: pool.submit(_solve, c, f) for f, c in work.items()}
        for folder in folders:
            if pool is None:
                Evaluation(work[folder], folder).run()
            else:
                waiting[folder].result()
            yield folder

    @contextmanager
    def _processes(self) -> Iterator[ProcessPoolExecutor | None]:
        if self.workers == 1:
            yield None
            return
        with spawned(min(self.workers, self.config.size)) as pool:
            yield pool

    # -- the folder ----------------------------------------------------------------------------------

    def _open(self) -> Lock:
        """The folder, ours, known to hold this ablation or nothing."""
        about = {
            "ablation": self.config.resolved(),
            **fingerprint(self.config.base, self.problems),
            "device": make_fabric(accelerator=self.config.base.accelerator, devices=1).device.type,
        }
        return claim(self.folder, ABOUT, about, "ablation")

    def _describe(self, done: list[dict[str, Any]]) -> None:
        """What the report goes by."""
        design = {
            "factors": [factor.to_dict() for factor in self.config.factors],
            "sampler": self.config.sampler,
            "size": self.config.size,
            "points": done,
        }
        replace_whole(self.folder / DESIGN, json.dumps(design, indent=1, ensure_ascii=False) + "\n")


def _solve(config: EvaluationConfig, folder: Path) -> None:
    """One point, to its end, in a process of its own. Raises NablaError."""
    with quiet():
        Evaluation(config, folder).run()


def accuracy(results: Results) -> dict[str, float]:
    """By task: of whole runs, or under the largest budget of the first unit. Where the metric is a number,
    its mean; a point without any number is the worst of all (-inf)."""
    found = {}
    for (task, method), run in results.runs.items():
        part: Runs | Cell = run
        if results.ladder:
            unit = results.ladder[0][0]
            value = max(v for u, v in results.ladder if u == unit)
            part = results.cells[task, method, unit, value]
        average = float(part.correct.mean()) if results.metric.rate else mean(part.value)[0]
        found[task] = float("-inf") if average is None else average
    return found


def _name(point: Point) -> str:
    """Folder of a point: readable, and the same for the same configuration alone, whatever arguments the
    engine has got since."""
    text = json.dumps(without_later(point.config.resolved()), sort_keys=True, default=str)
    digest = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
    slug = re.sub(r"[^a-z0-9.]+", "-", point.label.lower()).strip("-.")[:40]
    return f"{slug}-{digest}"
