"""``nabla demo``: held-out problems, the embedded models, nothing prepared.

How many problems, of which seed and within how many FLOPs, is set in
:data:`nabla.launch.config.presets.DEMOS`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from nabla.cli.parsing import Call
from nabla.core.errors import require_count

if TYPE_CHECKING:
    from rich.console import Console

    from nabla.core.solution import Revision, Solution
    from nabla.launch.config.run import RunConfig
    from nabla.problems.checker import Checker
    from nabla.problems.problem import Problem


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

    if call.options.problems is not None:
        require_count("--problems", call.options.problems, minimum=1)
    console = make_console()
    repairs = 0
    for name in DEMOS:
        repairs += _family(console, name, call)
    if not repairs:
        chosen = call.options.problems is not None or call.options.seed is not None or bool(call.changes)
        print(
            "nabla: no accepted proposal turned a wrong answer right"
            + (" on the problems and settings you chose; 'nabla demo' alone shows some" if chosen else ""),
            file=sys.stderr,
        )
        return 1
    return 0


def _family(console: Console, name: str, call: Call) -> int:
    from dataclasses import replace

    from nabla.core.costs import Cost
    from nabla.launch.callbacks.cost import cost_table
    from nabla.launch.config.presets import DEMOS, changed, demonstrated
    from nabla.launch.records import first_response
    from nabla.methods.base import methods
    from nabla.problems.sandbox import TASKS

    demo, task = DEMOS[name], TASKS[name]
    seed = demo.seed if call.options.seed is None else call.options.seed
    count = demo.problems if call.options.problems is None else call.options.problems
    base, others = demonstrated(name)
    config = changed(replace(base, seed=seed), call.changes)
    own = methods.name_of(config.build_method())
    console.print(
        f"\n[bold]{name}[/bold]: the first {count} test problems of seed {seed}, {own} with a process reward "
        f"within {demo.flops:.0e} FLOPs a problem"
    )
    problems = task.problems("test", count, seed)
    models = config.load_models()
    solutions = _solved(config, models, problems, demo.flops, own)
    for solution in solutions:
        console.print(_line(solution, task))
    repairs = find_repairs(solutions, task)
    wrong = [s for s in solutions if not task.check(s.prompt.text, first_response(s))]
    shown = next((r for r in repairs if r.solution in wrong), None)
    if shown is not None:
        _show(console, shown, task, models[0].tokenizer)
    if wrong:
        chosen = (wrong[0] if shown is None else shown.solution).prompt.id
        _show_step(console, config, models, next(p for p in problems if p.id == chosen), task)
    before = len(solutions) - len(wrong)
    beside = {label: spec for label, spec in others.items() if label != own}
    scores = {own: _right(solutions, task)}
    for label, spec in beside.items():
        run = replace(config, method=spec)
        scores[label] = _right(_solved(run, models, problems, demo.flops, label), task)
    ranked = ", ".join(f"{label} {right}" for label, right in scores.items())
    console.print(
        f"[bold]{name}[/bold]: {before} of {count} right at first; at equal FLOPs {ranked}; "
        f"{len(repairs)} accepted proposals turned wrong into right"
    )
    console.print(cost_table(Cost.sum(s.cost for s in solutions)))
    return len(repairs)


def _solved(
    config: RunConfig, models: Any, problems: Sequence[Problem], flops: float, label: str
) -> list[Solution]:
    """Solutions with the answers that they had when the budget ended; none is no text at all."""
    from dataclasses import replace

    from nabla.core.budget import Budget
    from nabla.core.prompt import Prompt
    from nabla.core.solution import answer_within
    from nabla.launch.callbacks.progress import ProgressBar

    bounded = replace(config, engine={**config.engine, "budgets": [Budget("flops", (flops,))]})
    loop = bounded.loop(*models, callbacks=[ProgressBar(label)])
    within = []
    for solution in loop.run([Prompt.of(p.prompt, id=p.id) for p in problems]):
        found = answer_within(solution.checkpoints, "flops", flops)
        reward = None if found is None else found.reward
        within.append(replace(solution, response="" if found is None else found.response, reward=reward))
    return within


def _right(solutions: Sequence[Solution], task: Checker) -> int:
    from nabla.launch.records import correct

    return sum(correct(solution, task) for solution in solutions)


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


def _show_step(console: Console, config: RunConfig, models: Any, problem: Problem, task: Checker) -> None:
    """One step of ∇-Reasoner on the same problem's first text: what the gradient proposes, and its price."""
    from dataclasses import replace

    from nabla.core.costs import Usage
    from nabla.core.prompt import Prompt
    from nabla.core.text import token_text
    from nabla.launch.config.presets import SANDBOX_RUNS
    from nabla.problems.sandbox import TASKS

    family = next(name for name, known in TASKS.items() if known is task)
    run = replace(config, method=SANDBOX_RUNS[family].method).changed({"max_rollouts": 2})
    (solution,) = run.loop(*models).run([Prompt.of(problem.prompt, id=problem.id)])
    spent = [solution.cost.phases.get(name, Usage()).flops for name in ("gradient", "rollout", "reward")]
    price = "its gradients took {:.1e} FLOPs, writing {:.1e} and scoring {:.1e}".format(*spent)
    if not solution.revisions:
        console.print(f"  One ∇ step on its first text draws every token again that was there ({price}).")
        return
    step = solution.revisions[0]
    old, new = (token_text(models[0].tokenizer, t) for t in (step.old_token, step.new_token))
    taken = "accepted" if step.accepted else "rejected"
    right = "right" if task.check(problem.prompt, step.new_response) else "wrong"
    console.print(
        f"  One ∇ step on its first text: at position {step.position}, {old!r} becomes {new!r}, reward "
        f"{step.old_reward:.2f} → {step.new_reward:.2f}, {right}, {taken} ({price}).",
        markup=False,
    )


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(text)
