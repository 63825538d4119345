"""Writing under a screen: step by step, judged as it is written, stopped where it goes wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from nabla.core.trajectory import Trajectory
from nabla.rewards.base import require_reward
from nabla.rollouts.boundaries.base import Boundary
from nabla.rollouts.boundaries.length import Length
from nabla.screens.base import Screen

if TYPE_CHECKING:
    from nabla.engine.session import Session


@dataclass(frozen=True, eq=False)
class Written:
    """A text that was written to its end or stopped.

    Args:
        trajectory: judged.
        bad: position of its first bad token; None where the screen found none.
        reach: how far it is good, as the screen says.
    """

    trajectory: Trajectory
    bad: int | None
    reach: float


@dataclass(frozen=True)
class Writer:
    """Writes the rest of texts.

    Args:
        screen: says when to stop.
        boundary: where a step ends.
        every: the screen looks at every step's end, or at every token.
    """

    screen: Screen
    boundary: Boundary
    every: Literal["step", "token"] = "step"

    @property
    def until(self) -> Boundary:
        """Where writing halts for the screen to look."""
        return self.boundary if self.every == "step" else Length(1)

    async def finish(
        self, session: Session, begun: Sequence[Trajectory], held: float | None, *, whole: bool = False
    ) -> list[Written]:
        """Texts from what was written of them so far, step by step in one batch; a text that is stopped or
        ends leaves it, and the others go on.

        Args:
            session: of the problem.
            begun: open texts, or ones at their end.
            held: reward of the best complete text so far.
            whole: write them to their ends whatever the screen says.
        """
        until = self.until if self.screen.reads_values and not whole else None
        reward = require_reward(session.workspace.reward, "A screen reads the values of a reward")
        found: dict[int, Written] = {}
        open_texts = dict(enumerate(begun))
        if until is None:
            open_texts = dict(zip(open_texts, await session.extend(list(open_texts.values())), strict=True))
        while open_texts:
            judged = await session.judge(list(open_texts.values()))
            for i, text in zip(tuple(open_texts), judged, strict=True):
                log_probs = reward.token_log_probs(text.values, text.log_probs.tolist())
                bad = self.screen.stop(text.values, held, log_probs)
                open_texts[i] = text
                if session.ended(text) or (bad is not None and until is not None):
                    if bad is not None:
                        session.events.on_stop(session.prompt, text, bad)
                    found[i] = Written(text, bad, self.screen.reach(text.values, log_probs, bad))
                    del open_texts[i]
            if open_texts:
                grown = await session.extend(list(open_texts.values()), until=until)
                open_texts = dict(zip(open_texts, grown, strict=True))
        return [found[i] for i in range(len(begun))]
