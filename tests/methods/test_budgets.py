"""A budget ends a round where it is; what is read at any budget is what a run to the round's end gives."""

from __future__ import annotations

from typing import Any

import pytest

from nabla.core.budget import Budget
from nabla.core.solution import Solution, answer_within
from nabla.engine.progress import Progress
from nabla.engine.session import Session
from nabla.methods.base import methods
from tests.running import SAMPLING, proposals, rounded, run, tiny_engine

REFINED = {
    "proposal": {"name": "sample", "temperature": 1.5},
    "selector": "all",
    "max_rollouts": None,
    "sampling": SAMPLING,
}
STEPS = {"sampling": SAMPLING, "boundary": {"name": "length", "tokens": 2}}
REQUESTS = {
    "critique_prompt": "{question} {chosen}; {rejected}. assess",
    "revision_prompt": "{question} {chosen}; {critique}. return",
}
#: (method, calls of one proposal at the most: what may come behind the budget).
METHODS: list[tuple[dict[str, Any], int]] = [
    ({"name": "revision", **REFINED}, 11),  # the prompt, seven steps, the states' and the reward's passes
    ({"name": "random-direction", "dto": {"steps": 1}, **REFINED}, 16),
    ({"name": "nabla-reasoner", "dto": {"steps": 2}, **REFINED}, 25),
    ({"name": "coordinate-search", "steps": 6, "batch": 4, "top_k": 4, "sampling": SAMPLING}, 25),
    ({"name": "cold", "steps": 6, "top_k": 4, "sampling": SAMPLING}, 60),
    ({"name": "tpo", "n": 2, "revisions": 3, "sampling": SAMPLING, **REQUESTS}, 40),
    ({"name": "rap", "expansions": 3, **STEPS}, 20),
]
LIMITS = (5.0, 55.0, 83.0)


def solved(spec: dict[str, Any], limit: float) -> list[Solution]:
    return run(tiny_engine(budgets=[Budget("calls", (limit,))]), methods.build(spec))


def answers(solution: Solution, limit: float) -> list[Any]:
    """At every number of calls up to the limit."""
    found = [answer_within(solution.checkpoints, "calls", value) for value in range(1, int(limit) + 1)]
    return [None if c is None else (c.tokens, rounded(c.reward), c.usage.calls) for c in found]


@pytest.mark.parametrize(("spec", "proposal"), METHODS, ids=[spec["name"] for spec, _ in METHODS])
def test_a_round_stops_behind_the_proposal_that_exceeds_the_budget(
    spec: dict[str, Any], proposal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = {limit: solved(spec, limit) for limit in LIMITS}
    monkeypatch.setattr(Progress, "spent", False)  # every round to its end
    saved = 0
    for limit, solutions in cut.items():
        for solution, whole in zip(solutions, solved(spec, limit), strict=True):
            assert answers(solution, limit) == answers(whole, limit)
            assert solution.tokens == solution.checkpoints[-1].tokens
            own, other = solution.cost.total.calls, whole.cost.total.calls
            first = solution.checkpoints[0].usage.calls
            assert limit <= own <= max(limit, first) + proposal
            assert own <= other
            assert proposals(solution) == proposals(whole)[: len(solution.revisions)]
            saved += other - own
    assert saved > 0


def test_without_an_answer_a_method_goes_on_until_it_has_one() -> None:
    for spec, _ in METHODS:
        for solution in run(tiny_engine(budgets=[Budget("calls", (1.0,))]), methods.build(spec)):
            assert len(solution.checkpoints) >= 1
            assert solution.reward is not None
            assert not solution.revisions  # none is begun beyond the budget


@pytest.mark.parametrize("limit", [14.0, 17.0, 20.0, 23.0, 55.0])
def test_what_refining_has_spent_is_not_followed_by_a_proposal(
    limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    fork = Session.fork

    async def noted(session: Session, *arguments: Any, **named: Any) -> Any:
        begun.append(session.cost.total.calls)
        return await fork(session, *arguments, **named)

    monkeypatch.setattr(Session, "fork", noted)
    solved({"name": "nabla-reasoner", "dto": {"steps": 2}, **REFINED}, limit)
    assert all(calls <= limit for calls in begun)
    assert begun or limit < 20
