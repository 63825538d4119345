"""Budgets that end before a method has an answer, told as soon as the first problems show it.

An evaluation says in its end which budgets nobody could meet. On a real model that is hours later: what the
problems in flight have spent, and when they handed their first answer in, tells it within minutes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from nabla.core.errors import NablaError
from nabla.core.prompt import Prompt
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.engine.events import Callback
from nabla.engine.session import Session
from nabla.study.evaluation.plan import Unit

log = logging.getLogger(__name__)

#: Problems that must have had no answer within a budget; all of a unit's where it has fewer.
ENOUGH = 8
#: Seconds between two looks.
EVERY = 1.0
#: Task, method, unit and value of a budget.
Told = set[tuple[str, str, str, float]]


class Reach(Callback):
    """Looks at a unit's problems until each budget is met by one of them, or by none of the first ones.

    Args:
        unit: that is solved.
        ladder: (unit, value) of the budgets.
        told: what has been said already; it grows.
    """

    def __init__(self, unit: Unit, ladder: Sequence[tuple[str, float]], told: Told) -> None:
        self.unit, self.told = unit, told
        self._open = [
            (kind, value) for kind, value in ladder if (unit.task, unit.method, kind, value) not in told
        ]
        self._sessions: dict[str, Session] = {}
        self._ended: set[str] = set()
        self._last = float("-inf")

    def watched(
        self, solve: Callable[[Session], Coroutine[Any, Any, Solution]]
    ) -> Callable[[Session], Coroutine[Any, Any, Solution]]:
        """The method, whose sessions this looks at."""

        async def run(session: Session) -> Solution:
            if self._open:
                self._sessions[session.prompt.id] = session
            return await solve(session)

        return run

    def on_rollout(self, prompt: Prompt, trajectory: Trajectory) -> None:  # noqa: ARG002 - a hook
        self._look()

    def on_score(self, prompt: Prompt, trajectory: Trajectory) -> None:  # noqa: ARG002 - a hook
        self._look()

    def on_solution(self, solution: Solution) -> None:
        self._ended.add(solution.prompt.id)
        self._look(at_once=True)

    def on_exception(self, prompt: Prompt, error: NablaError) -> None:  # noqa: ARG002 - a hook
        self._sessions.pop(prompt.id, None)  # an error says nothing of budgets

    def _look(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if not self._open or (now - self._last < EVERY and not at_once):
            return
        self._last = now
        enough = min(ENOUGH, len(self.unit.problems))
        for budget in list(self._open):
            within = [self._within(name, session, *budget) for name, session in self._sessions.items()]
            if True in within:
                self._open.remove(budget)
            elif within.count(False) >= enough:
                self._open.remove(budget)
                self._tell(*budget, within.count(False))
        if not self._open:
            self._sessions.clear()

    def _within(self, problem: str, session: Session, kind: str, value: float) -> bool | None:
        """Whether the problem had an answer within the budget; None where it still may have one."""
        answers = session.checkpoints
        spent = answers[0].usage if answers else session.cost.total
        if float(getattr(spent, kind)) > value:
            return False
        return True if answers or problem in self._ended else None

    def _tell(self, kind: str, value: float, problems: int) -> None:
        self.told.add((self.unit.task, self.unit.method, kind, value))
        answers = [session.checkpoints[0] for session in self._sessions.values() if session.checkpoints]
        costs = [float(getattr(answer.usage, kind)) for answer in answers]
        seen = f"the cheapest first answer took {min(costs):g} {kind}" if costs else "none has one yet"
        log.warning(
            f"{self.unit.task}: within {value:g} {kind} {self.unit.method} had no answer to any of its first "
            f"{problems} problems; {seen}. A larger budget would give one (budgets, --budget)."
        )
