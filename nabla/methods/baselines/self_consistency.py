"""Self-consistency: the answer that most samples agree on (arXiv 2203.11171)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nabla.core.errors import require_positive
from nabla.core.registry import construct
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.methods.base import Method, methods
from nabla.methods.pools import heaviest, next_round
from nabla.problems.answers.base import Answers
from nabla.problems.answers.base import answers as known_answers

if TYPE_CHECKING:
    from nabla.engine.session import Session


@methods.register("self-consistency")
class SelfConsistency(Method):
    """The first response with the most frequent answer; the answer that came first among equals. No reward.

    Responses without an answer do not vote; if none has one, the first response is returned. With a budget
    the pool grows until it is spent.

    Args:
        n: number of responses.
        sampling: how they are drawn.
        answers: how answers are found and compared; ``text`` compares entire responses.
    """

    def __init__(
        self,
        n: int = 8,
        sampling: Sampling | dict[str, Any] | None = None,
        answers: Answers | str | dict[str, Any] = "text",
    ) -> None:
        require_positive(n=n)
        self.n = n
        self.sampling = construct(Sampling, sampling)
        self.answers = known_answers.build(answers)

    @property
    def keeps_best(self) -> bool:
        return False  # a vote

    async def solve(self, session: Session) -> Solution:
        pool: list[Trajectory] = []
        while session.proceed(len(pool) < self.n):
            pool += await session.rollout(self.sampling, n=next_round(session, len(pool), self.n))
            session.report(self._chosen(session, pool))
        return self.solution(session, self._chosen(session, pool), candidates=len(pool))

    def _chosen(self, session: Session, pool: list[Trajectory]) -> Trajectory:
        groups = self.answers.groups([session.decode(t.tokens) for t in pool])
        winner = heaviest(groups, [1.0] * len(pool))
        chosen = pool[0 if winner is None else groups.index(winner)]
        return chosen.commit(len(chosen))
