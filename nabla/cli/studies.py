"""What commands on whole tasks have in common: the task, and studies that are stored and go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from nabla.cli.parsing import Call
from nabla.cli.storage import require_named
from nabla.core.errors import ConfigError, require_one_of


def add_task(parser: ArgumentParser) -> None:
    """The option of ``nabla compare`` and ``nabla diagnose`` that says on what they work."""
    parser.add_argument(
        "--task",
        type=str | dict[str, Any],
        default="all",
        help="Sandbox family of the problems (latin, arithmetic, all), or any task: a name, or a dict of a "
        "name and arguments (then with --lm).",
    )


def require_task(name: str | dict[str, Any]) -> str | dict[str, Any]:
    """``--task``. Raises ConfigError for a name that is neither a family's nor a registered task's."""
    from nabla.problems.sandbox import TASKS
    from nabla.problems.tasks.base import tasks

    if isinstance(name, str):
        require_one_of(name, ["all", *TASKS, *tasks], "There is no such --task", "Families and tasks")
    return name


def add_study_arguments(parser: ArgumentParser, what: str) -> None:
    """Options of every study; ``what`` ends the name of its default folder."""
    parser.add_argument(
        "--output",
        type=str | None,
        default=None,
        help=f"Folder of the results (default runs/NAME-{what}); a run that was stopped goes on there.",
    )
    parser.add_argument("--quick", action="store_true", help="The small form that the configuration names.")
    parser.add_argument("--problems", type=int | None, default=None, help="Problems of each task.")
    parser.add_argument(
        "--metric",
        type=str | None,
        default=None,
        help="What answers are measured by, in place of the configuration's: answer (right or wrong), "
        "reward, or package.module:function; with --report, if the records know it.",
    )
    parser.add_argument("--workers", type=int, default=1, help="Processes; the results do not depend on it.")
    parser.add_argument(
        "--report", type=str | None, default=None, help="Only tables and plots of this results folder again."
    )


def reported(call: Call, *changes: str) -> Path | None:
    """The folder of ``--report``; None where a study is to run.

    Args:
        call: the command line.
        changes: options that change a report, too.

    Raises ConfigError for any other option beside it: a report runs nothing, and would pass it over.
    """
    folder = call.options.report
    if folder is None:
        return None
    allowed = {"report", "metric", *changes}
    given = {a.partition("=")[0][2:] for a in call.arguments if a.startswith("--")} - allowed
    told = [f"--{name}" for name in sorted(given)]
    file = call.options["config" if call.command == "ablate" else "file"]  # the one without an option's name
    told += [] if file is None else [file]
    if told:
        raise ConfigError(
            "--report writes the tables and plots of a folder again and runs nothing",
            got=" ".join(told),
            fix=f"Leave out {', '.join(told)}, or --report.",
        )
    require_named(folder, "Name a folder.", "--report")
    return Path(folder)


def results_folder(options: Any, file: str, what: str) -> Path:
    """Where the results of a configuration file go: the records in there are the study, and it goes on where
    it was stopped. Raises ConfigError for ``none``."""
    if options.output == "none":
        raise ConfigError(f"The {what} works on the records in its folder", got="--output none")
    require_named(options.output, "Name a folder.")
    suffix = "-quick" if options.quick else ""
    return Path(options.output or Path("runs") / f"{Path(file).stem}-{what}{suffix}")
