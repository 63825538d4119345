"""VGB: value-guided sampling with backtracking, a random walk on the tree of prefixes (arXiv 2510.03149)."""

from __future__ import annotations

import itertools
import math
from bisect import bisect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.nn.functional import logsigmoid

from nabla.core.errors import require_finite, require_one_of, require_positive
from nabla.core.registry import construct
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.engine.edits import replaced
from nabla.methods.base import Method, methods
from nabla.methods.steps import Scores, value
from nabla.models.causal_lm import require_lm
from nabla.rewards.base import require_reward
from nabla.rollouts.boundaries.base import Boundary, boundaries
from nabla.rollouts.boundaries.length import Length

if TYPE_CHECKING:
    from nabla.engine.engine import Engine
    from nabla.engine.session import Session

#: Logarithm of V from a reward.
VALUES = {"sigmoid": lambda r: float(logsigmoid(torch.tensor(r).double())), "exponential": float}
#: Moves in a row within the known tree, which cost nothing, after which another tree begins: a tree of few
#: prefixes is known whole after a while.
FREE = 1000


@dataclass(eq=False)
class Node:
    """A prefix.

    Args:
        text: None at the root.
        log_value: log V.
        log_share: log π of it, given its parent.
        parent: the prefix that it extends.
        children: None until they are drawn; empty where the text is at its end.
        ends: of the weights of the parent and the children, laid end to end and divided by their sum.
    """

    text: Trajectory | None
    log_value: float = 0.0
    log_share: float = 0.0
    parent: Node | None = None
    children: list[Node] | None = None
    ends: list[float] = field(default_factory=list)


@methods.register("vgb")
class VGB(Method):
    """A lazy random walk on the tree of prefixes (Sinclair and Jerrum, 1989).

    From a prefix u the walk stays with probability 1/2; else it goes to its parent with weight V(u), or to a
    child c with weight ``π(c|u) V(c)``, V >= 0 being what the reward makes of the prefix. The edge between u
    and c has the weight ``π(c) V(c)`` from both sides, so that the walk is reversible: on complete texts its
    stationary law is ``∝ π V``, whatever V says of the prefixes (SPEC section 15).

    A prefix has few children: ``branches`` draws of a step, made when the walk first stands there and kept,
    each with an equal share of π, so that the walk is exact on the tree that was drawn. With
    ``branches=None`` every token is a child, as in the paper's analysis; each is judged, which only small
    vocabularies allow. Moves within the tree that is known cost nothing. A first text is written to its end,
    so that an answer is held.

    Args:
        branches: draws of a step behind each prefix; None: all tokens.
        value: V from a reward r: ``sigmoid``, the probability that log-odds stand for, or ``exponential``.
        scale: r is multiplied with it.
        sampling: π.
        boundary: where a step ends.
        moves: of the walk, without a budget.
        answer: the ``best`` complete text by reward that was judged, or the ``last`` one that the walk stood
            at, which is its sample (the first text, if it stood at none).
    """

    def __init__(
        self,
        branches: int | None = 4,
        value: Literal["sigmoid", "exponential"] = "sigmoid",
        scale: float = 1.0,
        sampling: Sampling | dict[str, Any] | None = None,
        boundary: Boundary | str | dict[str, Any] = "newline",
        moves: int = 256,
        answer: Literal["best", "last"] = "best",
    ) -> None:
        require_positive(moves=moves, **({} if branches is None else {"branches": branches}))
        require_one_of(value, VALUES, "Unknown value", "Values")
        require_one_of(answer, ("best", "last"), "Unknown answer", "Answers")
        self.branches, self.value, self.scale = branches, value, require_finite("scale", scale)
        self.sampling, self.boundary = construct(Sampling, sampling), boundaries.build(boundary)
        self.moves, self.answer = moves, answer

    @property
    def keeps_best(self) -> bool:
        return self.answer == "best"

    def check(self, engine: Engine) -> None:
        require_reward(engine.reward, "VGB weighs prefixes by reward")
        if self.branches is None:
            require_lm(engine.lm, "VGB looks at the probability of every token")

    async def solve(self, session: Session) -> Solution:
        walk = Walk(self, session)
        (last,) = await walk.scores.score(await session.rollout(self.sampling))
        node, moves = Node(None), 0
        while True:
            chosen = walk.scores.best if self.answer == "best" else last
            assert chosen is not None
            session.report(chosen)
            if not session.proceed(moves < self.moves):
                return self.solution(
                    session, chosen.commit(len(chosen)), candidates=walk.scores.complete
                )
            calls = session.cost.total.calls
            for count in itertools.count():  # a round, until a model has run
                node = Node(None) if count == FREE else node
                known = node.children is not None
                node, moves = await walk.move(node), moves + 1
                last = node.text if node.text is not None and session.ended(node.text) else last
                ran = not known and session.cost.total.calls > calls
                if ran or (moves >= self.moves and not session.budgeted):
                    break


