"""What a run cost, by phase."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from nabla.core.console import make_console
from nabla.core.costs import PHASES, Cost, Usage
from nabla.core.errors import NablaError
from nabla.core.prompt import Prompt
from nabla.core.solution import Solution
from nabla.engine.events import Callback, Run
from nabla.launch.callbacks.base import callbacks
from nabla.models.prefixes import PrefixStore


@callbacks.register("cost")
class CostTable(Callback):
    """Cost table by phase at the end of a run: calls, tokens, FLOPs, seconds, memory."""

    def __init__(self) -> None:
        self.cost = Cost()
        self._heard: set[str] = set()

    def on_run_start(self, run: Run, prompts: Sequence[Prompt]) -> None:
        self.cost = Cost()
        self._heard = set()

    def on_solution(self, solution: Solution) -> None:
        self.cost += solution.cost
        self._heard.add(solution.prompt.id)

    def on_exception(self, prompt: Prompt, error: NablaError) -> None:
        self.cost += error.cost or Cost()

    def on_run_end(self, run: Run, solutions: Sequence[Solution]) -> None:
        for solution in solutions:  # of other processes
            if solution.prompt.id not in self._heard:
                self.on_solution(solution)
        if self.cost.phases:
            make_console().print(cost_table(self.cost))


def cost_table(cost: Cost) -> Table:
    """One row per phase and the total: calls are decoding steps, forward and backward passes; tokens and
    FLOPs are real ones, padding is not counted; MiB is the peak of extra memory (CUDA only). Below stand
    what was run again because a fault had cost its result, and the calls that wait for one another within
    their problem."""
    total = cost.total
    table = Table(
        title="Cost",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        caption=f"critical path: {total.critical_steps:,} of {total.calls:,} calls wait for one another",
        caption_justify="left",
    )
    table.add_column("phase")
    for name in ("calls", "decoding", "forward", "backward", "tokens", "FLOPs", "seconds", "MiB"):
        table.add_column(name, justify="right", no_wrap=True)
    order = [*PHASES, *(phase for phase in cost.phases if phase not in PHASES)]
    for phase in order:
        if phase in cost.phases:
            table.add_row(phase, *_cells(cost.phases[phase]))
    table.add_section()
    table.add_row("total", *_cells(total), style="bold")
    if cost.repeated.calls:
        table.add_row("repeated", *_cells(cost.repeated), style="dim")
    return table


def _cells(usage: Usage) -> tuple[str, ...]:
    memory = f"{usage.peak_bytes / 2**20:,.0f}" if usage.peak_bytes else "-"
    return (*usage.cells(), memory)


def kept_line(store: PrefixStore, cost: Cost) -> str | None:
    """What a store of prefixes took, a live problem's share of it, and what there was no room for; None where
    nothing was to be kept."""
    lost = cost.counts.get("prefix_tokens_lost", 0)
    if not store.peak and not lost:
        return None
    limit = "" if store.budget.limit is None else f" of {size(store.budget.limit)}"
    each = store.peak / max(store.peak_problems, 1)
    line = f"keys and values kept: {size(store.peak)}{limit}, {size(each)} a live problem"
    return f"{line}; {lost:,} tokens gave way and were run again (engine.prefix_bytes)" if lost else line


def size(count: float) -> str:
    """Bytes for people: 12.3 MB."""
    for unit, power in (("GB", 9), ("MB", 6)):
        if count >= 10**power:
            return f"{count / 10**power:.1f} {unit}"
    return f"{count / 1000:.1f} kB"
