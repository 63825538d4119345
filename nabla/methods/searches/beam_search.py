"""Beam search over steps with a reward (Snell et al., arXiv 2408.03314, section 5.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nabla.core.errors import require_positive
from nabla.core.registry import construct
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.methods.base import Method, methods
from nabla.methods.steps import Scores, Search, Steps, distinct, prune, search, value, width
from nabla.rewards.base import require_reward
from nabla.rollouts.boundaries.base import Boundary, boundaries

if TYPE_CHECKING:
    from nabla.engine.engine import Engine
    from nabla.engine.session import Session


@methods.register("beam-search")
class BeamSearch(Method):
    """The best prefixes are kept after every step and continued; the best complete response wins.

    N = beams * expansions first steps are drawn and scored as they stand, the ``beams`` best open ones are
    kept, and N next steps are drawn behind them. Complete responses leave the beam; the search ends with N
    of them, or with nothing open. Equal prefixes are kept once and their share of the N goes to the others.
    With a budget searches with fresh draws follow each other until it is spent, the first with N = 2, 4, ...

    Args:
        beams: prefixes kept (N/M in the paper).
        expansions: continuations of each (M in the paper).
        sampling: how tokens are drawn.
        boundary: where a step ends.
        max_steps: the last one runs to the end of the response.
    """

    def __init__(
        self,
        beams: int = 2,
        expansions: int = 4,
        sampling: Sampling | dict[str, Any] | None = None,
        boundary: Boundary | str | dict[str, Any] = "newline",
        max_steps: int = 64,
    ) -> None:
        require_positive(beams=beams, expansions=expansions, max_steps=max_steps)
        self.beams, self.expansions, self.max_steps = beams, expansions, max_steps
        self.sampling = construct(Sampling, sampling)
        self.boundary = boundaries.build(boundary)

    def check(self, engine: Engine) -> None:
        require_reward(engine.reward, "Beam search ranks steps by reward")

    async def solve(self, session: Session) -> Solution:
        scores = Scores(session)
        steps = Steps(self.sampling, self.boundary, self.max_steps)
        full = self.beams * self.expansions

        def start(begun: int) -> Search:
            total = width(session, begun, full)
            return _Beams(max(1, self.beams * total // full), total, scores, steps)

        chosen = await search(session, scores, start)
        return self.solution(session, chosen, candidates=scores.complete)


class _Beams(Search):
    def __init__(self, beams: int, total: int, scores: Scores, steps: Steps) -> None:
        self.beams, self.total, self.scores, self.steps = beams, total, scores, steps
        self.open: list[Trajectory] = []
        self.depth = self.complete = 0

    @property
    def done(self) -> bool:
        return self.depth > 0 and (not self.open or self.complete >= self.total)

    async def advance(self) -> None:
        session = self.scores.session
        if self.depth == 0:
            grown = await self.steps.first(session, self.total)
        else:
            grown = await self.steps.next(session, spread(self.open, self.total), self.depth)
        scored = await self.scores.score(grown)
        going = [t for t in scored if not session.ended(t)]
        self.complete += len(scored) - len(going)
        self.open = sorted(distinct(going), key=value, reverse=True)[: self.beams]
        prune(session, going, self.open)
        self.depth += 1


def spread(prefixes: list[Trajectory], total: int) -> list[Trajectory]:
    """Each prefix repeated, ``total`` in all; the first ones once more where it does not come out even."""
    share, extra = divmod(total, len(prefixes))
    return [t for i, t in enumerate(prefixes) for _ in range(share + (i < extra))]
