"""Diverse verifier tree search (Beeching et al., "Scaling test-time compute with open models", 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nabla.core.errors import require_positive
from nabla.core.registry import construct
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.methods.base import Method, methods
from nabla.methods.pools import next_round
from nabla.methods.steps import Scores, Search, Steps, best, prune, search, width
from nabla.rewards.base import require_reward
from nabla.rollouts.boundaries.base import Boundary, boundaries

if TYPE_CHECKING:
    from nabla.engine.engine import Engine
    from nabla.engine.session import Session


@methods.register("dvts")
class DVTS(Method):
    """Independent trees, each greedy by reward: of every step's continuations the best one is kept.

    The trees do not compete, which keeps them diverse where beam search collapses onto one. The best complete
    response of all, kept or not, is the answer. With a budget further trees follow until it is spent; the
    first ones have 2, 4, ... continuations.

    Args:
        trees: independent searches (N/M).
        expansions: continuations of each tree's prefix at every step (M).
        sampling: how tokens are drawn.
        boundary: where a step ends.
        max_steps: the last one runs to the end of the response.
    """

    def __init__(
        self,
        trees: int = 2,
        expansions: int = 4,
        sampling: Sampling | dict[str, Any] | None = None,
        boundary: Boundary | str | dict[str, Any] = "newline",
        max_steps: int = 64,
    ) -> None:
        require_positive(trees=trees, expansions=expansions, max_steps=max_steps)
        self.trees, self.expansions, self.max_steps = trees, expansions, max_steps
        self.sampling = construct(Sampling, sampling)
        self.boundary = boundaries.build(boundary)

    def check(self, engine: Engine) -> None:
        require_reward(engine.reward, "DVTS ranks steps by reward")

    async def solve(self, session: Session) -> Solution:
        scores = Scores(session)
        steps = Steps(self.sampling, self.boundary, self.max_steps)
        planted = 0

        def start(begun: int) -> Search:
            nonlocal planted
            count = next_round(session, planted, self.trees)
            planted += count
            return _Trees(count, width(session, begun, self.expansions), scores, steps)

        chosen = await search(session, scores, start)
        return self.solution(session, chosen, candidates=scores.complete)


class _Trees(Search):
    def __init__(self, count: int, expansions: int, scores: Scores, steps: Steps) -> None:
        self.count, self.expansions, self.scores, self.steps = count, expansions, scores, steps
        self.prefixes: list[Trajectory] = []
        self.depth = 0

    @property
    def done(self) -> bool:
        return self.depth > 0 and not self.prefixes

    async def advance(self) -> None:
        session, width = self.scores.session, self.expansions
        if self.depth == 0:
            grown = await self.steps.first(session, self.count * width)
        else:
            rows = [t for t in self.prefixes for _ in range(width)]
            grown = await self.steps.next(session, rows, self.depth)
        scored = await self.scores.score(grown)
        kept = [best(scored[i : i + width]) for i in range(0, len(scored), width)]
        self.prefixes = [t for t in kept if not session.ended(t)]
        prune(session, scored, kept)
        self.depth += 1
