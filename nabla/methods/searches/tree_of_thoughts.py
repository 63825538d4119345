"""Tree of Thoughts (Yao et al., arXiv 2305.10601, Algorithms 1 and 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from nabla.core.errors import ConfigError, require_positive
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


@methods.register("tree-of-thoughts")
class TreeOfThoughts(Method):
    """Thoughts are steps drawn from the language model; the reward of the partial response is their value.

    Breadth-first keeps the ``breadth`` best states, complete ones among them, and ends when all it keeps
    are complete. Depth-first expands the best child first and goes back at the end of a branch. The best
    complete response seen is the answer. With a budget depth-first goes on past ``max_expansions``, and
    searches with fresh draws follow each other until it is spent, the first ones with 2, 4, ... thoughts (and
    depth-first then only down to the first complete response).

    Args:
        order: ``bfs`` or ``dfs``.
        thoughts: continuations drawn of each state (k).
        breadth: states kept by breadth-first search (b).
        threshold: open states with a value of at most this, in the reward's unit, are pruned (v_th);
            None prunes nothing.
        max_expansions: states that a depth-first search expands at most.
        sampling: how tokens are drawn.
        boundary: where a thought ends.
        max_steps: the last one runs to the end of the response.
    """

    def __init__(
        self,
        order: Literal["bfs", "dfs"] = "bfs",
        thoughts: int = 4,
        breadth: int = 2,
        threshold: float | None = None,
        max_expansions: int = 16,
        sampling: Sampling | dict[str, Any] | None = None,
        boundary: Boundary | str | dict[str, Any] = "newline",
        max_steps: int = 64,
    ) -> None:
        if order not in ("bfs", "dfs"):
            raise ConfigError("Unknown order of a tree search", got=order, fix="Use bfs or dfs.")
        require_positive(
            thoughts=thoughts, breadth=breadth, max_expansions=max_expansions, max_steps=max_steps
        )
        self.order, self.thoughts, self.breadth, self.threshold = order, thoughts, breadth, threshold
        self.max_expansions, self.max_steps = max_expansions, max_steps
        self.sampling = construct(Sampling, sampling)
        self.boundary = boundaries.build(boundary)

    def check(self, engine: Engine) -> None:
        require_reward(engine.reward, "Tree of Thoughts values states by reward")

    async def solve(self, session: Session) -> Solution:
        scores = Scores(session)
        steps = Steps(self.sampling, self.boundary, self.max_steps)
        kind, limit = (_Breadth, None) if self.order == "bfs" else (_Depth, self.max_expansions)

        def start(begun: int) -> Search:
            return kind(self, width(session, begun, self.thoughts), scores, steps)

        chosen = await search(session, scores, start, limit=limit)
        return self.solution(session, chosen, candidates=scores.complete)

    def promising(self, state: Trajectory) -> bool:
        """Whether an open state is worth expanding."""
        return self.threshold is None or value(state) > self.threshold


class _Breadth(Search):
    def __init__(self, method: TreeOfThoughts, thoughts: int, scores: Scores, steps: Steps) -> None:
        self.method, self.thoughts, self.scores, self.steps = method, thoughts, scores, steps
        self.breadth = max(1, method.breadth * thoughts // method.thoughts)
        self.open: list[Trajectory] = []
        self.complete: list[Trajectory] = []
        self.depth = 0

    @property
    def done(self) -> bool:
        return self.depth > 0 and not self.open

    async def advance(self) -> None:
        method, session = self.method, self.scores.session
        if self.depth == 0:
            grown = await self.steps.first(session, self.thoughts)
        else:
            rows = [state for state in self.open for _ in range(self.thoughts)]
            grown = await self.steps.next(session, rows, self.depth)
        states = distinct([*self.complete, *await self.scores.score(grown)])
        promising = [s for s in states if session.ended(s) or method.promising(s)]
        kept = sorted(promising, key=value, reverse=True)[: self.breadth]
        prune(session, states, kept)
        self.complete = [s for s in kept if session.ended(s)]
        self.open = [s for s in kept if not session.ended(s)]
        self.depth += 1


class _Depth(Search):
    def __init__(self, method: TreeOfThoughts, thoughts: int, scores: Scores, steps: Steps) -> None:
        self.method, self.thoughts, self.scores, self.steps = method, thoughts, scores, steps
        self.stack: list[tuple[Trajectory, int]] = []
        self.begun = self.answered = False

    @property
    def done(self) -> bool:
        narrow = self.thoughts < self.method.thoughts
        return self.begun and (not self.stack or (narrow and self.answered))

    async def advance(self) -> None:
        method, session, depth = self.method, self.scores.session, 0
        if not self.begun:
            grown = await self.steps.first(session, self.thoughts)
            self.begun = True
        else:
            state, depth = self.stack.pop()
            grown = await self.steps.next(session, [state] * self.thoughts, depth)
        scored = distinct(await self.scores.score(grown))
        self.answered = self.answered or any(session.ended(s) for s in scored)
        going = [s for s in scored if not session.ended(s) and method.promising(s)]
        going.sort(key=value, reverse=True)
        prune(session, (s for s in scored if not session.ended(s)), going)
        self.stack += [(s, depth + 1) for s in reversed(going)]  # the best on top
