"""A progress bar over problems."""

from __future__ import annotations

from collections.abc import Sequence

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from nabla.core.console import make_console
from nabla.core.costs import Usage
from nabla.core.errors import NablaError
from nabla.core.prompt import Prompt
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.engine.events import Callback, Run
from nabla.launch.callbacks.base import callbacks


@callbacks.register("progress")
class ProgressBar(Callback):
    """Progress bar over problems, with proposals accepted and rejected and the cost so far.

    Args:
        description: in front of the bar.

    Writes to standard error, and only on a terminal.
    """

    def __init__(self, description: str = "solving") -> None:
        self.description = description
        self._progress: Progress | None = None
        self._task = TaskID(0)

    def on_run_start(self, run: Run, prompts: Sequence[Prompt]) -> None:
        if self._progress is not None:  # a run that never ended
            self._progress.stop()
        self._accepted = self._rejected = self._failed = 0
        self._usage = Usage()
        console = make_console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not (console.is_terminal and run.main),
        )
        self._task = self._progress.add_task(
            self.description, total=len(prompts) / run.world_size, state=self.state
        )
        self._progress.start()

    @property
    def state(self) -> str:
        """What stands beside the bar."""
        text = (
            f"accepted {self._accepted}, rejected {self._rejected}, "
            f"{self._usage.calls:,} calls, {self._usage.flops:.2e} FLOPs"
        )
        return text + (f", failed {self._failed}" if self._failed else "")

    def on_accept(self, prompt: Prompt, old: Trajectory, new: Trajectory, position: int) -> None:
        self._accepted += 1
        self._update(0)

    def on_reject(self, prompt: Prompt, kept: Trajectory, other: Trajectory, position: int) -> None:
        self._rejected += 1
        self._update(0)

    def on_solution(self, solution: Solution) -> None:
        self._usage += solution.cost.total
        self._update(1)

    def on_exception(self, prompt: Prompt, error: NablaError) -> None:
        self._failed += 1
        self._update(1)

    def _update(self, advance: int) -> None:
        if self._progress is not None:
            self._progress.update(self._task, advance=advance, state=self.state)

    def on_run_end(self, run: Run, solutions: Sequence[Solution]) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
