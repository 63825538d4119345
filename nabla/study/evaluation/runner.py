"""Runs an evaluation: units over processes, results in a folder that any number of kills may interrupt."""

from __future__ import annotations

import atexit
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nabla.core.errors import ConfigError
from nabla.core.prompt import Prompt
from nabla.core.quiet import main_process
from nabla.launch.folder import git_commit, versions
from nabla.launch.launcher import leave_group, make_fabric
from nabla.problems.tasks.base import Problem, Task, tasks
from nabla.study.evaluation.claim import claim
from nabla.study.evaluation.config import EvaluationConfig
from nabla.study.evaluation.fingerprint import fingerprint
from nabla.study.evaluation.journal import RECORDS, Journal, Lock, discard, merge, recover
from nabla.study.evaluation.lines import responses, rows
from nabla.study.evaluation.plan import Unit, plan
from nabla.study.evaluation.workshop import Workshop

#: What a results folder is a result of.
ABOUT = "evaluation.json"
#: When and where it ran; nothing that results depend on.
LOG = "runs.jsonl"


class Evaluation:
    """An evaluation and the folder of its results.

    Args:
        config: what to run.
        folder: made if it does not exist. Started again on the folder of a killed run, the evaluation goes
            on behind its last whole unit and ends with the same records, timings aside.
        workers: processes; the results do not depend on how many.
        progress: hears of (finished units, all units, the unit, its seconds).

    Raises ConfigError or ModelError for whatever could not run, and for a folder that holds something
    else, before anything is loaded or written.
    """

    def __init__(
        self,
        config: EvaluationConfig,
        folder: Path,
        *,
        workers: int = 1,
        progress: Callable[[int, int, Unit, float], None] | None = None,
    ) -> None:
        if workers < 1:
            raise ConfigError("workers must be at least 1", got=workers)
        self.config, self.folder, self.workers = config, folder, workers
        self.progress = progress
        config.resolved()
        self.tasks = {label: tasks.build(setup.task) for label, setup in config.tasks.items()}
        self.problems = {label: _chosen(label, task, config) for label, task in self.tasks.items()}
        self.plan = plan(config, self.problems)

    def run(self) -> None:
        """Solves what is missing. Raises ConfigError and ModelError."""
        lock, missing = None, []
        if main_process():  # before other processes exist: they need not hear of an error
            lock = self._open()
            missing = self._missing()
        try:
            if not main_process() or missing:
                self._work(missing)
            if main_process() and not (self.folder / RECORDS).exists():
                merge(self.folder, [unit.key for unit in self.plan])
        finally:
            if lock is not None:
                lock.close()

    # -- the folder ----------------------------------------------------------------------------------

    def _open(self) -> Lock:
        """The folder, ours, known to hold this evaluation or nothing."""
        device = make_fabric(accelerator=self.config.accelerator, devices=self.workers).device.type
        about = {**fingerprint(self.config, self.problems), "device": device}
        lock = claim(self.folder, ABOUT, about, "configuration")
        try:
            entry = {
                "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "workers": self.workers,
                "git_commit": git_commit(),
                "versions": versions(),
            }
            with (self.folder / LOG).open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise ConfigError(
                f"The results folder cannot be written: {error}",
                got=str(self.folder),
                fix="Choose another --output.",
            ) from error
        return lock

    def _missing(self) -> list[int]:
        """Indices of the units still to do."""
        if (self.folder / RECORDS).exists():  # complete; a kill may have come before the journals went
            discard(self.folder)
            return []
        done = recover(self.folder)
        return [index for index, unit in enumerate(self.plan) if unit.key not in done]

    # -- the work ------------------------------------------------------------------------------------

    def _work(self, missing: list[int]) -> None:
        fabric = make_fabric(accelerator=self.config.accelerator, devices=self.workers)
        if self.workers > 1:
            fabric.launch()  # starts the other processes with this command line
            atexit.register(leave_group)
        missing = fabric.broadcast(missing) if self.workers > 1 else missing
        threads = torch.get_num_threads()
        torch.set_num_threads(self.config.threads)  # their number decides the last bits
        journal = Journal(self.folder, fabric.global_rank)
        parent = os.getppid()
        try:
            workshop = Workshop(self.config, fabric.device)
            finished = len(self.plan) - len(missing)
            for index in missing[fabric.global_rank :: fabric.world_size]:
                if not main_process() and os.getppid() != parent:
                    raise SystemExit(1)  # the first process was killed
                begin = time.perf_counter()
                unit = self.plan[index]
                journal.append(unit.key, self._solve(unit, workshop))
                finished += fabric.world_size  # the others keep pace, more or less
                if self.progress is not None:
                    self.progress(
                        min(finished, len(self.plan)), len(self.plan), unit, time.perf_counter() - begin
                    )
        finally:
            journal.close()
            torch.set_num_threads(threads)
        if self.workers > 1:
            fabric.barrier()

    def _solve(self, unit: Unit, workshop: Workshop) -> list[dict[str, Any]]:
        """All records of a unit, in the order of its problems."""
        engine = workshop.engine(unit.task, unit.method, seed=unit.seed)
        method = workshop.method(unit.task, unit.method)
        system = self.config.tasks[unit.task].system
        prompts = [Prompt.of(p.prompt, id=p.id, system=system) for p in unit.problems]
        outcomes = {prompt.id: outcome for prompt, outcome in engine.run(method.solve, prompts)}
        pairs = [(p, text) for p in unit.problems for text in responses(outcomes[p.id])]
        verdicts = self.tasks[unit.task].grade_all(pairs)
        right = {(p.id, text): verdict for (p, text), verdict in zip(pairs, verdicts, strict=True)}
        found: list[dict[str, Any]] = []
        for problem in unit.problems:
            labels = {"task": unit.task, "method": unit.method, "seed": unit.seed, "problem": problem.id}
            grades = {text: verdict for (name, text), verdict in right.items() if name == problem.id}
            found += rows(labels, outcomes[problem.id], grades, self.config.ladder)
        return found


def _chosen(label: str, task: Task, config: EvaluationConfig) -> tuple[Problem, ...]:
    found = task.problems(config.problems, offset=config.offset)
    ids = [problem.id for problem in found]
    if not ids:
        raise ConfigError("A task has no problems", got=label)
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise ConfigError(f"Two problems of task {label!r} have the same id", got=twice)
    return tuple(found)
