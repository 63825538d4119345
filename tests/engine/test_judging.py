"""Scores and readings whose graphs a method may ask for: who keeps them, until when, and what they save."""

from __future__ import annotations

from typing import Any

import pytest

from nabla.core.solution import Solution
from nabla.engine.engine import Engine
from nabla.engine.session import Session
from nabla.methods.base import Method, methods

LIKELY = {"name": "sum", "weights": {"reward": 1.0, "likelihood": 1e-3}}


def solved(
    method: Method, lm: Any, rm: Any, prompts: Any, **engine: Any
) -> tuple[dict[str, Solution], Engine]:
    made = Engine(lm, rm, seed=3, **engine)
    found = {p.id: s for p, s in made.run(method.solve, prompts)}
    for solution in found.values():
        assert isinstance(solution, Solution)
    return found, made  # type: ignore[return-value]


def total(found: dict[str, Solution], name: str) -> int:
    return sum(s.cost.counts.get(name, 0) for s in found.values())


@pytest.mark.parametrize("split", [1.0, 128.0])
def test_the_reasoner_answers_the_same_for_fewer_flops(
    latin_lm: Any, latin_rm: Any, latin_prompts: Any, split: float
) -> None:
    method = methods.build({"name": "nabla-reasoner", "dto": {"objective": LIKELY}})
    plain, _ = solved(method, latin_lm, latin_rm, latin_prompts, split_padding=split)
    kept, engine = solved(method, latin_lm, latin_rm, latin_prompts, split_padding=split, keep_graph=True)
    for name, solution in kept.items():
        assert solution.tokens == plain[name].tokens
        assert solution.reward == pytest.approx(plain[name].reward, abs=1e-4)
        assert solution.cost.total.flops < plain[name].cost.total.flops
    # Every response that is refined was scored with its graph.
    assert 0 < total(kept, "graphs_used") <= total(kept, "graphs_kept")
    assert total(kept, "gradients_computed") == total(plain, "gradients_computed")
    assert engine.workspace.graphs.budget.used == 0
    assert engine.workspace.graphs.budget.peak > 0


@pytest.mark.parametrize(
    "dto",
    [
        {"objective": {"name": "sum", "weights": {"likelihood": 1.0}}},
        {"estimator": "soft-embedding"},
        {"anchor": "argmax"},
        {"estimator": "score-function"},
    ],
    ids=["no reward term", "soft rows", "another text", "values"],
)
def test_no_graph_is_kept_that_nobody_will_ask_for(
    latin_lm: Any, latin_rm: Any, latin_prompts: Any, dto: dict[str, Any]
) -> None:
    method = methods.build({"name": "nabla-reasoner", "dto": {**dto, "steps": 2}, "max_rollouts": 3})
    found, _ = solved(method, latin_lm, latin_rm, latin_prompts[:2], keep_graph=True)
    assert total(found, "graphs_kept") == 0


def test_a_proposal_that_nothing_follows_keeps_no_graph(
    latin_lm: Any, latin_rm: Any, latin_prompts: Any
) -> None:
    method = methods.build({"name": "nabla-reasoner", "max_rollouts": 2})
    found, _ = solved(method, latin_lm, latin_rm, latin_prompts[:4], keep_graph=True)
    assert total(found, "graphs_kept") == len(found)  # the first rollouts'


def test_graphs_of_a_round_stay_until_they_are_dropped(
    latin_lm: Any, latin_rm: Any, latin_prompts: Any
) -> None:
    """Several proposals at once: any of them may be accepted."""
    objective = methods.build("nabla-reasoner").rows.differentiated  # type: ignore[attr-defined]

    async def method(session: Session) -> Any:
        from nabla.core.sampling import Sampling

        (first,) = await session.score(
            await session.rollout(Sampling(temperature=0.7, max_new_tokens=48)), keep_graph=True
        )
        budget = session.workspace.graphs.budget
        one = budget.used
        ids = [t for t in range(4, 9) if t != int(first.tokens[1])]
        proposals = await session.score(
            await session.fork(first.commit(1), [(1, token) for token in ids]), keep_graph=True
        )
        all_of_them = budget.used
        best = max(proposals, key=lambda t: t.reward or 0.0)
        session.drop_graphs(but=[best])
        after = budget.used
        before = session.cost.phases.get("gradient")
        await session.gradient(best, objective)
        spent = session.cost.phases["gradient"]
        assert before is None
        assert spent.forward_passes == 1  # of the language model
        return one, all_of_them, after

    engine = Engine(latin_lm, latin_rm, keep_graph=True, split_padding=1.0)
    found = []

    async def solve(session: Session) -> Solution:
        found.append(await method(session))
        return object()  # type: ignore[return-value]

    list(engine.run(solve, latin_prompts[:1]))
    ((one, all_of_them, after),) = found
    assert all_of_them > one > 0
    assert 0 < after < all_of_them
    assert engine.workspace.graphs.budget.used == 0