class Walk:
    """A walk of one problem.

    Args:
        method: settings.
        session: of the problem.
    """

    def __init__(self, method: VGB, session: Session) -> None:
        self.method, self.session, self.scores = method, session, Scores(session)
        self.generator = session.generator("vgb")

    async def move(self, node: Node) -> Node:
        """Where the walk stands next. Raises NumericalError for a reward that is not finite."""
        if node.children is None:
            node.children = await self._children(node)
            node.ends = _ends(node)
        lazy, place = torch.rand(2, generator=self.generator, dtype=torch.float64).tolist()
        if lazy < 0.5 or not node.ends:
            return node
        around = node.children if node.parent is None else [node.parent, *node.children]
        return around[min(bisect(node.ends, place), len(around) - 1)]

    async def _children(self, node: Node) -> list[Node]:
        if node.text is not None and self.session.ended(node.text):
            return []
        drawn = await (self._tokens(node.text) if self.method.branches is None else self._steps(node.text))
        scored = await self.scores.score([text for text, _ in drawn])
        log_values = [VALUES[self.method.value](self.method.scale * value(text)) for text in scored]
        return [
            Node(text, log_value, share, node)
            for text, log_value, (_, share) in zip(scored, log_values, drawn, strict=True)
        ]

    async def _steps(self, text: Trajectory | None) -> list[tuple[Trajectory, float]]:
        """Draws of a step, each with its share of π, nats."""
        count = self.method.branches or 1
        grown = await self._grow(text, count, self.method.boundary)
        return [(step, -math.log(count)) for step in grown]

    async def _tokens(self, text: Trajectory | None) -> list[tuple[Trajectory, float]]:
        """Every token that may come next, with its log-probability: one decoding step tells."""
        (one,) = await self.session.states(await self._grow(text, 1, Length(1)))
        last = len(one) - 1
        row = self.session.reference(one, slice(last, len(one)))
        log_pi = self.method.sampling.filter(row.logits[0]).log_softmax(-1).tolist()
        vocabulary, lm = self.session.vocabulary, self.session.workspace.lm
        return [
            (replaced(vocabulary, lm, one, last, token), share)
            for token, share in enumerate(log_pi)
            if share > float("-inf")
        ]

    async def _grow(self, text: Trajectory | None, count: int, until: Boundary) -> list[Trajectory]:
        if text is None:
            return await self.session.rollout(self.method.sampling, count, until=until)
        return await self.session.extend([text] * count, until=until)


def _ends(node: Node) -> list[float]:
    """Cumulated shares of the weights: of the parent, where there is one, and of each child."""
    children = node.children or []
    weights = [] if node.parent is None else [node.log_value]
    weights += [child.log_share + child.log_value for child in children]
    return list(itertools.accumulate(torch.tensor(weights, dtype=torch.float64).softmax(0).tolist()))
