"""Writing under a screen: step by step, judged as it is written, stopped where it goes wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nabla.core.trajectory import Trajectory
from nabla.rollouts.boundaries.base import Boundary
from nabla.screens.base import Screen

if TYPE_CHECKING:
    from nabla.engine.session import Session


@dataclass(frozen=True, eq=False)
class Written:
    """A text that was written to its end or stopped.

    Args:
        trajectory: judged.
        bad: position of its first bad token; None where the screen found none.
    """

    trajectory: Trajectory
    bad: int | None

    @property
    def reach(self) -> float:
        """Tokens before the first bad one; infinity where none is bad."""
        return float("inf") if self.bad is None else self.bad


@dataclass(frozen=True)
class Writer:
    """Writes the rest of a text.

    Args:
        screen: says when to stop.
        boundary: where a step ends; the screen looks at every step's end.
    """

    screen: Screen
    boundary: Boundary

    async def finish(
        self, session: Session, begun: Trajectory, held: float | None, *, whole: bool = False
    ) -> Written:
        """A text from what was written of it so far.

        Args:
            session: of the problem.
            begun: an open text, or one at its end.
            held: reward of the best complete text so far.
            whole: write it to its end whatever the screen says.
        """
        stepwise = self.screen.reads_values and not whole
        while True:
            if not stepwise and not session.ended(begun):
                (begun,) = await session.extend([begun])
            (begun,) = await session.judge([begun])
            bad = self.screen.stop(begun.values, held)
            if bad is not None:
                session.events.on_stop(session.prompt, begun, bad)
            if session.ended(begun) or bad is not None:
                return Written(begun, bad)
            (begun,) = await session.extend([begun], until=self.boundary)
