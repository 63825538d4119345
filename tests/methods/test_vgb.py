"""VGB's walk against enumeration: its stationary law on complete texts is π V (SPEC section 15)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nabla.core.errors import ConfigError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.engine.engine import Engine
from nabla.methods.base import methods
from nabla.methods.searches.vgb import VGB, Node, Walk
from nabla.theory.problems.text import SequenceSpace
from tests import chains, running
from tests.toy import p_value

STARTS = 200_000
STEPS = {"sampling": running.SAMPLING, "boundary": {"name": "length", "tokens": 2}}


def grown(space: SequenceSpace, method: VGB, look):
    """What ``look(walk, nodes)`` makes of the whole tree, root first, as the walk itself grows it."""
    found = []

    async def solve(session):
        walk, nodes = Walk(method, session), [Node(None)]
        for node in nodes:
            while node.children is None:
                await walk.move(node)
            nodes += node.children
        found.append(await look(walk, nodes))
        return method.solution(session, next(node.text for node in nodes if not node.children))

    for _, outcome in Engine(space.lm, space.rm, seed=5).run(solve, [Prompt("0", space.prompt.messages)]):
        if isinstance(outcome, Exception):
            raise outcome
    return found[0]


def law(nodes: list[Node]) -> np.ndarray:
    """``π(u) (V(u) + Σ_c π(c|u) V(c))``: the weights of a node's edges, written out."""
    pi = {nodes[0]: 0.0}
    for node in nodes:
        pi |= {child: pi[node] + child.log_share for child in node.children}
    weights = []
    for node in nodes:
        own = 0.0 if node.parent is None else math.exp(node.log_value)
        below = sum(math.exp(child.log_share + child.log_value) for child in node.children)
        weights.append(math.exp(pi[node]) * (own + below))
    found = np.array(weights)
    return found / found.sum()


@pytest.fixture(scope="module")
def space() -> SequenceSpace:
    return SequenceSpace(length=2, weight=0.7, seed=3)


def method(space: SequenceSpace, **arguments) -> VGB:
    sampling = Sampling(temperature=1.0, max_new_tokens=space.length)
    boundary = {"name": "length", "tokens": 1}
    return VGB(value="exponential", scale=space.weight, sampling=sampling, boundary=boundary, **arguments)


@pytest.mark.timeout(900)
def test_one_step_from_the_stationary_law_leaves_it_and_its_leaves_are_the_target(space):
    async def look(walk, nodes):
        weights = law(nodes)
        place = {node: i for i, node in enumerate(nodes)}
        starts = chains.draws(weights, STARTS)
        reached = [place[await walk.move(nodes[i])] for i in starts]
        texts = [None if n.children or n.text is None else tuple(n.text.tokens.tolist()) for n in nodes]
        return weights, starts, reached, texts

    weights, starts, reached, texts = grown(space, method(space, branches=None), look)
    assert len([text for text in texts if text is not None]) == len(space)
    assert chains.law_p(weights, reached) > 1e-3
    leaves = {space.index[text]: i for i, text in enumerate(texts) if text is not None}
    on_leaves = np.array([weights[leaves[i]] for i in range(len(space))])
    target = space.target.double().numpy()
    assert on_leaves / on_leaves.sum() == pytest.approx(target, abs=1e-9)
    counts = np.bincount(reached, minlength=len(weights)).astype(float)
    assert p_value(np.array([counts[leaves[i]] for i in range(len(space))]), target) > 1e-3
    # A walk that forgot the values would have another law.
    pi = np.exp(space.log_pi.double().numpy())
    assert p_value(np.array([counts[leaves[i]] for i in range(len(space))]), pi) < 1e-3
    assert np.mean(np.array(starts) == np.array(reached)) == pytest.approx(0.5, abs=0.01)  # lazy


def test_from_the_root_the_walk_reaches_its_law_on_a_tree_of_draws(space):
    """Three draws of a step behind each prefix: a tree with repetitions, on which the walk is as exact."""

    async def look(walk, nodes):
        place = {node: i for i, node in enumerate(nodes)}
        reached = []
        for _ in range(2000):
            node = nodes[0]
            for _ in range(60):
                node = await walk.move(node)
            reached.append(place[node])
        return law(nodes), reached, nodes

    weights, reached, nodes = grown(space, method(space, branches=3), look)
    assert {len(node.children) for node in nodes} <= {0, 3}
    assert chains.law_p(weights, reached) > 1e-3
    assert chains.law_p(np.full(len(nodes), 1 / len(nodes)), reached) < 1e-3


@pytest.mark.parametrize("branches", [2, None])
def test_answers_and_costs_do_not_depend_on_what_else_runs(branches):
    running.assert_same_alone_and_together(VGB(branches, moves=60 if branches else 8, **STEPS))


def test_it_goes_on_to_a_budget():
    from nabla.core.budget import Budget

    for answer in ("best", "last"):
        made = VGB(2, answer=answer, **STEPS)
        engine = running.tiny_engine(budgets=[Budget("calls", (60.0, 150.0))])
        for solution in running.run(engine, made):
            assert solution.cost.total.calls >= 150
            assert solution.checkpoints[0].usage.calls <= 60
            assert solution.checkpoints[-1].tokens == solution.tokens
            assert solution.finished or len(solution.tokens) == running.SAMPLING.max_new_tokens


def test_values_are_probabilities_by_default(space):
    """V of a prefix is the sigmoid of its reward, however large that is."""
    from nabla.methods.searches.vgb import VALUES

    assert VALUES["sigmoid"](0.0) == pytest.approx(math.log(0.5))
    assert VALUES["sigmoid"](-1e6) == -1e6
    assert torch.isfinite(torch.tensor(VALUES["sigmoid"](1e6)))


def test_settings_are_checked():
    for arguments in ({"branches": 0}, {"moves": 0}, {"value": "square"}, {"answer": "first"}):
        with pytest.raises(ConfigError):
            methods.build({"name": "vgb", **arguments})
