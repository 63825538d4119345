"""``nabla solve``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from nabla.cli.parsing import RUN, Call
from nabla.cli.terminal import as_data
from nabla.core.errors import ConfigError, NablaError, PromptError
from nabla.core.solution import Interrupted, RunError
from nabla.launch.config.run import SANDBOX, RunConfig

if TYPE_CHECKING:
    from nabla.core.prompt import Prompt
    from nabla.core.solution import Solution
    from nabla.engine.events import Callback
    from nabla.problems.checker import Checker

#: Of a run's options, those that this command takes.
RUN_OPTIONS = RUN


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("texts", nargs="*", help="Prompts.")
    parser.add_argument(
        "--prompts", type=str | None, default=None, help="File of prompts: .txt (one a line) or .jsonl."
    )
    parser.add_argument(
        "--task",
        type=str | dict[str, Any] | None,
        default=None,
        help="Problems of a task in place of prompts: a name, or a dict of a name and arguments.",
    )
    parser.add_argument("--problems", type=int, default=1, help="With --task: how many.")
    parser.add_argument("--problem_seed", type=int | None, default=None, help="With --task: their order.")
    parser.add_argument("--offset", type=int, default=0, help="With --task: problems left out at the start.")
    parser.add_argument(
        "--json", action="store_true", help="One JSON object per solution on standard output, nothing else."
    )
    parser.add_argument(
        "--output",
        type=str | None,
        default=None,
        help="Folder of configuration, versions, solutions (default runs/TIME-METHOD; 'none' keeps nothing).",
    )


def run(call: Call) -> int:
    """Solves, prints and stores. Raises NablaError; what was finished is printed first."""
    from nabla.cli.prompts import read_prompts

    options = call.options
    if options.task is not None:
        prompts, config, found = set_task(call)
        task: Checker | None = found
    else:
        prompts = read_prompts(options.texts, options.prompts, call.config.system)
        config, task = settle(call.config, prompts)
    config = config.changed(call.changes)
    if not options.json:
        return _solve(call, config, prompts, task)
    as_data()
    emit = partial(print, file=sys.stdout, flush=True)
    with redirect_stdout(sys.stderr):  # whatever callbacks print stays out of the JSON
        return _solve(call, config, prompts, task, emit)


def set_task(call: Call) -> tuple[list[Prompt], RunConfig, Checker]:
    """Problems of the task that --task names, what to solve them with, and what grades them.

    Raises ConfigError, also where prompts are given too.
    """
    from nabla.core.prompt import Prompt
    from nabla.launch.config.presets import embedded
    from nabla.problems.tasks.base import TaskChecker, tasks
    from nabla.problems.tasks.sandbox import Sandbox

    options, config = call.options, call.config
    if options.texts or options.prompts:
        raise ConfigError("--task brings its own problems", got=options.texts or options.prompts)
    task = tasks.build(options.task)
    problems = task.problems(options.problems, seed=options.problem_seed, offset=options.offset)
    prompts = [Prompt.of(p.prompt, id=p.id, system=config.system) for p in problems]
    if not isinstance(task, Sandbox):
        return prompts, config, TaskChecker(task, problems)
    return prompts, embedded(config, task.family), task.checker


def settle(config: RunConfig, prompts: Sequence[Prompt]) -> tuple[RunConfig, Checker | None]:
    """Without a language model, the embedded ones of the prompts' family; and the task that can check.

    Raises PromptError for prompts of no family or of several.
    """
    from nabla.launch.config.presets import embedded
    from nabla.problems.sandbox import task_for

    if config.lm is not None and not config.lm.startswith(SANDBOX):
        return config, None
    tasks = []
    for prompt in prompts:
        try:
            tasks.append(task_for(prompt.text))
        except NablaError as error:
            if config.lm is not None:
                return config, None
            raise PromptError(
                "No language model is given, and this is no prompt for the embedded ones",
                got=prompt.text,
                fix="Pass --lm and --rm (or --config). Embedded models answer prompts such as "
                '"28*6+68-71+94" or "1..4../....../.2..../....../.....6/......".',
            ) from error
    names = sorted({task.name for task in tasks})
    if config.lm is not None:
        return config, tasks[0] if len(names) == 1 else None
    if len(names) > 1:
        raise PromptError(
            "Prompts of several families need a call each",
            got=names,
            fix="Split them, or pass --lm and --rm.",
        )
    return embedded(config, names[0]), tasks[0]


def _solve(
    call: Call,
    config: RunConfig,
    prompts: Sequence[Prompt],
    task: Checker | None,
    emit: Callable[[str], None] | None = None,
) -> int:
    from rich.text import Text

    from nabla.cli.recorder import Recorder
    from nabla.cli.storage import open_folder, output_path
    from nabla.core.console import make_console
    from nabla.core.costs import Cost
    from nabla.launch.callbacks.cost import cost_table, kept_line
    from nabla.launch.readiness import require_ready

    resolved = config.resolved()
    path = output_path(call.options.output, resolved["method"]["name"])
    recorder = Recorder(None, task, emit)
    callbacks = [recorder, *_callbacks(config, len(prompts), quiet=emit is not None)]
    config.build_loggers(path)
    require_ready(config)
    lm, reward = config.load_models()
    loop = config.loop(lm, reward, callbacks=callbacks, folder=path)
    folder = recorder.folder = open_folder(path, resolved, call.arguments, loop.fabric.device)
    streamed = len(prompts) == 1 and any(_is_stream(callback) for callback in callbacks)
    console = make_console()
    if streamed:
        console.print(Text(prompts[0].text, style="bold"))
    status, solutions, failed = "failed", [], Cost()
    try:
        solutions = loop.run(prompts)
        status = "finished"
    except Interrupted as error:
        status, solutions = "interrupted", error.solutions
        raise
    except RunError as error:
        solutions, failed = error.solutions, error.failed_cost
        _show_failures(error)
        raise
    finally:
        recorder.complete(solutions)
        if emit is None:
            _show(console, solutions, lm.tokenizer, task, streamed)
            if config.callbacks is None and (solutions or failed.phases):
                total = Cost.sum(s.cost for s in solutions) + failed
                console.print(cost_table(total))
                if kept := kept_line(loop.engine.workspace.store, total):
                    console.print(Text(kept))
        if folder is not None:
            folder.finish(status, problems=len(prompts), solved=len(solutions))
            print(f"stored in {folder.path}", file=sys.stderr)
    return 0


def _show(
    console: Any, solutions: Sequence[Solution], tokenizer: Any, task: Checker | None, streamed: bool
) -> None:
    from nabla.cli.display import show_solution
    from nabla.launch.records import correct

    for number, solution in enumerate(solutions):
        if number:
            console.print()
        show_solution(console, solution, tokenizer, task, streamed=streamed)
    if task is not None and len(solutions) > 1:
        right = sum(correct(solution, task) for solution in solutions)
        console.print(f"\n{right} of {len(solutions)} right")


def _show_failures(error: RunError) -> None:
    if len(error.failures) + len(error.solutions) > 1:
        for name, failure in error.failures.items():
            print(f"nabla: problem {name!r} failed: {failure}", file=sys.stderr)


def _callbacks(config: RunConfig, problems: int, *, quiet: bool) -> list[Callback]:
    """What the configuration names, or a display that suits the number of problems."""
    from nabla.launch.callbacks.logging import MetricsLogger

    if config.callbacks is not None or quiet:
        chosen = config.build_callbacks()
    else:
        from nabla.launch.callbacks.progress import ProgressBar
        from nabla.launch.callbacks.stream import Stream

        chosen = [Stream() if problems == 1 else ProgressBar()]
    if config.loggers and not any(isinstance(callback, MetricsLogger) for callback in chosen):
        chosen.append(MetricsLogger())
    return chosen


def _is_stream(callback: Callback) -> bool:
    from nabla.launch.callbacks.stream import Stream

    return isinstance(callback, Stream)
