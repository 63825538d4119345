"""Comparison tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from nabla.study.evaluation.compare import Outcome
from nabla.study.evaluation.statistics import Proportion

COLUMNS = (
    "method",
    "accuracy",
    "95 %",
    "reward",
    "calls",
    "tokens",
    "FLOPs",
    "seconds",
    "accepted",
    "fixed",
    "broken",
)


def comparison_table(outcomes: Sequence[Outcome]) -> Table:
    """One row per method, with Wilson intervals."""
    first = outcomes[0]
    table = Table(
        title=f"{first.task.name}: {first.problems} held-out problems",
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
    for outcome in outcomes:
        table.add_row(*row(outcome))
    return table


def row(outcome: Outcome) -> tuple[str, ...]:
    """The cells of one method."""
    low, high = outcome.accuracy.interval()
    usage, n = outcome.cost.total, max(len(outcome.solutions), 1)
    effects, acceptance = outcome.effects, outcome.acceptance
    reward = outcome.mean_reward
    failed = f" ({len(outcome.failures)} failed)" if outcome.failures else ""
    return (
        outcome.label + failed,
        percent(outcome.accuracy),
        f"{100 * low:.1f}-{100 * high:.1f}",
        "-" if reward is None else f"{reward:.2f}",
        f"{usage.calls / n:,.1f}",
        f"{usage.tokens / n:,.0f}",
        f"{usage.flops / n:.2e}",
        f"{usage.seconds / n:.3f}",
        "-" if acceptance is None else f"{acceptance.successes}/{acceptance.total}",
        "-" if acceptance is None else str(effects[False, True]),
        "-" if acceptance is None else str(effects[True, False]),
    )


def percent(proportion: Proportion) -> str:
    """``62.5 %``."""
    return f"{100 * proportion.value:.1f} %"
