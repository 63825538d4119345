"""Self-consistency: the answer that most samples agree on (arXiv 2203.11171)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from nabla.core.errors import require_one_of, require_positive
from nabla.core.registry import construct
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.methods.base import Method, methods
from nabla.methods.pools import LIKELIHOODS, heaviest, likelihoods, next_round
from nabla.problems.answers.base import Answers
from nabla.problems.answers.base import answers as known_answers

if TYPE_CHECKING:
    from nabla.engine.session import Session


@methods.register("self-consistency")
class SelfConsistency(Method):
    """The first response with the most frequent answer; the answer that came first among equals. No reward.

    With a ``score`` it is the response of the highest one that is returned, and the answer of the best
    response that wins among equals: the log-probability of the language model itself, at temperature 1.
    Responses without an answer do not vote; if none has one, the first response is returned. With a budget
    the pool grows until it is spent.

    Args:
        n: number of responses.
        sampling: how they are drawn.
        answers: how answers are found and compared; ``text`` compares entire responses.
        score: of responses, in all or per token; None: which came first.
    """

    def __init__(
        self,
        n: int = 8,
        sampling: Sampling | dict[str, Any] | None = None,
        answers: Answers | str | dict[str, Any] = "text",
        score: Literal["log-probability", "mean-log-probability"] | None = None,
    ) -> None:
        require_positive(n=n)
        if score is not None:
            require_one_of(score, LIKELIHOODS, "Unknown score", "Scores")
        self.n, self.score = n, score
        self.sampling = construct(Sampling, sampling)
        self.answers = known_answers.build(answers)

    @property
    def keeps_best(self) -> bool:
        return False  # a vote

    async def solve(self, session: Session) -> Solution:
        pool, ranks = list[Trajectory](), list[float]()
        while session.proceed(len(pool) < self.n):
            fresh = await session.rollout(self.sampling, n=next_round(session, len(pool), self.n))
            none = [0.0] * len(fresh)
            ranks += none if self.score is None else await likelihoods(session, fresh, self.score)
            pool += fresh
            session.report(self._chosen(session, pool, ranks))
        return self.solution(session, self._chosen(session, pool, ranks), candidates=len(pool))

    def _chosen(self, session: Session, pool: list[Trajectory], ranks: list[float]) -> Trajectory:
        groups = self.answers.groups([session.decode(t.tokens) for t in pool])
        winner = heaviest(groups, [1.0] * len(pool), ranks)
        voters = [i for i, group in enumerate(groups) if winner in (None, group)]
        chosen = pool[max(voters, key=lambda i: ranks[i])]
        return chosen.commit(len(chosen))
