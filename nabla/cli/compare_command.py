"""``nabla compare``."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from functools import partial
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from nabla.cli.parsing import RUN, Call
from nabla.cli.studies import add_task, require_task
from nabla.core.errors import ConfigError, NablaError
from nabla.core.extras import require_extra
from nabla.core.solution import Interrupted
from nabla.launch.config.run import RunConfig

if TYPE_CHECKING:
    from nabla.core.solution import Solution
    from nabla.engine.events import Callback
    from nabla.launch.folder import RunFolder
    from nabla.problems.checker import Checker
    from nabla.problems.problem import Problem
    from nabla.problems.tasks.base import Task

#: Of a run's options, those that this command takes.
RUN_OPTIONS = RUN
#: Of each task, unless told otherwise.
PROBLEMS = 200
#: Bytes of a file's name without its ending: file systems take 255 in all.
NAME = 200


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    add_task(parser)
    parser.add_argument(
        "--problems",
        type=int | None,
        default=None,
        help=f"Problems of each task, of a family held-out ones (default {PROBLEMS}, or all that it has).",
    )
    parser.add_argument("--problem_seed", type=int, default=0, help="Chooses the problems.")
    parser.add_argument(
        "--methods",
        type=list[str | dict[str, Any]],
        default=None,
        help="Methods (names, or dicts of a name and arguments), laid over the configuration's method. "
        "Default: greedy, best-of-8 and nabla-reasoner with 8 rollouts.",
    )
    parser.add_argument("--json", action="store_true", help="One JSON object per method, nothing else.")
    parser.add_argument(
        "--output",
        type=str | None,
        default=None,
        help="Folder (default runs/TIME-compare; 'none' keeps nothing).",
    )


def run(call: Call) -> int:
    """Runs every method on every task and prints a table each. Raises NablaError; what was finished is
    printed first."""
    emit = partial(print, file=sys.stdout, flush=True)
    if not call.options.json:
        return _compare(call, None)
    with redirect_stdout(sys.stderr):
        return _compare(call, emit)


def _compare(call: Call, emit: Callable[[str], None] | None) -> int:
    from nabla.cli.storage import open_folder, output_path
    from nabla.launch.folder import ended
    from nabla.launch.readiness import require_ready
    from nabla.study.evaluation.compare import DEFAULT_METHODS, variants

    require_extra("eval", "scipy", "statsmodels", purpose="nabla compare")
    if call.options.problems is not None and call.options.problems < 1:
        raise ConfigError("--problems must be at least 1", got=call.options.problems)
    if call.options.methods is not None and not call.options.methods:
        raise ConfigError(
            "--methods names no method", got=[], fix="Name one or more, or leave out --methods for the usual."
        )
    chosen = _chosen(call)
    tasks = tuple(chosen)
    methods = call.options.methods or DEFAULT_METHODS
    plans = {task: variants(_config(call, task), methods) for task in tasks}
    resolved = {
        task: {label: config.resolved() for label, config in plan.items()} for task, plan in plans.items()
    }
    path = output_path(call.options.output, "compare")
    for plan in plans.values():
        for config in plan.values():
            config.build_callbacks()
            config.build_loggers(path)
            require_ready(config)
    folder = None
    try:
        for task, plan in plans.items():
            models = next(iter(plan.values())).load_models()
            if folder is None:
                folder = open_folder(path, resolved, call.arguments, models[0].body.device)
            _run_task(task, *chosen[task], plan, models, folder, emit)
    except BaseException as error:
        if folder is not None:
            folder.finish(ended(error))
        raise
    if folder is not None:
        folder.finish("finished")
        print(f"stored in {folder.path}", file=sys.stderr)
    return 0


def _chosen(call: Call) -> dict[str, tuple[Checker, list[Problem]]]:
    """What grades, and the problems, by the name of the family or task. Raises ConfigError."""
    from nabla.problems.sandbox import TASKS
    from nabla.problems.tasks.base import TaskChecker
    from nabla.problems.tasks.base import tasks as registry

    options = call.options
    if isinstance(options.task, str) and options.task in ("all", *TASKS):
        count = options.problems or PROBLEMS
        families = list(TASKS) if options.task == "all" else [options.task]
        return {
            name: (TASKS[name], TASKS[name].problems("test", count, options.problem_seed))
            for name in families
        }
    require_task(options.task)
    if call.config.lm is None:
        raise ConfigError(
            "There is no language model for this task",
            got=f"--task {options.task}",
            fix="Pass --lm PATH_OR_ID, and --rm for methods that need a reward.",
        )
    task = registry.build(options.task)
    problems = _problems(task, options.problems, options.problem_seed)
    return {task.name: (TaskChecker(task, problems), problems)}


def _problems(task: Task, wanted: int | None, seed: int) -> list[Problem]:
    """So many of a task; without a number the usual many, or all that it has. Raises ConfigError."""
    if wanted is not None:
        return task.chosen(wanted, seed=seed)
    try:
        return task.chosen(PROBLEMS, seed=seed)
    except ConfigError:  # it has fewer
        return task.chosen(None, seed=seed)[:PROBLEMS]


def _config(call: Call, task: str) -> RunConfig:
    """The configuration for a family: its embedded models and settings where none are given."""
    from nabla.launch.config.presets import SANDBOX_RUNS, embedded

    config = embedded(call.config, task) if task in SANDBOX_RUNS else call.config
    return config.changed(call.changes)


def _stem(label: str) -> str:
    """A file's name without its ending; of a long one the beginning, and a digest of the whole."""
    stem = label.replace(" ", "-").replace("/", "-").replace("\0", "-")
    data = stem.encode("utf-8", "backslashreplace")
    if len(data) <= NAME:
        return stem
    digest = hashlib.sha256(label.encode("utf-8", "backslashreplace")).hexdigest()[:12]
    return f"{data[: NAME - 13].decode('utf-8', 'ignore')}-{digest}"


