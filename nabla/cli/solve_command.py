"""``nabla solve``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from jsonargparse import ArgumentParser

from nabla.cli.parsing import RUN, Call, require_left_out
from nabla.cli.terminal import as_data
from nabla.core.errors import ConfigError, NablaError, PromptError
from nabla.core.registry import argument_hints
from nabla.core.solution import Interrupted, RunError
from nabla.launch.config.reader import conform
from nabla.launch.config.run import SANDBOX, RunConfig

if TYPE_CHECKING:
    from nabla.cli.recorder import Recorder
    from nabla.core.prompt import Prompt
    from nabla.core.solution import Solution
    from nabla.engine.events import Callback
    from nabla.launch.callbacks.trace import Trace
    from nabla.launch.folder import RunFolder
    from nabla.launch.resume import Earlier, Share
    from nabla.models.prefixes import PrefixStore
    from nabla.models.vocabulary import Vocabulary
    from nabla.problems.checker import Checker

#: Of a run's options, those that this command takes.
RUN_OPTIONS = RUN
#: Options that choose among a task's problems, with what they say.
OF_TASK = {
    "problems": "how many (default 1)",
    "problem_seed": "their order",
    "offset": "problems left out at the start",
}
#: Name of the trace in the run's folder.
TRACE = "trace.jsonl"


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
    for name, text in OF_TASK.items():
        parser.add_argument(f"--{name}", type=int | None, default=None, help=f"With --task: {text}.")
    parser.add_argument(
        "--logger",
        type=str | None,
        default=None,
        help="Metrics of every solution: csv, tensorboard or wandb, several with commas; as --loggers.",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="One JSON object per solution on standard output, in the order of the prompts, nothing else.",
    )
    parser.add_argument(
        "--trace",
        action="store_true",
        help="Write every event of every problem into the folder's trace.jsonl, for 'nabla view'.",
    )
    parser.add_argument(
        "--output",
        type=str | None,
        default=None,
        help="Folder of configuration, versions, solutions (default runs/TIME-METHOD; 'none' keeps nothing). "
        "An interrupted run goes on there: its solutions are not solved again.",
    )


def run(call: Call) -> int:
    """Solves, prints and stores. Raises NablaError; what was finished is printed first."""
    from nabla.cli.prompts import read_prompts
    from nabla.launch.config.presets import changed

    options = call.options
    if options.task is not None:
        prompts, config, found = set_task(call)
        task: Checker | None = found
    else:
        require_left_out(options, tuple(OF_TASK), "a task", "--task NAME")
        prompts = read_prompts(options.texts, options.prompts, call.config.system)
        config, task = settle(call.config, prompts)
    config = changed(config, call.changes)
    if options.logger is not None:
        (kind,) = get_args(argument_hints(RunConfig)["loggers"])
        named = [conform(kind, name.strip(), "logger") for name in options.logger.split(",")]
        config = replace(config, loggers=list(dict.fromkeys([*config.loggers, *named])))
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
    count = 1 if options.problems is None else options.problems
    problems = task.chosen(count, seed=options.problem_seed, offset=options.offset or 0)
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
    from nabla.cli.recorder import InOrder, Recorder
    from nabla.cli.storage import output_path
    from nabla.launch.resume import Earlier, identity

    resolved = config.resolved()
    path = output_path(call.options.output, resolved["method"]["name"], resume=True)
    ordered = None if emit is None else InOrder([p.id for p in prompts], emit)
    with Earlier(path, {} if path is None else identity(config, resolved), prompts) as earlier:
        if ordered is not None:
            for key, text in earlier.lines.items():
                ordered.add(key, text)
        return _run(call, config, resolved, prompts, earlier, Recorder(None, task, ordered))


def _run(
    call: Call,
    config: RunConfig,
    resolved: dict[str, Any],
    prompts: Sequence[Prompt],
    earlier: Earlier,
    recorder: Recorder,
) -> int:
    """Solves what an earlier run has not, prints and stores."""
    from rich.text import Text

    from nabla.cli.storage import open_folder
    from nabla.core.console import make_console
    from nabla.launch.readiness import require_ready
    from nabla.launch.resume import gather

    missing = [prompt for prompt in prompts if prompt.id not in earlier.lines]
    if earlier.lines:
        print(f"{len(prompts) - len(missing)} of {len(prompts)} were solved before", file=sys.stderr)
    if not missing:
        recorder.complete([], {})
        _say_finished(call, resolved, earlier)
        return 0
    quiet = recorder.emit is not None
    traces = _traces(call, earlier)
    callbacks = [recorder, *_callbacks(config, len(missing), quiet=quiet), *traces]
    config.build_loggers(earlier.path)
    require_ready(config)
    lm, reward = config.load_models()
    loop = config.loop(lm, reward, callbacks=callbacks, folder=earlier.path)
    earlier.begin()
    device = loop.fabric.device
    folder = open_folder(earlier.path, resolved, call.arguments, device, resumed=earlier.found)
    end, streamed, console = _End(), False, make_console()
    try:
        with end:
            missing, recorder.folder = _shared(loop.fabric, missing, folder)
            _place(traces, recorder.folder)
            streamed = len(missing) == 1 and any(_is_stream(callback) for callback in callbacks)
            if streamed:
                console.print(Text(missing[0].text, style="bold"))
            end.solutions = loop.run(missing, among=prompts)
    finally:
        recorder.complete(end.solutions, end.failures)
        if not quiet:
            _show(console, end.solutions, lm.vocabulary, recorder.task, streamed)
            _count(console, end.solutions, recorder.task, earlier)
            if config.callbacks is None:
                _show_cost(console, end, loop.engine.workspace.store)
        if loop.learnt is not None:
            print(loop.learnt, file=sys.stderr)
        if folder is not None:
            if end.gathered:
                gather(folder.path)
            solved = len(earlier.lines) + len(end.solutions)
            folder.finish(end.status, problems=len(prompts), solved=solved)
            print(f"stored in {folder.path}", file=sys.stderr)
    return 0


def _traces(call: Call, earlier: Earlier) -> list[Trace]:
    """What writes the run's trace, into the folder that is known later; nothing where nobody asks for one.

    Raises ConfigError where there is no folder."""
    from nabla.core.quiet import main_process
    from nabla.launch.callbacks.trace import Trace

    if not call.options.trace:
        return []
    if earlier.path is None and main_process():
        raise ConfigError(
            "A trace is kept in the run's folder, and there is none",
            got="--output none",
            fix="Name a folder, or a file: --callbacks '[{name: trace, path: FILE}]'.",
        )
    return [Trace(TRACE, append=earlier.found)]


def _place(traces: Sequence[Trace], folder: RunFolder | Share | None) -> None:
    for trace in traces:
        if folder is not None:
            trace.path = folder.path / TRACE


def _shared(
    fabric: Any, missing: list[Prompt], folder: RunFolder | None
) -> tuple[list[Prompt], RunFolder | Share | None]:
    """What is to be solved, as the first process knows it, and where this process keeps its rows."""
    from nabla.launch.group import together
    from nabla.launch.resume import Share

    if fabric.world_size == 1:
        return missing, folder
    place = None if folder is None else folder.path
    with together():
        missing, place = fabric.broadcast((missing, place))
    return missing, folder if fabric.is_global_zero or place is None else Share(place, fabric.global_rank)


class _End:
    """How a run ended: its solutions, and its errors by id, whatever was raised."""

    def __init__(self) -> None:
        self.status = "failed"
        self.solutions: list[Solution] = []
        self.failures: dict[str, NablaError] = {}
        #: The first process has what all others found.
        self.gathered = False

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        from nabla.launch.folder import ended

        self.gathered = error is None or isinstance(error, RunError)
        self.status = ended(error)
        if isinstance(error, Interrupted):
            self.solutions = error.solutions
        elif isinstance(error, RunError):
            self.solutions, self.failures = error.solutions, error.failures
            _show_failures(error)


def _show_cost(console: Any, end: _End, store: PrefixStore) -> None:
    from rich.text import Text

    from nabla.core.costs import Cost
    from nabla.launch.callbacks.cost import cost_table, kept_line

    failed = Cost.sum(error.cost for error in end.failures.values() if error.cost is not None)
    if end.solutions or failed.phases:
        total = Cost.sum(s.cost for s in end.solutions) + failed
        console.print(cost_table(total))
        if kept := kept_line(store, total):
            console.print(Text(kept))


def _say_finished(call: Call, resolved: dict[str, Any], earlier: Earlier) -> None:
    """A kill may have come behind the last solution, before the run's record was closed."""
    from nabla.launch.folder import RunFolder, status

    if earlier.path is not None:
        if status(earlier.path) != "finished":
            folder = RunFolder(earlier.path, resolved, arguments=list(call.arguments), resumed=True)
            folder.finish("finished", problems=len(earlier.lines), solved=len(earlier.lines))
        print(f"stored in {earlier.path}", file=sys.stderr)


def _show(
    console: Any, solutions: Sequence[Solution], words: Vocabulary, task: Checker | None, streamed: bool
) -> None:
    from nabla.cli.display import show_solution

    for number, solution in enumerate(solutions):
        if number:
            console.print()
        show_solution(console, solution, words, task, streamed=streamed)


def _count(console: Any, solutions: Sequence[Solution], task: Checker | None, earlier: Earlier) -> None:
    """How many of all are right, those that were solved before included."""
    from nabla.core.files import parse_json
    from nabla.launch.records import graded

    total = len(solutions) + len(earlier.lines)
    if task is not None and total > 1:
        right = sum(graded(solution, task) is True for solution in solutions)
        right += sum(parse_json(text).get("correct") is True for text in earlier.lines.values())
        console.print(f"\n{right} of {total} right")


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
