"""Backtracking: stop writing at the first mistake, and draw again there or before (SPEC section 14)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nabla.core.errors import require_positive
from nabla.core.registry import construct
from nabla.core.sampling import Sampling
from nabla.core.solution import Revision, Solution
from nabla.core.trajectory import Trajectory
from nabla.methods.base import Method, methods, revision, tell
from nabla.methods.pools import better
from nabla.methods.screened import Writer, Written
from nabla.models.causal_lm import require_lm
from nabla.moves.base import Move, moves
from nabla.rewards.base import require_values
from nabla.rollouts.boundaries.base import Boundary, boundaries
from nabla.screens.base import Screen, screens

if TYPE_CHECKING:
    from nabla.engine.engine import Engine
    from nabla.engine.session import Session

#: Texts stopped in a row after which one is written to its end.
STOPS = 4


@dataclass
class _State:
    """Of one problem: the text that is changed, and the answer held so far."""

    head: Written
    held: Trajectory
    tried: set[tuple[int, int]] = field(default_factory=set)
    failures: int = 0
    stopped: int = 0
    texts: int = 1
    revisions: list[Revision] = field(default_factory=list)


@methods.register("backtrack")
class Backtrack(Method):
    """A text is written step by step and read by the reward as it grows; at the first bad token it stops,
    another token is drawn there or before, and writing goes on from there.

    The first text is written to its end, so that an answer is always held. A changed text takes the place
    of the old one if its first bad token stands further right (between two without one: if its reward is
    higher). Pairs of a text are drawn without replacement; after ``patience`` failures a fresh text begins.
    The answer is the best complete text. An attempt costs one pass of each model over its new tokens.

    Args:
        screen: where a text is bad, and whether it is stopped there.
        move: what is changed: a law over (position, token).
        sampling: how tokens are drawn.
        boundary: where a step ends; the reward reads a text at each step's end.
        attempts: texts per problem, without a budget.
        patience: failures in a row of one text.
    """

    def __init__(
        self,
        screen: Screen | str | dict[str, Any] = "posterior",
        move: Move | str | dict[str, Any] = "likely-mistake",
        sampling: Sampling | dict[str, Any] | None = None,
        boundary: Boundary | str | dict[str, Any] = "newline",
        attempts: int = 16,
        patience: int = 6,
    ) -> None:
        require_positive(attempts=attempts, patience=patience)
        self.screen = screens.build(screen)
        self.move = moves.build(move)
        self.sampling = construct(Sampling, sampling)
        self.boundary = boundaries.build(boundary)
        self.attempts, self.patience = attempts, patience

    def check(self, engine: Engine) -> None:
        require_lm(engine.lm, "Backtracking draws tokens from the language model's rows")
        require_values(engine.reward, "Backtracking reads texts token by token")

    async def solve(self, session: Session) -> Solution:
        writer = Writer(self.screen, self.boundary)
        (first,) = await session.rollout(self.sampling)
        head = await writer.finish(session, first, None)
        state = _State(head, head.trajectory)
        session.report(state.held)
        while session.proceed(state.texts < self.attempts):
            # A changed text may end at once and cost nothing: a round goes on until a model has run.
            before = session.cost.total.calls
            while session.cost.total.calls == before:
                await self._attempt(session, writer, state)
            session.report(state.held)
        answer = state.held.commit(len(state.held))
        return self.solution(session, answer, revisions=state.revisions, candidates=state.texts)

    async def _attempt(self, session: Session, writer: Writer, state: _State) -> None:
        state.texts += 1
        head = state.head.trajectory
        pair = None
        if state.failures < self.patience:
            law = await self.move.law(head, session)
            drawn = session.generator("move", state.texts)
            pair = law.draw(drawn, tried=state.tried, last=state.head.bad)
        if pair is None:
            (begun,) = await session.rollout(self.sampling, until=self.boundary)
        else:
            state.tried.add(pair)
            session.events.on_proposal(session.prompt, head, *pair)
            (begun,) = await session.fork(head, [pair], until=self.boundary)
        new = await writer.finish(session, begun, state.held.reward, whole=state.stopped >= STOPS)
        ended = session.ended(new.trajectory)
        state.stopped = 0 if ended else state.stopped + 1
        session.meter.count("finished_texts" if ended else "stopped_texts")
        accepted = pair is None or _further(new, state.head)
        if pair is not None:
            tell(session, head, new.trajectory, pair[0], accepted, _reason(state.head, new))
            state.revisions.append(revision(session, head, new.trajectory, pair, accepted))
        if ended:
            state.held = better(state.held, new.trajectory)
        if accepted:
            state.head, state.tried, state.failures = new, set(), 0
        else:
            state.failures += 1


def _further(new: Written, old: Written) -> bool:
    """The first bad token stands further right; between two without one: the reward is higher."""
    if new.bad is None and old.bad is None:
        return better(old.trajectory, new.trajectory) is new.trajectory
    return new.reach > old.reach


def _reason(old: Written, new: Written) -> str:
    """Of taking one text for another, in words."""
    if new.bad is None and old.bad is None:
        rewards = (text.trajectory.reward for text in (old, new))
        return "no bad token in either; reward {:.4g} → {:.4g}".format(*rewards)
    return "first bad token: " + " → ".join("none" if t.bad is None else str(t.bad) for t in (old, new))
