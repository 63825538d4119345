"""How far one problem has come: what its budgets still allow, and the answers it has handed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from nabla.core.budget import Budget
from nabla.core.costs import CostMeter, Usage
from nabla.core.solution import Checkpoint
from nabla.core.trajectory import Trajectory


class Progress:
    """Budgets and answers of one problem.

    Args:
        budgets: of every problem; none means that methods follow their own rules.
        meter: the problem's costs.
    """

    def __init__(self, budgets: Sequence[Budget], meter: CostMeter) -> None:
        self.budgets, self.meter = budgets, meter
        self.checkpoints: list[Checkpoint] = []
        #: Whether the cost of a text is set aside for what comes at the end (:attr:`used`).
        self.reserving = False
        #: Model calls when the last round was allowed.
        self._calls_before: int | None = None

    def proceed(self, wanted: bool) -> bool:
        """Whether another round should begin; see ``Session.proceed``."""
        if not self.budgeted:
            return wanted
        calls = self.meter.snapshot().total.calls
        idle = calls == self._calls_before
        self._calls_before = calls
        return not idle and not self.reached

    @property
    def budgeted(self) -> bool:
        """Whether there are budgets."""
        return bool(self.budgets)

    @property
    def reached(self) -> bool:
        """There are budgets, and the largest value of every one is reached: no other round begins."""
        return self.budgeted and all(budget.spent(self.used) for budget in self.budgets)

    @property
    def used(self) -> Usage:
        """What counts as spent: the cost so far and, while ``reserving``, that of the first answer once more:
        of a text that is written and judged from its beginning."""
        usage = self.meter.snapshot().total
        return usage + self.checkpoints[0].usage if self.reserving and self.checkpoints else usage

    @property
    def spent(self) -> bool:
        """A round may stop where it is: an answer is held, and every budget is exceeded, so that no later one
        counts at any of their values. What is read at a budget is what a run to the round's end gives."""
        if not self.budgeted or not self.checkpoints:
            return False
        return all(budget.exceeded(self.used) for budget in self.budgets)

    @property
    def share(self) -> float:
        """Part of its budgets that is spent, of the one that is spent least; 0 without budgets, as nobody
        knows how far the method goes."""
        usage = self.meter.snapshot().total
        parts = [float(getattr(usage, budget.unit)) / budget.limit for budget in self.budgets]
        return min(1.0, *parts) if parts else 0.0

    def report(self, trajectory: Trajectory, decode: Callable[[Tensor], str]) -> None:
        """Keeps an answer with the cost until now, unless it is the last one again.

        Args:
            trajectory: the answer.
            decode: its tokens → its text.
        """
        last = self.checkpoints[-1] if self.checkpoints else None
        tokens = tuple(trajectory.tokens.tolist())
        if last is not None and (last.tokens, last.reward) == (tokens, trajectory.reward):
            return
        usage = self.meter.snapshot().total
        response = decode(trajectory.tokens)
        self.checkpoints.append(Checkpoint(usage, tokens, response, trajectory.reward, trajectory.finished))
