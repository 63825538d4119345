"""How far a run over problems has come."""

from __future__ import annotations

import time
from collections.abc import Sequence

from nabla.core.costs import Usage
from nabla.core.display import Display, Line
from nabla.core.errors import NablaError
from nabla.core.prompt import Prompt
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.engine.events import Callback, Run
from nabla.launch.callbacks.base import callbacks


@callbacks.register("progress")
class ProgressBar(Callback):
    """Problems done and per minute, time left, mean reward, proposals accepted and rejected, cost so far.

    Args:
        description: what is done.

    Writes to standard error: a line with a bar on a terminal, a line of text now and then elsewhere.
    """

    def __init__(self, description: str = "solving") -> None:
        self.description = description
        self._display: Display | None = None
        self._total = 0

    def on_run_start(self, run: Run, prompts: Sequence[Prompt]) -> None:
        if self._display is not None:  # a run that never ended
            self._display.stop()
        self._accepted = self._rejected = self._failed = self._solved = 0
        self._usage = Usage()
        self._rewards: list[float] = []
        self._total = -(-len(prompts) // run.world_size)
        self._begin = time.perf_counter()
        self._display = Display(lambda: [self.line], on=run.main)
        self._display.start()

    @property
    def state(self) -> str:
        """What stands beside the number of problems."""
        return ", ".join(self.line.notes)

    @property
    def line(self) -> Line:
        """How far the run has come."""
        done, seconds = self._solved + self._failed, time.perf_counter() - self._begin
        left = seconds * (self._total - done) / done if done else None
        notes = [f"failed {self._failed}"] if self._failed else []
        if self._rewards:
            notes.append(f"reward {sum(self._rewards) / len(self._rewards):.3g}")
        notes.append(f"accepted {self._accepted}, rejected {self._rejected}")
        notes.append(f"{self._usage.calls:,} calls, {self._usage.flops:.2e} FLOPs")
        return Line(self.description, done, self._total, done, seconds, left, notes=tuple(notes))

    def on_accept(self, prompt: Prompt, old: Trajectory, new: Trajectory, position: int) -> None:
        self._accepted += 1

    def on_reject(self, prompt: Prompt, kept: Trajectory, other: Trajectory, position: int) -> None:
        self._rejected += 1

    def on_solution(self, solution: Solution) -> None:
        self._usage += solution.cost.total
        self._solved += 1
        if solution.reward is not None:
            self._rewards.append(solution.reward)

    def on_exception(self, prompt: Prompt, error: NablaError) -> None:
        self._failed += 1

    def on_run_end(self, run: Run, solutions: Sequence[Solution]) -> None:
        if self._display is not None:
            self._display.stop()
            self._display = None
