"""``nabla demo``: held-out problems, the embedded models, nothing prepared.

How many problems, and of which seed, is set in :data:`nabla.launch.config.presets.DEMOS`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from nabla.cli.parsing import Call

if TYPE_CHECKING:
    from rich.console import Console

    from nabla.core.solution import Revision, Solution
    from nabla.problems.checker import Checker


@dataclass(frozen=True)
class Repair:
    """An accepted proposal that turned a wrong response right, by the exact checker."""

    solution: Solution
    revision: Revision

#: Of a run's options, those that this command takes.
RUN_OPTIONS = ("method",)


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--problems", type=int | None, default=None, help="Problems per family.")
    parser.add_argument("--seed", type=int | None, default=None, help="Chooses the problems.")


def run(call: Call) -> int:
    """Prints both families; exit status 1 if no revision turned a wrong answer right."""
    from nabla.core.console import make_console
    from nabla.launch.config.presets import DEMOS

    console = make_console()
    repairs = 0
    for name in DEMOS:
        repairs += _family(console, name, call)
    if not repairs:
        print("nabla: no revision turned a wrong answer right; try --problems or --seed", file=sys.stderr)
        return 1
    return 0


def _family(console: Console, name: str, call: Call) -> int:
    from dataclasses import replace

    from nabla.core.costs import Cost
    from nabla.core.prompt import Prompt
    from nabla.launch.callbacks.cost import cost_table
    from nabla.launch.callbacks.progress import ProgressBar
    from nabla.launch.config.presets import DEMOS, SANDBOX_RUNS
    from nabla.launch.records import correct, first_response
    from nabla.problems.sandbox import TASKS

    demo, task = DEMOS[name], TASKS[name]
    seed = demo.seed if call.options.seed is None else call.options.seed
    count = demo.problems if call.options.problems is None else call.options.problems
    config = replace(SANDBOX_RUNS[name], seed=seed).changed({"max_rollouts": demo.max_rollouts})
    config = config.changed(call.changes)
    console.print(f"\n[bold]{name}[/bold]: the first {count} test problems of seed {seed}")
    lm, reward = config.load_models()
    loop = config.loop(lm, reward, callbacks=[ProgressBar(name)])
    problems = task.problems("test", count, seed)
    solutions = loop.run([Prompt.of(p.prompt, id=p.id) for p in problems])
    for solution in solutions:
        console.print(_line(solution, task))
    repairs = find_repairs(solutions, task)
    if repairs:
        _show(console, repairs[0], task, lm.tokenizer)
    before = sum(task.check(s.prompt.text, first_response(s)) for s in solutions)
    after = sum(correct(s, task) for s in solutions)
    console.print(
        f"[bold]{name}[/bold]: {before} of {count} right at first, {after} after revision; "
        f"{len(repairs)} accepted proposals turned wrong into right"
    )
    console.print(cost_table(Cost.sum(s.cost for s in solutions)))
    return len(repairs)


def find_repairs(solutions: Sequence[Solution], task: Checker) -> list[Repair]:
    """Accepted proposals that turned wrong into right, of solutions that are right in the end."""
    from nabla.launch.records import accepted_revisions, correct, effect

    return [
        Repair(solution, revision)
        for solution, revision in accepted_revisions(solutions)
        if effect(revision, solution, task) == (False, True) and correct(solution, task)
    ]


def _line(solution: Solution, task: Checker) -> Any:
    from rich.text import Text

    from nabla.launch.records import correct, first_response

    words = {True: ("right", "green"), False: ("wrong", "red")}
    first = words[task.check(solution.prompt.text, first_response(solution))]
    last = words[correct(solution, task)]
    accepted = sum(r.accepted for r in solution.revisions)
    return Text.assemble(
        f"  {solution.prompt.text}  ",
        first,
        " → ",
        last,
        f"  ({accepted} of {len(solution.revisions)} proposals accepted)",
    )


def _show(console: Console, repair: Repair, task: Checker, tokenizer: Any) -> None:
    """A repair before and after."""
    from rich.columns import Columns
    from rich.panel import Panel

    from nabla.core.text import token_text

    prompt, revision = repair.solution.prompt.text, repair.revision
    old, new = (token_text(tokenizer, t) for t in (revision.old_token, revision.new_token))
    console.print(
        f"  One of them: at position {revision.position}, {old!r} became {new!r}; the rest was written anew."
    )
    views = [
        (f"before, reward {revision.old_reward:.2f}", revision.old_response),
        (f"after, reward {revision.new_reward:.2f}", revision.new_response),
    ]
    panels = [Panel(_plain(task.render(prompt, text)), title=title, expand=False) for title, text in views]
    console.print(Columns(panels))


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(text)
