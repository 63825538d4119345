"""``nabla diagnose``: before a study, what will pay."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from nabla.cli.parsing import RUN, Call
from nabla.cli.studies import add_task, require_task
from nabla.core.errors import ConfigError, NablaError, require_count
from nabla.core.extras import require_extra
from nabla.core.files import warn
from nabla.launch.config.run import RunConfig

if TYPE_CHECKING:
    from nabla.problems.tasks.base import Task
    from nabla.study.diagnosis.study import Diagnosis, Subject

#: Of a run's options, those not taken here: a diagnosis has a display and a report of its own.
UNHEARD = ("callbacks", "loggers")
RUN_OPTIONS = tuple(name for name in RUN if name not in UNHEARD)


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    add_task(parser)
    parser.add_argument("--problems", type=int, default=50, help="Problems of each task.")
    parser.add_argument("--problem_seed", type=int | None, default=None, help="Of their order.")
    parser.add_argument("--offset", type=int, default=0, help="Problems left out at the start.")
    parser.add_argument(
        "--rewards",
        type=dict[str, Any] | None,
        default=None,
        help="Several rewards in place of --rm: a dict of names of your own and specifications. Default of a "
        "sandbox family: its outcome reward and its process reward.",
    )
    parser.add_argument("--samples", type=int, default=4, help="Responses per problem.")
    parser.add_argument(
        "--swaps", type=int, default=24, help="Other tokens that are tried in a wrong response per problem."
    )
    parser.add_argument("--rerolls", type=int, default=2, help="Texts written behind each of them.")
    parser.add_argument(
        "--process_bench",
        type=str | None,
        default=None,
        help="JSONL file of texts whose first wrong step is marked, in ProcessBench's format (problem, "
        "steps, label): F1 of the rewards there.",
    )
    parser.add_argument(
        "--output",
        type=str | None,
        default=None,
        help="Folder of a JSON file, a figure and the gates per task (default runs/TIME-diagnose; "
        "'none' keeps nothing).",
    )


def run(call: Call) -> int:
    """Measures, prints and stores. Raises NablaError."""
    from nabla.cli.storage import held, output_path
    from nabla.launch.readiness import require_ready

    require_extra("eval", "scipy", "matplotlib", purpose="nabla diagnose")
    for name in UNHEARD:  # a file that other commands read, too
        if getattr(call.config, name):
            warn(f"{name} of the configuration are not used: a diagnosis has its own display and report")
    subjects = _subjects(call)
    path = output_path(call.options.output, "diagnose")
    for subject in subjects:
        subject.require_one_process()
        for name, spec in [*subject.rewards.items()] or [("", None)]:
            with _of_rewards(name if call.options.rewards is not None else None):
                require_ready(subject.run(spec))
    resolved = {
        subject.task.name: {**subject.run(None).resolved(), "rewards": dict(subject.rewards)}
        for subject in subjects
    }
    with held(path):
        return _diagnose(subjects, path, resolved, call)


@contextmanager
def _of_rewards(name: str | None) -> Iterator[None]:
    """Inside, an error is of that entry of ``--rewards``, which a run knows as its rm; None: of no entry."""
    try:
        yield
    except NablaError as error:
        if name is None:
            raise
        raise ConfigError(f"--rewards.{name} cannot be used: {error}") from error


def _diagnose(subjects: list[Subject], path: Path | None, resolved: dict[str, Any], call: Call) -> int:
    from nabla.cli.storage import open_folder
    from nabla.core.display import Display
    from nabla.core.files import stored_in
    from nabla.launch.folder import ended
    from nabla.study.diagnosis.report import write
    from nabla.study.diagnosis.study import Progress, diagnose

    folder = None
    try:
        for subject in subjects:
            progress = Progress()
            with Display(progress.lines):
                found = diagnose(subject, progress)
            _show(found, path)
            if folder is None and path is not None:
                import torch

                folder = open_folder(path, resolved, call.arguments, torch.device("cpu"))
            if folder is not None:
                with stored_in(folder.path, "diagnosis", "Make room and run it again; it is shown above."):
                    write(found, folder.path)
    except BaseException as error:
        if folder is not None:
            folder.finish(ended(error))
        raise
    if folder is not None:
        folder.finish("finished")
        print(f"stored in {folder.path}", file=sys.stderr)
    return 0


def _subjects(call: Call) -> list[Subject]:
    """What is to be diagnosed, one for each task. Raises ConfigError."""
    from nabla.problems.sandbox import TASKS
    from nabla.problems.tasks.base import tasks as registry
    from nabla.problems.tasks.sandbox import Sandbox
    from nabla.study.diagnosis.process_bench import read_labelled
    from nabla.study.diagnosis.study import Subject
    from nabla.study.diagnosis.texts import Settings

    options = call.options
    for name, least in (("samples", 2), ("swaps", 1), ("rerolls", 1), ("problems", 1)):
        require_count(f"--{name}", options[name], minimum=least)
    settings = Settings(options.samples, options.swaps, options.rerolls)
    chosen: list[Task]
    if isinstance(options.task, str) and options.task in ("all", *TASKS):
        chosen = [Sandbox(name) for name in (TASKS if options.task == "all" else [options.task])]
    else:
        chosen = [registry.build(require_task(options.task))]
    labelled = [] if options.process_bench is None else read_labelled(options.process_bench)
    subjects = []
    for task in chosen:
        problems = task.chosen(options.problems, seed=options.problem_seed, offset=options.offset)
        task.require_grades(problems)
        config, rewards = _settled(call, task)
        subject = Subject(config, rewards, task, problems, labelled, settings)
        _ = subject.sampling  # refuses temperature 0 now
        subjects.append(subject)
    return subjects


def _settled(call: Call, task: Task) -> tuple[RunConfig, Mapping[str, Any]]:
    """The task's configuration, and its rewards by name. Raises ConfigError."""
    from nabla.launch.config.presets import changed, embedded
    from nabla.problems.tasks.sandbox import Sandbox

    config, named = call.config, call.options.rewards
    if named is not None and config.rm is not None:
        raise ConfigError("Rewards are given twice", got="--rm and --rewards", fix="Leave out one of them.")
    rewards = dict(named) if named is not None else {}
    for name, spec in rewards.items():
        if not isinstance(spec, str | dict):
            raise ConfigError(f"--rewards.{name} is a path, or a dict of a name and arguments", got=spec)
    if config.rm is not None:
        rewards = {"reward": config.rm}
    if isinstance(task, Sandbox):
        if not rewards and config.lm is None:
            rewards = {
                "outcome": f"sandbox:{task.family}-reward",
                "process": {"name": "process", "path": f"sandbox:{task.family}-process-reward"},
            }
        config = embedded(config, task.family)
    if config.lm is None:
        raise ConfigError("There is no language model", fix="Pass --lm PATH_OR_ID (and --rm).")
    return changed(config, call.changes), rewards


def _show(found: Diagnosis, path: Path | None) -> None:
    from nabla.core.console import make_console
    from nabla.launch.callbacks.cost import cost_table
    from nabla.study.diagnosis.report import advice, failures, gate_files, headline, tables

    console = make_console()
    console.print(headline(found), markup=False, highlight=False)
    for table in tables(found):
        console.print(table)
    for number, verdict in enumerate(found.verdicts):
        word = "worth trying" if number == 0 else "then"
        console.print(f"{word}: {advice(verdict)}", markup=False, highlight=False, soft_wrap=True)
    for reward, file in gate_files(found).items():
        kept = "" if path is None else f"; kept for --method.gate.file {path / file}"
        told = f"{reward}: {found.gates[reward].told}{kept}"
        console.print(told, markup=False, highlight=False, soft_wrap=True)
    console.print(cost_table(found.cost))
    for line in failures(found):
        print(f"nabla: {line}", file=sys.stderr)
