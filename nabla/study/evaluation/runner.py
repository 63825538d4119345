"""Runs an evaluation: units over processes, results in a folder that any number of kills may interrupt."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nabla.core.errors import ConfigError, NablaError, located, require_threads
from nabla.core.files import reason
from nabla.core.locks import Lock
from nabla.core.prompt import Prompt
from nabla.core.quiet import main_process
from nabla.core.solution import Solution
from nabla.engine.events import Events
from nabla.launch.folder import git_commit, versions
from nabla.launch.group import dismiss, launch, require_file, together
from nabla.launch.launcher import make_fabric
from nabla.problems.tasks.base import Problem, Task, tasks
from nabla.study.evaluation.claim import claim
from nabla.study.evaluation.config import EvaluationConfig
from nabla.study.evaluation.fingerprint import fingerprint
from nabla.study.evaluation.journal import RECORDS, Journal, discard, merge, recover
from nabla.study.evaluation.judge import Judge
from nabla.study.evaluation.lines import prepared, responses, rows, scored, ungraded
from nabla.study.evaluation.metric import ANSWER, Metric
from nabla.study.evaluation.monitor import Monitor
from nabla.study.evaluation.plan import Unit, plan
from nabla.study.evaluation.pulse import Pulse
from nabla.study.evaluation.reach import Reach, Told
from nabla.study.evaluation.unfinished import Unfinished, forget, sweep
from nabla.study.evaluation.workshop import Workshop

#: What a results folder is a result of.
ABOUT = "evaluation.json"
#: When and where it ran; nothing that results depend on.
LOG = "runs.jsonl"
#: What the first process said last of an evaluation that this one has not come to: its folder, its units.
_told: list[tuple[str, list[int]]] = []


class Evaluation:
    """An evaluation and the folder of its results.

    Args:
        config: what to run.
        folder: made if it does not exist. Started again on the folder of a killed run, the evaluation solves
            the problems that were not finished and ends with the same records, but for timings and the last
            bits of rewards.
        workers: processes; the results do not depend on how many.
        progress: hears of (finished units, all units, the unit with the problems that were solved now, their
            seconds).

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
        require_threads(workers, "workers")
        self.config, self.folder, self.workers = config, folder, workers
        self.progress = progress
        config.resolved()
        self.tasks = {label: tasks.build(setup.task) for label, setup in config.tasks.items()}
        self.problems = {label: _chosen(label, task, config) for label, task in self.tasks.items()}
        self._graded = {label: task.grades(self.problems[label]) for label, task in self.tasks.items()}
        self.plan = plan(config, self.problems)
        self._places = {unit.key: index for index, unit in enumerate(self.plan)}
        self._parent: int | None = None
        self._judge: Judge | None = None
        self._missing_of: tuple[Problem, ...] = ()
        self._told: Told = set()

    def run(self) -> None:
        """Solves what is missing. Raises ConfigError and ModelError."""
        lock, missing = None, []
        if self.workers > 1:
            require_file()
        if main_process():  # before other processes exist: they need not hear of an error
            lock = self._open()
            missing = self._missing()
        try:
            # Other processes of this program are at the same line, or wait for it.
            if missing or (self.workers > 1 and (not main_process() or torch.distributed.is_initialized())):
                self._work(missing)
            if main_process() and not (self.folder / RECORDS).exists():
                merge(self.folder, [unit.key for unit in self.plan])
                sweep(self.folder, ())
        finally:
            if lock is not None:
                lock.close()

    def monitor(self) -> Monitor:
        """How far it is, while it runs, in whatever process."""
        problems: Counter[tuple[str, str]] = Counter()
        for unit in self.plan:
            problems[unit.task, unit.method] += len(unit.problems)
        return Monitor(self.folder, problems, len(self.plan), metric=Metric(self.config.metric))

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
            lock.close()
            raise ConfigError(
                f"The results folder cannot be written: {reason(error)}",
                got=str(self.folder),
                fix="Choose another --output.",
            ) from error
        return lock

    def _missing(self) -> list[int]:
        """Indices of the units still to do."""
        if (self.folder / RECORDS).exists():  # complete; a kill may have come before the journals went
            discard(self.folder)
            sweep(self.folder, ())
            return []
        done = recover(self.folder)
        missing = [index for index, unit in enumerate(self.plan) if unit.key not in done]
        sweep(self.folder, missing)
        return missing

    # -- the work ------------------------------------------------------------------------------------

    def _work(self, missing: list[int]) -> None:
        fabric = make_fabric(accelerator=self.config.accelerator, devices=self.workers)
        if self.workers > 1:
            launch(fabric)  # starts the other processes with this command line
            missing = self._agreed(fabric, missing)
        if not missing:
            return
        threads = torch.get_num_threads()
        torch.set_num_threads(self.config.threads)  # their number decides the last bits
        journal = Journal(self.folder, fabric.global_rank)
        self._parent = None if main_process() else os.getppid()
        try:
            workshop = Workshop(self.config, fabric.device)
            self._judge = None if self.config.metric == ANSWER else Judge(workshop)
            finished = len(self.plan) - len(missing)
            for index in missing[fabric.global_rank :: fabric.world_size]:
                self._require_parent()
                begin = time.perf_counter()
                unit = self.plan[index]
                self._missing_of = unit.problems
                journal.append(unit.key, self._solve(unit, workshop))
                forget(self.folder, index)
                finished += fabric.world_size  # the others keep pace, more or less
                if self.progress is not None:
                    now = replace(unit, problems=self._missing_of)
                    spent = time.perf_counter() - begin
                    self.progress(min(finished, len(self.plan)), len(self.plan), now, spent)
        except KeyboardInterrupt:
            dismiss()
            raise
        finally:
            journal.close()
            torch.set_num_threads(threads)
        if self.workers > 1:
            with together():
                fabric.barrier()

    def _agreed(self, fabric: Any, missing: list[int]) -> list[int]:
        """The units that the first process found missing, in each process. It did not wait for the others
        with evaluations of this program that were whole before it started them: they pass over these."""
        name = str(self.folder.resolve())
        if not _told:
            with together():
                _told.append(fabric.broadcast((name, missing)))
        there, found = _told[0]
        if there != name:
            return []
        _told.clear()
        return list(found)

    def _require_parent(self) -> None:
        """Ends this process if the first one, whose child it is, was killed."""
        if self._parent is not None and os.getppid() != self._parent:
            raise SystemExit(1)

    def _solve(self, unit: Unit, workshop: Workshop) -> list[dict[str, Any]]:
        """All records of a unit, in the order of its problems, each kept as soon as it is solved."""
        system = self.config.tasks[unit.task].system
        everybody = [Prompt.of(p.prompt, id=p.id, system=system) for p in self.problems[unit.task]]
        method = workshop.ready(unit.task, unit.method, everybody)
        problems = {p.id: p for p in unit.problems}
        size = len(unit.problems)
        with Unfinished(self.folder, self._places[unit.key], unit.key, size) as kept:
            missing = tuple(p for p in unit.problems if p.id not in kept.rows)
            self._missing_of = missing
            prompts = [Prompt.of(p.prompt, id=p.id, system=system) for p in missing]
            pulse = Pulse(kept.pulse, unit, len(kept.rows))
            reach = Reach(unit, self.config.ladder, self._told)
            engine = workshop.engine(unit.task, unit.method, seed=unit.seed, events=Events([pulse, reach]))
            for prompt, outcome in engine.run(reach.watched(pulse.watched(method.solve)), prompts):
                found = self._records(unit, problems[prompt.id], outcome)
                kept.add(prompt.id, prepared(found, method.prepared_flops))
                self._require_parent()
            return [row for p in unit.problems for row in kept.rows[p.id]]

    def _records(self, unit: Unit, problem: Problem, outcome: Solution | NablaError) -> list[dict[str, Any]]:
        """A problem's records, graded and measured."""
        texts = responses(outcome)
        grades: dict[str, bool | None] = dict.fromkeys(texts)
        if self._graded[unit.task]:
            verdicts = self.tasks[unit.task].verdicts([(problem, text) for text in texts])
            grades.update(zip(texts, verdicts, strict=True))
        labels = {"task": unit.task, "method": unit.method, "seed": unit.seed, "problem": problem.id}
        found = rows(labels, outcome, grades, self.config.ladder)
        if not self._graded[unit.task]:
            found = ungraded(found)
        task = self.tasks[unit.task]
        found = scored(found, {text: task.score(problem, text) for text in texts})
        if self._judge is None:
            return found
        prompt = Prompt.of(problem.prompt, id=problem.id, system=self.config.tasks[unit.task].system)
        return self._judge.measure(unit, prompt, outcome, found)


def _chosen(label: str, task: Task, config: EvaluationConfig) -> tuple[Problem, ...]:
    found = task.chosen(config.problems, offset=config.offset)
    ids = [problem.id for problem in found]
    if not ids:
        raise ConfigError("A task has no problems", got=label)
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise ConfigError(f"Two problems of task {label!r} have the same id", got=twice)
    if config.metric == ANSWER:
        other = ", or choose another metric (--metric): reward, or package.module:function"
        with located(f"tasks.{label}.task"):
            task.require_grades(found, other)
    return tuple(found)
