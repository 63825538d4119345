"""Reasoning via Planning: Monte Carlo tree search over steps (Hao et al., arXiv 2305.14992)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from nabla.core.errors import ConfigError, require_positive
from nabla.core.registry import construct
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.methods.base import Method, methods
from nabla.methods.pools import heaviest, sigmoid
from nabla.methods.steps import Scores, Search, Steps, best, distinct, search, value, width
from nabla.problems.answers.base import Answers, answers
from nabla.rewards.base import require_reward
from nabla.rollouts.boundaries.base import Boundary, boundaries

if TYPE_CHECKING:
    from nabla.engine.engine import Engine
    from nabla.engine.session import Session


@methods.register("rap")
class RAP(Method):
    """MCTS: select by UCT, expand, simulate by the best step's reward to the end, back up (section 3.3).

    A step's reward is ``r = lik^alpha * rm^(1 - alpha)`` as in the published code: ``lik`` the geometric
    mean probability of its tokens (the action's likelihood), ``rm`` the sigmoid of the reward model at the
    partial response (the paper asks the language model itself). A path's value at a node is the mean (or
    sum) of the rewards from there to its end; Q is the largest (or mean) over paths. A child that no path
    has taken yet stands with its own reward for Q and one visit.

    Differences from the paper: a branch whose responses are all complete is not visited again, since
    nothing new can come of it; a tree with nothing left is replaced by one of fresh draws where a budget
    is left. With a budget the first trees have 2, 4, ... steps at a node and one path. The answer is the
    complete response with the highest reward, or by ``aggregate``.

    Args:
        iterations: paths from the root to an end; with a budget, until it is spent.
        expansions: steps drawn at a node (d).
        exploration: weight w of ``sqrt(ln N(s) / N(s, a))``.
        alpha: share of the likelihood in a step's reward, in [0, 1].
        future: ``mean`` or ``sum`` of the rewards of a path.
        backup: ``max`` or ``mean`` over the paths through a node.
        aggregate: how answers are found and compared, for RAP-Aggregation: an answer weighs the sum of
            the step rewards on all branches that lead to it, and the best response of the heaviest one
            is returned; None: no vote.
        sampling: how tokens are drawn.
        boundary: where a step ends.
        max_steps: the last one runs to the end of the response.
    """

    def __init__(
        self,
        iterations: int = 10,
        expansions: int = 4,
        exploration: float = 1.0,
        alpha: float = 0.5,
        future: Literal["mean", "sum"] = "mean",
        backup: Literal["max", "mean"] = "max",
        aggregate: Answers | str | dict[str, Any] | None = None,
        sampling: Sampling | dict[str, Any] | None = None,
        boundary: Boundary | str | dict[str, Any] = "newline",
        max_steps: int = 64,
    ) -> None:
        require_positive(iterations=iterations, expansions=expansions, max_steps=max_steps)
        if not 0 <= alpha <= 1:
            raise ConfigError("alpha must be between 0 and 1", got=alpha)
        if not 0 <= exploration < math.inf:
            raise ConfigError("exploration must be >= 0 and finite", got=exploration)
        if future not in ("mean", "sum"):
            raise ConfigError("Unknown value of a path", got=future, fix="Use mean or sum.")
        if backup not in ("max", "mean"):
            raise ConfigError("Unknown backup", got=backup, fix="Use max or mean.")
        self.iterations, self.expansions, self.max_steps = iterations, expansions, max_steps
        self.exploration, self.alpha, self.future, self.backup = exploration, alpha, future, backup
        self.aggregate = None if aggregate is None else answers.build(aggregate)
        self.sampling = construct(Sampling, sampling)
        self.boundary = boundaries.build(boundary)

    def check(self, engine: Engine) -> None:
        require_reward(engine.reward, "RAP values steps by reward")

    async def solve(self, session: Session) -> Solution:
        scores = Scores(session)
        steps = Steps(self.sampling, self.boundary, self.max_steps)
        trees: list[Tree] = []

        def start(begun: int) -> Search:
            trees.append(Tree(self, width(session, begun, self.expansions), scores, steps))
            return trees[-1]

        chosen = await search(
            session, scores, start, limit=self.iterations, choose=lambda: self._chosen(scores, trees)
        )
        return self.solution(session, chosen, candidates=scores.complete)

    def _chosen(self, scores: Scores, trees: Sequence[Tree]) -> Trajectory | None:
        ends = [node for tree in trees for node in tree.ends]
        if self.aggregate is None or not ends:
            return scores.best
        responses = [scores.session.decode(node.state.tokens) for node in ends if node.state is not None]
        groups = self.aggregate.groups(responses)
        counted: dict[int | None, set[Node]] = {}
        weights = []
        for node, group in zip(ends, groups, strict=True):
            seen = counted.setdefault(group, set())
            new = [step for step in node.path() if step not in seen]
            seen.update(new)
            weights.append(sum(step.reward for step in new))
        states = [node.state for node in ends if node.state is not None]
        winner = heaviest(groups, weights, [value(state) for state in states])
        return best(s for s, group in zip(states, groups, strict=True) if winner in (None, group))


@dataclass(eq=False)
class Node:
    """A state of the tree: a prefix, what its last step is worth, and what the paths through it gave."""

    state: Trajectory | None = None  # None: the root, where nothing is written
    reward: float = 0.0
    parent: Node | None = None
    depth: int = 0
    exhausted: bool = False
    children: list[Node] = field(default_factory=list)
    visits: int = 0
    total: float = 0.0
    highest: float = -math.inf

    def path(self) -> Iterator[Node]:
        """From here up to the first step; the root is not a step."""
        node: Node = self
        while node.parent is not None:
            yield node
            node = node.parent


class Tree(Search):
    """One search tree; ``advance`` is one iteration."""

    def __init__(self, method: RAP, expansions: int, scores: Scores, steps: Steps) -> None:
        self.method, self.expansions, self.scores, self.steps = method, expansions, scores, steps
        self.root = Node()
        #: Complete responses, in the order in which they were written.
        self.ends: list[Node] = []

    @property
    def done(self) -> bool:
        narrow = self.expansions < self.method.expansions
        return self.root.exhausted or (narrow and self.root.visits > 0)

    async def advance(self) -> None:
        node = self._select()
        while not node.exhausted:  # simulation; its nodes stay in the tree
            await self._expand(node)
            node = max(node.children, key=lambda child: child.reward)
            if self.scores.session.spent:
                break
        self._back_up(node)

    def _select(self) -> Node:
        node = self.root
        while node.children:
            live = [child for child in node.children if not child.exhausted]
            node = max(live, key=self._uct)
        return node

    def q(self, node: Node) -> float:
        """Estimated value of taking a node's step."""
        if node.visits == 0:
            return node.reward
        return node.highest if self.method.backup == "max" else node.total / node.visits

    def _uct(self, node: Node) -> float:
        assert node.parent is not None
        bonus = math.sqrt(math.log(node.parent.visits) / max(node.visits, 1))
        return self.q(node) + self.method.exploration * bonus

    async def _expand(self, node: Node) -> None:
        session, count = self.scores.session, self.expansions
        if node.state is None:
            grown = await self.steps.first(session, count)
        else:
            grown = await self.steps.next(session, [node.state] * count, node.depth)
        for state in distinct(await self.scores.score(grown)):
            ended = session.ended(state)
            child = Node(state, self._reward(node, state), node, node.depth + 1, exhausted=ended)
            node.children.append(child)
            if ended:
                self.ends.append(child)

    def _reward(self, parent: Node, state: Trajectory) -> float:
        written = 0 if parent.state is None else len(parent.state)
        likelihood = math.exp(float(state.log_probs[written:].double().mean()))
        alpha = self.method.alpha
        reward: float = likelihood**alpha * sigmoid(value(state)) ** (1 - alpha)
        if math.isnan(reward):
            raise ConfigError(
                "RAP weighs steps by their likelihood, and the rollout gives no log-probabilities",
                fix="Choose alpha=0, another search, or a server that returns log-probabilities.",
            )
        return reward

    def _back_up(self, leaf: Node) -> None:
        total, count = 0.0, 0
        node: Node | None = leaf
        while node is not None:
            if node.parent is not None:
                total, count = total + node.reward, count + 1
            worth = total / count if self.method.future == "mean" else total
            node.visits += 1
            node.total += worth
            node.highest = max(node.highest, worth)
            if node.children:
                node.exhausted = all(child.exhausted for child in node.children)
            node = node.parent
