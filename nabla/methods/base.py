"""Methods: how a problem is answered, as sequential code that awaits the engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nabla.core.registry import Registry
from nabla.core.solution import Revision, Solution
from nabla.core.trajectory import Trajectory

if TYPE_CHECKING:
    from nabla.engine.engine import Engine
    from nabla.engine.session import Session


class Method(ABC):
    """Answers one problem; settings only, so that one instance serves all problems at once.

    A method never calls a model: it awaits the session, and the engine batches what all live problems
    ask for. One that could go on (more samples, another sweep) asks ``session.proceed`` before each round
    and calls ``session.report`` with its answer after it, so that it can be run to a budget. Where a round is
    several proposals it asks ``session.spent`` before each of them, and ends the round with what it holds.
    """

    @abstractmethod
    async def solve(self, session: Session) -> Solution:
        """The solution of ``session.prompt``. Raises NablaError."""

    @property
    def keeps_best(self) -> bool:
        """Whether an answer gives way to one of a higher reward only. False where a vote, a chain or the
        acceptance rule decides; the contract kit then does not ask for rewards that ascend."""
        return True

    def check(self, engine: Engine) -> None:
        """Called once before a run; override to raise ConfigError if the engine lacks something."""
        return

    def solution(
        self,
        session: Session,
        trajectory: Trajectory,
        *,
        revisions: Sequence[Revision] = (),
        revised: Sequence[int] = (),
        candidates: int = 1,
    ) -> Solution:
        """The solution that a final trajectory stands for."""
        session.report(trajectory)
        return Solution(
            prompt=session.prompt,
            response=session.decode(trajectory.tokens),
            tokens=tuple(trajectory.tokens.tolist()),
            reward=trajectory.reward,
            finished=trajectory.finished,
            method=methods.name_of(self),
            cost=session.cost,
            revisions=tuple(revisions),
            candidates=candidates,
            revised_positions=tuple(revised),
            checkpoints=tuple(session.checkpoints),
        )


def tell(session: Session, old: Trajectory, new: Trajectory, position: int, accepted: bool) -> None:
    """Counts a proposal that was taken or turned down, and lets listeners hear of it."""
    session.meter.count("accepted_proposals" if accepted else "rejected_proposals")
    hear = session.events.on_accept if accepted else session.events.on_reject
    hear(session.prompt, old, new, position)


def revision(
    session: Session, old: Trajectory, new: Trajectory, edit: tuple[int, int], accepted: bool
) -> Revision:
    """The record of a proposal: the token of a position for another one, and what came of it."""
    position, token = edit
    return Revision(
        position,
        int(old.tokens[position]),
        token,
        old.reward,
        new.reward,
        accepted,
        session.decode(old.tokens),
        session.decode(new.tokens),
    )


methods: Registry[Method] = Registry("methods", lambda: Method, __package__)