def _parted(
    outcomes: Mapping[str, Solution | NablaError],
) -> tuple[list[Solution], dict[str, NablaError]]:
    """Solutions, and errors by id."""
    failures = {key: found for key, found in outcomes.items() if isinstance(found, NablaError)}
    return [found for found in outcomes.values() if not isinstance(found, NablaError)], failures


def _run_task(
    name: str,
    task: Checker,
    problems: list[Problem],
    plan: Mapping[str, RunConfig],
    models: tuple[Any, Any],
    folder: RunFolder | None,
    emit: Callable[[str], None] | None,
) -> None:
    from nabla.cli.recorder import Recorder
    from nabla.core.console import make_console
    from nabla.launch.callbacks.progress import ProgressBar
    from nabla.study.evaluation.compare import comparison_table, evaluate, summarise

    summaries: list[dict[str, Any]] = []
    try:
        for label, config in plan.items():
            stem = _stem(f"{name}-{label}")
            recorder = Recorder(folder, task, name=f"{stem}.jsonl")
            callbacks: list[Callback] = [recorder, ProgressBar(f"{name}: {label}")]
            place = None if folder is None else folder.path / stem
            callbacks += config.build_callbacks()
            try:
                outcomes = evaluate(config, problems, *models, callbacks=callbacks, folder=place)
            except Interrupted as error:
                recorder.complete(error.solutions, {})
                raise
            recorder.complete(*_parted(outcomes))
            summaries.append(summarise(label, task, outcomes))
            if folder is not None:
                folder.append("comparison.jsonl", summaries[-1])
            if emit is not None:
                emit(json.dumps(summaries[-1]))
            for problem, failure in outcomes.items():
                if isinstance(failure, NablaError):
                    print(f"nabla: {label}: problem {problem!r} failed: {failure}", file=sys.stderr)
    except NablaError:
        if summaries and emit is None:
            make_console().print(comparison_table(summaries))
        raise
    if emit is None:
        make_console().print(comparison_table(summaries))
