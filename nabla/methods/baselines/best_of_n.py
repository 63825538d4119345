"""Best-of-N sampling, plain and weighted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from nabla.core.errors import ConfigError, require_positive
from nabla.core.registry import construct
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.methods.base import Method, methods
from nabla.methods.pools import heaviest, next_round, sigmoid
from nabla.methods.steps import Scores, best, value
from nabla.problems.answers.base import Answers
from nabla.problems.answers.base import answers as known_answers

if TYPE_CHECKING:
    from nabla.engine.engine import Engine
    from nabla.engine.session import Session




#: How the rewards of a pool become weights of its votes.
WEIGHTS: dict[str, Callable[[Sequence[float]], list[float]]] = {
    "sigmoid": lambda rewards: [sigmoid(r) for r in rewards],
    "softmax": lambda rewards: [math.exp(r - max(rewards)) for r in rewards],  # up to a common factor
    "raw": list,
}


@methods.register("best-of-n")
class BestOfN(Method):
    """N independent responses; the one with the highest reward (the first among equals).

    Weighted, the rewards of responses with equal answers are added up first, and the best response of the
    heaviest answer is returned (arXiv 2206.02336, 2408.03314). A process reward brings its own aggregation
    over steps (``rm.aggregation``: last, min, mean or sum). With a budget the pool grows until it is spent.

    Args:
        n: number of responses.
        sampling: how they are drawn.
        answers: how answers are found and compared, for weighted best-of-N; None: plain. Responses
            without an answer do not vote; if none has one, the choice is plain.
        weight: reward → vote: ``sigmoid`` (the probability that a reward in logits stands for),
            ``softmax`` (over the pool) or ``raw`` (for rewards that are probabilities already).
    """

    def __init__(
        self,
        n: int = 8,
        sampling: Sampling | dict[str, Any] | None = None,
        answers: Answers | str | dict[str, Any] | None = None,
        weight: Literal["sigmoid", "softmax", "raw"] = "sigmoid",
    ) -> None:
        require_positive(n=n)
        if weight not in WEIGHTS:
            raise ConfigError("Unknown weight", got=weight, fix=f"Use {', '.join(WEIGHTS)}.")
        self.n, self.weight = n, weight
        self.sampling = construct(Sampling, sampling)
        self.answers = None if answers is None else known_answers.build(answers)

    @property
    def keeps_best(self) -> bool:
        return self.answers is None  # else a vote

    def check(self, engine: Engine) -> None:
        if engine.reward is None:
            raise ConfigError(
                "Best-of-N ranks by reward, and there is none",
                fix="Pass a reward model (rm=...) or a Python reward.",
            )

    async def solve(self, session: Session) -> Solution:
        scores, pool = Scores(session), list[Trajectory]()
        while session.proceed(len(pool) < self.n):
            fresh = await session.rollout(self.sampling, n=next_round(session, len(pool), self.n))
            pool += await scores.score(fresh)
            session.report(self._chosen(session, pool))
        return self.solution(session, self._chosen(session, pool), candidates=len(pool))

    def _chosen(self, session: Session, pool: list[Trajectory]) -> Trajectory:
        voters = pool
        if self.answers is not None:
            rewards = [value(t) for t in pool]
            groups = self.answers.groups([session.decode(t.tokens) for t in pool])
            winner = heaviest(groups, WEIGHTS[self.weight](rewards), rewards)
            voters = [t for t, group in zip(pool, groups, strict=True) if winner in (None, group)]
        chosen = best(voters)
        return chosen.commit(len(chosen))
