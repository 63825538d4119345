"""Several methods on the same problems with the same models: an evaluation of one seed without budgets,
whose rows are summed up as soon as a method is through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from nabla.core.costs import Cost
from nabla.core.errors import NablaError
from nabla.core.prompt import Prompt
from nabla.core.solution import Interrupted, RunError, Solution
from nabla.engine.events import Callback
from nabla.launch.config.presets import changed
from nabla.launch.config.run import RunConfig
from nabla.problems.checker import Checker
from nabla.problems.problem import Problem
from nabla.study.evaluation.lines import responses, rows
from nabla.study.evaluation.statistics import Proportion

if TYPE_CHECKING:
    from nabla.models.causal_lm import CausalLM
    from nabla.rewards.base import Reward

#: What the issue asks for: the two baselines and the method, eight rollouts each.
DEFAULT_METHODS: tuple[str | dict[str, Any], ...] = (
    "greedy",
    {"name": "best-of-n", "n": 8},
    {"name": "nabla-reasoner", "max_rollouts": 8},
)
COLUMNS = (
    *("method", "accuracy", "95 %", "reward", "calls", "tokens", "FLOPs", "seconds"),
    *("accepted", "fixed", "broken"),
)


def variants(config: RunConfig, methods: Sequence[str | Mapping[str, Any]]) -> dict[str, RunConfig]:
    """Label → configuration: each method laid over the configuration's own, so that what both have
    (sampling, mostly) is the same. Labels are names with the arguments that were given."""
    found: dict[str, RunConfig] = {}
    for spec in methods:
        changes: dict[str, Any] = {"name": spec} if isinstance(spec, str) else dict(spec)
        label = " ".join([str(changes.get("name", "method")), *_given(changes)])
        stem, number = label, 1
        while label in found:
            number += 1
            label = f"{stem} ({number})"
        found[label] = changed(config, changes)
    return found


def _given(changes: Mapping[str, Any], prefix: str = "") -> list[str]:
    """``argument=value`` for every simple value, dotted where it is nested."""
    found: list[str] = []
    for key, value in changes.items():
        if isinstance(value, Mapping):
            if "name" in value:
                found.append(f"{prefix}{key}={value['name']}")
            found += _given(value, f"{prefix}{key}.")
        elif key != "name" and isinstance(value, int | float | str):
            found.append(f"{prefix}{key}={value}")
    return found


def evaluate(
    config: RunConfig,
    problems: Sequence[Problem],
    lm: CausalLM,
    reward: Reward | None,
    *,
    callbacks: Sequence[Callback] = (),
    folder: Path | None = None,
) -> dict[str, Solution | NablaError]:
    """What one method makes of each problem, by id. Raises Interrupted, and ConfigError."""
    prompts = [Prompt.of(p.prompt, id=p.id, system=config.system) for p in problems]
    loop = config.loop(lm, reward, callbacks=callbacks, folder=folder)
    failures: Mapping[str, NablaError] = {}
    try:
        solutions = loop.run(prompts)
    except Interrupted:
        raise
    except RunError as error:
        solutions, failures = error.solutions, error.failures
    return {**{solution.prompt.id: solution for solution in solutions}, **failures}


def summarise(label: str, task: Checker, outcomes: Mapping[str, Solution | NablaError]) -> dict[str, Any]:
    """JSON-ready: accuracy (a failure is a wrong answer), reward, what became of proposals, cost (of failures
    too, as far as it is known: ``costed`` problems).

    Accepted proposals are counted by whether the response was right before and after: the reward model has
    no say in this.
    """
    found, solutions = [], []
    costs = [outcome.cost for outcome in outcomes.values() if outcome.cost is not None]
    for name, outcome in outcomes.items():
        grades = {}
        if isinstance(outcome, Solution):
            solutions.append(outcome)
            grades = {text: task.check(outcome.prompt.text, text) for text in responses(outcome)}
        found += rows({"problem": name}, outcome, grades, ())
    right = Proportion(sum(row["correct"] for row in found), len(found))
    rewards = [row["reward"] for row in found if row["reward"] is not None]
    proposals = [proposal for row in found for proposal in row["revisions"]]
    effects = Counter((before, after) for *_, accepted, before, after in proposals if accepted)
    words = {True: "right", False: "wrong"}
    return {
        "task": task.name,
        "method": label,
        "problems": len(found),
        "failed": len(found) - len(solutions),
        "right": right.successes,
        "accuracy": right.value,
        "interval": list(right.interval()),
        "mean_reward": sum(rewards) / len(rewards) if rewards else None,
        "proposals": len(proposals),
        "accepted": effects.total(),
        **{
            f"{words[before]}_to_{words[after]}": effects[before, after]
            for before, after in ((False, True), (True, False), (False, False), (True, True))
        },
        "cost": Cost.sum(costs).to_dict(),
        "costed": len(costs),
    }


def comparison_table(summaries: Sequence[Mapping[str, Any]]) -> Table:
    """One row per method, with Wilson intervals."""
    first = summaries[0]
    table = Table(
        title=f"{first['task']}: {first['problems']} held-out problems",
        caption="Calls, tokens, FLOPs, seconds: means per problem (seconds are shares of batched time).\n"
        "fixed, broken: accepted proposals from wrong to right and from right to wrong, by the checker.",
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "method" else "right", no_wrap=name != "method")
    for summary in summaries:
        table.add_row(*row(summary))
    return table


def row(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """The cells of one method."""
    (low, high), reward, failed = summary["interval"], summary["mean_reward"], summary["failed"]
    total, n = summary["cost"]["total"], max(summary["costed"], 1)
    proposals = (
        f"{summary['accepted']}/{summary['proposals']}",
        str(summary["wrong_to_right"]),
        str(summary["right_to_wrong"]),
    )
    return (
        summary["method"] + (f" ({failed} failed)" if failed else ""),
        f"{100 * summary['accuracy']:.1f} %",
        f"{100 * low:.1f}-{100 * high:.1f}",
        "-" if reward is None else f"{reward:.2f}",
        f"{total['calls'] / n:,.1f}",
        f"{total['tokens'] / n:,.0f}",
        f"{total['flops'] / n:.2e}",
        f"{total['seconds'] / n:.3f}",
        *(proposals if summary["proposals"] else ("-", "-", "-")),
    )
