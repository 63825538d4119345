"""Methods: how a problem is answered, as sequential code that awaits the engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nabla.core.prompt import Prompt
from nabla.core.registry import Registry
from nabla.core.solution import Details, Revision, Solution
from nabla.core.trajectory import Trajectory
from nabla.engine.reports import Decision

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

    def prepared(self, engine: Engine, prompts: Sequence[Prompt]) -> Method:
        """The method as it solves these prompts: called once before a run. Override it to learn something of
        the models first; the method itself stays as it is.

        What it learns must follow from the models, the prompts and the engine's seed, and is then the same in
        every process and for every order of the problems.

        Args:
            engine: with the run's models, without its budgets and listeners.
            prompts: all of the run, in order.
        """
        return self

    @property
    def learnt(self) -> str | None:
        """What :meth:`prepared` has found, in a line for people; None where it looks for nothing."""
        return None

    @property
    def prepared_flops(self) -> float:
        """What :meth:`prepared` has cost, once, in no problem's budget."""
        return 0.0

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
            details=_details(trajectory),
        )


def _details(trajectory: Trajectory) -> Details:
    states = trajectory.states
    return Details(
        log_probs=tuple(trajectory.log_probs.tolist()),
        entropy=() if states is None else tuple(states.entropy.tolist()),
        values=tuple(trajectory.values),
    )


def tell(
    session: Session, old: Trajectory, new: Trajectory, position: int, accepted: bool, why: str = ""
) -> None:
    """Counts a proposal that was taken or turned down, and lets listeners hear of it.

    Args:
        session: of the problem.
        old: the current response.
        new: the proposal.
        position: of the first token that was changed.
        accepted: whether the proposal takes the place of the response.
        why: what decided it, in words.
    """
    session.meter.count("accepted_proposals" if accepted else "rejected_proposals")
    session.events.on_decision(session.prompt, Decision(old, new, position, accepted, why))
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
