"""A sign of life of the unit that is being solved, for whoever watches: how far the problems in flight are.

Problems that are solved together end together, so that for a long time none is done. What each has spent of
its budgets, and the reward of its answer so far, are known all the while.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from nabla.core.errors import NablaError
from nabla.core.files import replace_whole
from nabla.core.prompt import Prompt
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.engine.events import Callback
from nabla.engine.session import Session
from nabla.study.evaluation.plan import Unit

#: Seconds between two signs.
EVERY = 1.0


class Pulse(Callback):
    """Writes a small file anew, at most once a second, whenever the unit's problems get on.

    Args:
        path: of the file.
        unit: that is being solved.
        kept: problems of it that an earlier run has solved.
    """

    def __init__(self, path: Path, unit: Unit, kept: int) -> None:
        self.path, self.unit, self.kept = path, unit, kept
        self._live: dict[str, Session] = {}
        self._done = 0
        self._begun = time.time()
        self._last = float("-inf")
        self.beat()

    def watched(
        self, solve: Callable[[Session], Coroutine[Any, Any, Solution]]
    ) -> Callable[[Session], Coroutine[Any, Any, Solution]]:
        """The method, whose sessions this looks at."""

        async def run(session: Session) -> Solution:
            self._live[session.prompt.id] = session
            return await solve(session)

        return run

    def on_rollout(self, prompt: Prompt, trajectory: Trajectory) -> None:
        self.beat()

    def on_accept(self, prompt: Prompt, old: Trajectory, new: Trajectory, position: int) -> None:
        self.beat()

    def on_reject(self, prompt: Prompt, kept: Trajectory, other: Trajectory, position: int) -> None:
        self.beat()

    def on_solution(self, solution: Solution) -> None:
        self._ended(solution.prompt.id)

    def on_exception(self, prompt: Prompt, error: NablaError) -> None:
        self._ended(prompt.id)

    def _ended(self, problem: str) -> None:
        self._live.pop(problem, None)
        self._done += 1
        self.beat(at_once=True)

    def beat(self, *, at_once: bool = False) -> None:
        """A sign, unless the last one was just now. A disk that takes none stops nothing."""
        now = time.monotonic()
        if now - self._last < EVERY and not at_once:
            return
        self._last = now
        with suppress(OSError):
            replace_whole(self.path, json.dumps(self.state))

    @property
    def state(self) -> dict[str, Any]:
        """How far the unit is: problems in flight count by what they have spent of their budgets."""
        answers = [s.checkpoints[-1].reward for s in self._live.values() if s.checkpoints]
        rewards = [reward for reward in answers if reward is not None]
        return {
            "unit": list(self.unit.key),
            "problems": len(self.unit.problems),
            "kept": self.kept,
            "done": self._done,
            "flying": sum(session.progress.share for session in self._live.values()),
            "reward": sum(rewards) / len(rewards) if rewards else None,
            "begun": self._begun,
        }
