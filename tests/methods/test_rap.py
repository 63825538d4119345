"""RAP's tree: its counts, its values, and that it finds what there is to find."""

from __future__ import annotations

import math

import pytest

from nabla.methods.base import methods
from nabla.methods.searches.rap import Tree
from nabla.methods.steps import Scores, Steps
from tests import running, tiny, toy

STEPS = {"sampling": toy.FLAT, "boundary": toy.SINGLE}


def grow(iterations, **arguments):
    """A tree, and the path (root first) of every iteration."""
    method = methods.build("rap", **{**STEPS, **arguments})

    async def run(session):
        steps = Steps(method.sampling, method.boundary, method.max_steps)
        tree = Tree(method, method.expansions, Scores(session), steps)
        paths = []
        for _ in range(iterations):
            if tree.done:
                break
            before = {id(node): node.visits for node in walk(tree.root)}
            await tree.advance()
            path = [node for node in walk(tree.root) if node.visits > before.get(id(node), 0)]
            paths.append(sorted(path, key=lambda node: node.depth))
        return tree, paths

    return tiny.drive(toy.engine(), toy.PROMPT, run)


def walk(node):
    yield node
    for child in node.children:
        yield from walk(child)


def test_visits_add_up():
    tree, paths = grow(8, expansions=6)
    assert tree.root.visits == len(paths) == 8
    for node in walk(tree.root):
        if node.children:
            assert node.visits == sum(child.visits for child in node.children)
    for path in paths:
        assert [node.depth for node in path] == list(range(len(path)))
        assert path[-1] in tree.ends


@pytest.mark.parametrize("future", ["mean", "sum"])
@pytest.mark.parametrize("backup", ["max", "mean"])
def test_q_is_the_backup_of_the_rewards_behind_a_node(future, backup):
    tree, paths = grow(8, expansions=6, future=future, backup=backup)
    for node in walk(tree.root):
        if node.parent is None:
            continue
        worths = []
        for path in paths:
            if node in path:
                rewards = [n.reward for n in path[node.depth :]]
                worths.append(sum(rewards) / (len(rewards) if future == "mean" else 1))
        expected = node.reward
        if worths:
            expected = max(worths) if backup == "max" else sum(worths) / len(worths)
        assert tree.q(node) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_a_steps_reward_joins_likelihood_and_value(alpha):
    tree, _ = grow(4, expansions=4, alpha=alpha)
    for node in walk(tree.root):
        if node.parent is None:
            continue
        likelihood = math.exp(float(node.state.log_probs[-1]))  # steps are single tokens
        reward = 1 / (1 + math.exp(-node.state.reward))
        assert node.reward == pytest.approx(likelihood**alpha * reward ** (1 - alpha), rel=1e-9)


def test_selection_follows_uct():
    tree, _ = grow(2, expansions=6, exploration=2.0)
    root = tree.root

    def bound(node):
        value = node.reward if node.visits == 0 else node.highest
        return value + 2.0 * math.sqrt(math.log(root.visits) / max(node.visits, 1))

    live = [child for child in root.children if not child.exhausted]
    chosen = tree._select()
    top = next(node for node in chosen.path() if node.depth == 1)
    assert bound(top) == max(bound(child) for child in live)


def test_exploration_decides_between_the_best_and_the_unseen():
    _, greedy = grow(10, expansions=6, exploration=0.0)
    _, curious = grow(10, expansions=6, exploration=50.0)

    def first_steps(paths):
        return len({id(path[1]) for path in paths})

    assert first_steps(curious) > first_steps(greedy)


def test_an_exhausted_tree_has_seen_the_best_response():
    method = methods.build("rap", **STEPS, expansions=50, iterations=10_000)
    (solution,) = running.run(toy.engine(), method, [toy.PROMPT])
    assert solution.reward == toy.highest()
    tree, _ = grow(10_000, expansions=50)
    assert tree.done
    assert all(node.exhausted for node in walk(tree.root))
    assert {tuple(end.state.tokens.tolist()) for end in tree.ends} == set(toy.responses())


def test_uct_finds_the_best_leaf_before_the_tree_is_exhausted():
    """A reward that grows with every "c": the best response is found on one of the first paths."""

    def reward(prompt, response):
        return 4.0 * response.count("c") - 6.0

    method = methods.build("rap", **STEPS, expansions=30, iterations=3, alpha=0.0)
    (solution,) = running.run(toy.engine(reward), method, [toy.PROMPT])
    assert solution.response == "ccc"


def test_a_finished_tree_gives_way_to_a_fresh_one_under_a_budget():
    method = methods.build("rap", **STEPS, expansions=2)
    (plain,) = running.run(toy.engine(), method, [toy.PROMPT])
    (rich,) = running.run(toy.engine(**toy.calls(200.0)), method, [toy.PROMPT])
    assert plain.candidates <= 2 + 4 + 8 < rich.candidates


def test_aggregation_weighs_answers_by_the_steps_that_lead_to_them():
    method = methods.build("rap", **STEPS, expansions=4, iterations=6, aggregate="text")
    (solution,) = running.run(toy.engine(), method, [toy.PROMPT])
    tree, _ = grow(6, expansions=4)
    weights: dict[str, float] = {}
    answers = {end: toy.LM.decode(end.state.tokens).strip() for end in tree.ends}
    for answer in set(answers.values()) - {""}:
        steps = {node for end, a in answers.items() if a == answer for node in end.path()}
        weights[answer] = sum(node.reward for node in steps)
    assert solution.response.strip() == max(weights, key=weights.__getitem__)
