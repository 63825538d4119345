"""Backtracking and pairs: what they draw, keep and pay."""

from __future__ import annotations

import pytest

from nabla.core.errors import ConfigError, NablaError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.engine.engine import Engine
from nabla.methods.base import methods
from nabla.methods.screened import Writer
from nabla.methods.searches.backtrack import Backtrack
from nabla.methods.searches.pairs import FREE, Pairs
from nabla.rewards.function import FunctionReward
from nabla.rollouts.boundaries.length import Length
from nabla.screens.base import screens
from nabla.testing.tiny import char_tokenizer, tiny_lm, tiny_process_reward
from tests import running

SAMPLING = Sampling(temperature=1.0, max_new_tokens=12)
STEPS = {"sampling": SAMPLING, "boundary": {"name": "length", "tokens": 3}}
TOKENS = char_tokenizer("abcd")
PROMPTS = [Prompt.of(text) for text in ("ab", "cd", "abcd", "dd")]


def engine(**arguments):
    return Engine(tiny_lm(TOKENS), tiny_process_reward(TOKENS), **arguments)


def run(method, prompts=PROMPTS, **arguments):
    found = []
    ready = engine(**arguments)
    method.check(ready)
    for _, outcome in ready.run(method.solve, prompts):
        if isinstance(outcome, NablaError):
            raise outcome
        found.append(outcome)
    return found


SPECS = [
    {"name": "backtrack", "attempts": 6, **STEPS},
    {"name": "backtrack", "attempts": 6, "screen": "value", "move": "minimum", **STEPS},
    {"name": "backtrack", "attempts": 6, "screen": "never", **STEPS},
    {"name": "backtrack", "attempts": 6, "screen": "drop", "move": "surprise", **STEPS},
    {"name": "backtrack", "attempts": 6, "screen": "bound", "move": "value-drop", **STEPS},
    {"name": "pairs", "attempts": 5, "sampling": SAMPLING},
    {"name": "pairs", "attempts": 9, "width": 3, "move": "change-point", "sampling": SAMPLING},
    {"name": "pairs", "attempts": 4, "move": "first-order", "objective": "reward", "sampling": SAMPLING},
    {"name": "pairs", "attempts": 4, "move": "random-direction", "objective": "reward", "sampling": SAMPLING},
    {
        "name": "pairs",
        "attempts": 4,
        "acceptance": "metropolis",
        "move": "uniform-position",
        "sampling": SAMPLING,
    },
]


def label(spec):
    return "-".join(str(spec.get(key, "")) for key in ("name", "screen", "move"))


@pytest.mark.parametrize("spec", SPECS, ids=label)
def test_answers_and_costs_do_not_depend_on_what_else_runs(spec):
    method = methods.build(spec)
    alone = sorted(running.facts(run(method, live=1)))
    assert sorted(running.facts(run(method, live=64))) == alone
    assert sorted(running.facts(run(method, live=64, seed=1))) != alone


@pytest.mark.parametrize("spec", SPECS, ids=label)
def test_the_answer_is_the_best_complete_text(spec):
    for solution in run(methods.build(spec)):
        rewards = [c.reward for c in solution.checkpoints]
        assert rewards == sorted(rewards)
        assert solution.reward == rewards[-1]
        complete = [r.new_reward for r in solution.revisions if r.new_reward is not None]
        if spec["name"] == "pairs":
            assert solution.reward >= max(complete, default=float("-inf"))
        assert solution.candidates >= 2


def test_a_text_is_stopped_at_its_first_bad_step():
    async def script(session):
        (first,) = await session.rollout(SAMPLING, until=Length(3))
        never = Writer(screens.build("never"), Length(3))
        whole = await never.finish(session, first, None)
        values = whole.trajectory.values
        # Just above the first value behind the first step: the text must be stopped there.
        threshold = min(values[:-1]) + 1e-6
        strict = Writer(screens.build("value", threshold=threshold), Length(3))
        again = await strict.finish(session, first, None)
        return whole, again, values, threshold

    found = []

    async def solve(session):
        found.append(await script(session))

    for _, error in engine().run(solve, PROMPTS):
        assert found, error
    for whole, stopped, _, threshold in found:
        assert whole.bad is None
        assert whole.reach == float("inf")
        own = stopped.trajectory.values
        if stopped.bad is not None:
            assert own[stopped.bad] < threshold
            assert all(value >= threshold for value in own[: stopped.bad])
            # Not a step further than the one that holds the bad token.
            assert len(stopped.trajectory) - stopped.bad <= 3


def test_pairs_of_one_text_are_drawn_without_replacement():
    solutions = run(Pairs(attempts=30, patience=30, sampling=SAMPLING))
    for solution in solutions:
        seen, text = set(), None
        for revision in solution.revisions:
            if revision.old_response != text:
                seen, text = set(), revision.old_response
            pair = revision.position, revision.new_token
            assert pair not in seen
            assert revision.new_token != revision.old_token
            seen.add(pair)


def test_an_answer_is_held_at_any_budget():
    from nabla.core.budget import Budget

    for solution in run(Backtrack(**STEPS), budgets=[Budget("calls", (3.0, 200.0))]):
        assert solution.checkpoints
        assert solution.finished or len(solution.tokens) == SAMPLING.max_new_tokens
        assert solution.cost.total.calls >= 200


def test_exact_acceptance_is_refused_where_there_are_no_densities():
    with pytest.raises(ConfigError, match="without replacement"):
        Pairs(acceptance="metropolis-hastings")
    with pytest.raises(ConfigError, match="objective"):
        Pairs(move="first-order")


def test_changes_that_cost_nothing_are_no_end():
    """One token, a reward without a model, and whatever is offered is accepted: a fresh text runs one."""
    method = Pairs(
        acceptance="metropolis", attempts=3, sampling=Sampling(temperature=1.0, max_new_tokens=1)
    )
    reward = FunctionReward(lambda prompt, response: 1.0)
    for _, outcome in Engine(tiny_lm(TOKENS), reward).run(method.solve, PROMPTS[:1]):
        assert isinstance(outcome, Solution)
        assert 3 <= outcome.candidates <= 3 * FREE


def test_a_reward_without_values_is_refused_before_a_run():
    from nabla.rewards.function import FunctionReward

    silent = Engine(tiny_lm(TOKENS), FunctionReward(lambda prompt, response: 0.0))
    with pytest.raises(ConfigError, match="has values at tokens"):
        Backtrack(**STEPS).check(silent)
    with pytest.raises(ConfigError, match="has values at tokens"):
        Pairs(move="change-point").check(silent)
    Pairs().check(silent)


def test_settings_are_written_out_and_build_again():
    from nabla.launch.config.resolve import resolve

    for name in ("backtrack", "pairs", "qalign", "particle-filter"):
        spec = resolve(methods, name)
        assert resolve(methods, spec) == spec
        methods.build(spec)
