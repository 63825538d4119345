"""Comparison tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from nabla.evaluation.compare import Outcome
from nabla.evaluation.statistics import Proportion

COLUMNS = (
    "method",
    "accuracy",
    "95 % interval",
    "reward",
    "calls",
    "tokens",
    "FLOPs",
    "seconds",
    "accepted",
    "wrong→right",
    "right→wrong",
)


def comparison_table(outcomes: Sequence[Outcome]) -> Table:
    """One row per method; calls, tokens, FLOPs and seconds are means per problem."""
    first = outcomes[0]
    table = Table(
        title=f"{first.task.name}: {first.problems} held-out problems",
        caption="Cost per problem; seconds are shares of batched time. "
        "The last two columns count accepted proposals by the exact checker.",
        title_justify="left",
        title_style="bold",
        caption_justify="left",
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
