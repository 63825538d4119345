"""Best-of-N sampling, plain and weighted, by reward or by the language model's own probability."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from nabla.core.errors import require_one_of, require_positive
from nabla.core.registry import construct
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.methods.base import Method, methods
from nabla.methods.pools import LIKELIHOODS, heaviest, likelihoods, next_round, sigmoid
from nabla.methods.steps import Scores, value
from nabla.problems.answers.base import Answers
from nabla.problems.answers.base import answers as known_answers
from nabla.rewards.base import require_reward

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
    """N independent responses; the one with the highest score (the first among equals).

    The score is the reward, or the log-probability that the language model itself gives to the response, at
    temperature 1, in all or per token: no reward is needed then, and nothing beyond the rollouts is spent.
    Weighted, the scores of responses with equal answers are added up first, and the best response of the
    heaviest answer is returned (arXiv 2206.02336, 2408.03314). A process reward brings its own aggregation
    over steps (``rm.aggregation``: last, min, mean or sum). With a budget the pool grows until it is spent.

    Args:
        n: number of responses.
        sampling: how they are drawn.
        answers: how answers are found and compared, for weighted best-of-N; None: plain. Responses
            without an answer do not vote; if none has one, the choice is plain.
        weight: reward → vote: ``sigmoid`` (the probability that a reward in logits stands for),
            ``softmax`` (over the pool; the fitting one for log-probabilities) or ``raw`` (for rewards that
            are probabilities already).
        score: what responses are ranked by.
    """

    def __init__(
        self,
        n: int = 8,
        sampling: Sampling | dict[str, Any] | None = None,
        answers: Answers | str | dict[str, Any] | None = None,
        weight: Literal["sigmoid", "softmax", "raw"] = "sigmoid",
        score: Literal["reward", "log-probability", "mean-log-probability"] = "reward",
    ) -> None:
        require_positive(n=n)
        require_one_of(weight, WEIGHTS, "Unknown weight", "Weights")
        require_one_of(score, ("reward", *LIKELIHOODS), "Unknown score", "Scores")
        self.n, self.weight, self.score = n, weight, score
        self.sampling = construct(Sampling, sampling)
        self.answers = None if answers is None else known_answers.build(answers)

    @property
    def keeps_best(self) -> bool:
        return self.answers is None  # else a vote

    def check(self, engine: Engine) -> None:
        if self.score == "reward":
            require_reward(engine.reward, "Best-of-N ranks by reward")

    async def solve(self, session: Session) -> Solution:
        scores, pool, ranks = Scores(session), list[Trajectory](), list[float]()
        while session.proceed(len(pool) < self.n):
            fresh = await session.rollout(self.sampling, n=next_round(session, len(pool), self.n))
            if self.score == "reward":
                fresh = await scores.score(fresh)
                ranks += [value(t) for t in fresh]
            else:
                ranks += await likelihoods(session, fresh, self.score)
            pool += fresh
            session.report(self._chosen(session, pool, ranks))
        return self.solution(session, self._chosen(session, pool, ranks), candidates=len(pool))

    def _chosen(self, session: Session, pool: list[Trajectory], ranks: list[float]) -> Trajectory:
        voters = list(range(len(pool)))
        if self.answers is not None:
            groups = self.answers.groups([session.decode(t.tokens) for t in pool])
            winner = heaviest(groups, WEIGHTS[self.weight](ranks), ranks)
            voters = [i for i, group in enumerate(groups) if winner in (None, group)]
        chosen = pool[max(voters, key=lambda i: ranks[i])]
        return chosen.commit(len(chosen))
