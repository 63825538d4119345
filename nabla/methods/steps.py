"""What searches over steps have in common: writing steps, scoring each text once, going on to a budget."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nabla.core.sampling import Sampling
from nabla.core.trajectory import Trajectory
from nabla.rollouts.boundaries.base import Boundary

if TYPE_CHECKING:
    from nabla.engine.session import Session


def value(trajectory: Trajectory) -> float:
    """The reward of a scored response."""
    assert trajectory.reward is not None
    return trajectory.reward


def best(trajectories: Iterable[Trajectory]) -> Trajectory:
    """The highest reward, the first among equals."""
    return max(trajectories, key=value)


def text(trajectory: Trajectory) -> tuple[int, ...]:
    """Token ids, as a key."""
    return tuple(trajectory.tokens.tolist())


def distinct(trajectories: Iterable[Trajectory]) -> list[Trajectory]:
    """The first of each text."""
    found: dict[tuple[int, ...], Trajectory] = {}
    for trajectory in trajectories:
        found.setdefault(text(trajectory), trajectory)
    return list(found.values())


def prune(session: Session, judged: Iterable[Trajectory], kept: Iterable[Trajectory]) -> None:
    """Lets listeners hear from which of the judged texts a search goes on; of equal ones, once."""
    if not session.events.hears("on_prune"):
        return
    going = distinct(kept)
    known = {text(t) for t in going}
    left = [t for t in distinct(judged) if text(t) not in known]
    session.events.on_prune(session.prompt, going, left)


def width(session: Session, begun: int, full: int) -> int:
    """Size of the next search of a problem.

    Without a budget the configured one. With one 2, 4, ... up to it: a search has its first answer when it is
    done, and a small budget would have none.

    Args:
        session: tells whether there is a budget.
        begun: searches before this one.
        full: the configured size.
    """
    return min(full, 2 << begun) if session.budgeted else full


class Scores:
    """Scores responses, finished or not, each text once per problem; remembers the best complete one.

    Args:
        session: of the problem.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        #: The complete response with the highest reward, the first among equals.
        self.best: Trajectory | None = None
        #: Complete responses scored so far, repetitions included.
        self.complete = 0
        self._latest: list[Trajectory] = []
        self._rewards: dict[tuple[int, ...], float] = {}

    async def score(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        """The trajectories with their rewards; new texts in one batch, the others from memory."""
        new = [t for t in distinct(trajectories) if text(t) not in self._rewards]
        for trajectory in await self.session.score(new):
            self._rewards[text(trajectory)] = value(trajectory)
        scored = [t.with_reward(self._rewards[text(t)]) for t in trajectories]
        for trajectory in scored:
            if self.session.ended(trajectory):
                self.complete += 1
                if self.best is None or value(trajectory) > value(self.best):
                    self.best = trajectory
        self._latest = scored
        return scored

    async def answer(self) -> Trajectory:
        """The best complete response. If the budget left none, the best open one written to its end."""
        if self.best is None:
            await self.score(await self.session.extend([best(self._latest)]))
        assert self.best is not None
        return self.best


@dataclass(frozen=True)
class Steps:
    """How steps are written.

    Args:
        sampling: how tokens are drawn.
        boundary: where a step ends.
        max_steps: the last one runs to the end of the response.
    """

    sampling: Sampling
    boundary: Boundary
    max_steps: int

    async def first(self, session: Session, n: int) -> list[Trajectory]:
        """``n`` first steps."""
        return await session.rollout(self.sampling, n=n, until=self._until(0))

    async def next(self, session: Session, prefixes: Sequence[Trajectory], depth: int) -> list[Trajectory]:
        """One step behind each prefix of ``depth`` steps."""
        return await session.extend(prefixes, until=self._until(depth))

    def _until(self, depth: int) -> Boundary | None:
        return self.boundary if depth + 1 < self.max_steps else None


class Search(ABC):
    """One search of one problem, which goes on step by step."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Nothing is left to expand."""

    @abstractmethod
    async def advance(self) -> None:
        """The next piece of work; at least one step is written. Not called once done."""


async def search(
    session: Session,
    scores: Scores,
    start: Callable[[int], Search],
    *,
    limit: int | None = None,
    choose: Callable[[], Trajectory | None] | None = None,
) -> Trajectory:
    """The answer of one search; with a budget, of as many as it pays for, each with fresh draws.

    Args:
        session: of the problem.
        scores: what the searches score with.
        start: begins a search, given the number of those before it.
        limit: pieces of work after which a search without a budget ends; None: when it is done.
        choose: the answer so far; the best complete response by default.
    """
    choose = choose or (lambda: scores.best)
    current, begun, pieces = start(0), 1, 0
    while session.proceed(not current.done and (limit is None or pieces < limit)):
        if current.done:
            current, begun = start(begun), begun + 1
        await current.advance()
        pieces += 1
        answer = choose()
        if answer is not None:
            session.report(answer.commit(len(answer)))
    answer = choose() or await scores.answer()
    return answer.commit(len(answer))
