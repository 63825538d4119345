"""Methods on tiny models: float64, random weights, so that equal means equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nabla.core.budget import Budget
from nabla.core.errors import NablaError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.engine.engine import Engine
from nabla.methods.base import Method
from tests import tiny

#: Responses of up to 8 tokens.
SAMPLING = Sampling(temperature=1.0, max_new_tokens=8)
PROMPTS = [Prompt.of(f"{a}+{b}=", id=f"{a}+{b}") for a, b in ((1, 2), (3, 4), (5, 0))]


def tiny_engine(*, reward: bool = True, **arguments: Any) -> Engine:
    """An engine over a tiny language model and a tiny outcome reward of the same tokens."""
    return Engine(tiny.causal_lm("qwen2"), tiny.outcome("qwen3") if reward else None, **arguments)


def run(engine: Engine, method: Method, prompts: Sequence[Prompt] = PROMPTS) -> list[Solution]:
    """Solutions in the order of the prompts; an error is raised."""
    method.check(engine)
    found: dict[str, Solution] = {}
    for prompt, outcome in engine.run(method.solve, prompts):
        if isinstance(outcome, NablaError):
            raise outcome
        found[prompt.id] = outcome
    return [found[p.id] for p in prompts]


def rounded(value: float | None) -> float | None:
    """A reward without the rounding of the batch that it was computed in."""
    return None if value is None else round(value, 9)


def proposals(solution: Solution) -> list[Any]:
    """What a run proposed and took."""
    return [
        (r.position, r.old_token, r.new_token, r.accepted, r.new_response, rounded(r.new_reward))
        for r in solution.revisions
    ]


def facts(solutions: Sequence[Solution]) -> list[Any]:
    """All that must not depend on what else runs: everything but timings."""
    return [
        (
            s.prompt.id,
            s.tokens,
            rounded(s.reward),
            proposals(s),
            s.revised_positions,
            s.candidates,
            dict(s.cost.counts),
            s.cost.total.calls,
            s.cost.total.critical_steps,
            [(c.tokens, rounded(c.reward), c.usage.calls) for c in s.checkpoints],
        )
        for s in solutions
    ]


def assert_same_alone_and_together(method: Method) -> None:
    """One live problem at a time, or all at once: the same answers, costs and checkpoints."""
    alone = facts(run(tiny_engine(live=1), method))
    assert facts(run(tiny_engine(live=64), method)) == alone
    assert facts(run(tiny_engine(live=64, seed=1), method)) != alone


def assert_anytime(method: Method, calls: tuple[float, ...]) -> list[Solution]:
    """Under a budget of calls the method goes on to its end, with ever better answers on the way."""
    free = run(tiny_engine(), method)
    solutions = run(tiny_engine(budgets=[Budget("calls", calls)]), method)
    for solution, before in zip(solutions, free, strict=True):
        costs = [c.usage.calls for c in solution.checkpoints]
        rewards = [c.reward for c in solution.checkpoints]
        assert costs == sorted(costs)
        assert rewards == sorted(rewards)
        assert solution.cost.total.calls >= calls[-1] > before.cost.total.calls
        assert solution.reward >= before.reward - 1e-9
        assert len(solution.checkpoints) >= len(before.checkpoints)
        assert solution.checkpoints[-1].tokens == solution.tokens
        assert solution.checkpoints[-1].reward == solution.reward
        assert [c.tokens for c in solution.checkpoints[: len(before.checkpoints)]] == [
            c.tokens for c in before.checkpoints
        ]  # the budget only ever adds
    return solutions
