"""Metrics to Fabric's loggers."""

from __future__ import annotations

from collections.abc import Sequence

from nabla.core.errors import ConfigError
from nabla.core.prompt import Prompt
from nabla.core.solution import Solution
from nabla.engine.events import Callback, Run
from nabla.launch.callbacks.base import callbacks


@callbacks.register("logging")
class MetricsLogger(Callback):
    """One row of metrics per solution, to the run's loggers (CSV, TensorBoard, ...).

    The step is the number of solutions so far. The first of several processes logs its own solutions as they
    come, and all others' at the end. Raises ConfigError at the start of a run without loggers.
    """

    def __init__(self) -> None:
        self._run: Run | None = None
        self._step = 0
        self._logged: set[str] = set()

    def on_run_start(self, run: Run, prompts: Sequence[Prompt]) -> None:
        if not run.loggers and run.main:
            raise ConfigError(
                "The logging callback has no logger to write to",
                fix="Pass loggers to the loop (on the command line: --loggers '[csv]').",
            )
        self._run, self._step, self._logged = run, 0, set()

    def on_solution(self, solution: Solution) -> None:
        if self._run is not None:
            self._logged.add(solution.prompt.id)
            for logger in self._run.loggers:
                logger.log_metrics(metrics(solution), step=self._step)
            self._step += 1

    def on_run_end(self, run: Run, solutions: Sequence[Solution]) -> None:
        for solution in solutions:
            if self._run is not None and solution.prompt.id not in self._logged:
                self.on_solution(solution)
        for logger in run.loggers if self._run is not None else ():
            logger.finalize("success")
        self._run = None


def metrics(solution: Solution) -> dict[str, float]:
    """Numbers of one solution; the same keys for every solution (a missing reward is NaN)."""
    total = solution.cost.total
    accepted = sum(revision.accepted for revision in solution.revisions)
    return {
        "reward": float("nan") if solution.reward is None else solution.reward,
        "finished": float(solution.finished),
        "length": float(len(solution.tokens)),
        "candidates": float(solution.candidates),
        "accepted": float(accepted),
        "rejected": float(len(solution.revisions) - accepted),
        "calls": float(total.calls),
        "tokens": float(total.tokens),
        "flops": total.flops,
        "seconds": total.seconds,
        "peak_bytes": float(total.peak_bytes),
    }
