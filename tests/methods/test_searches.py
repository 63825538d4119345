"""What all methods by sampling and by search keep to."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import pytest

from nabla.core.errors import ConfigError
from nabla.core.sampling import Sampling
from nabla.core.solution import answer_within
from nabla.engine.engine import Engine
from nabla.engine.events import Callback, Events
from nabla.launch.config.resolve import resolve
from nabla.methods.base import methods
from tests import running, toy
from tests.running import PROMPTS, SAMPLING

STEPS = {"sampling": SAMPLING, "boundary": {"name": "length", "tokens": 3}}
SEARCHES = [
    {"name": "beam-search", "beams": 2, "expansions": 2, **STEPS},
    {"name": "dvts", "trees": 2, "expansions": 2, **STEPS},
    {"name": "tree-of-thoughts", "thoughts": 3, **STEPS},
    {"name": "tree-of-thoughts", "order": "dfs", "thoughts": 2, "max_expansions": 6, **STEPS},
    {"name": "rap", "expansions": 2, "iterations": 3, **STEPS},
]
RANKED = [{"name": "best-of-n", "n": 4, "sampling": SAMPLING}, *SEARCHES]
ALL = [
    {"name": "sampling", "sampling": SAMPLING},
    {"name": "self-consistency", "n": 4, "sampling": SAMPLING},
    {"name": "best-of-n", "n": 4, "sampling": SAMPLING, "answers": "text"},
    {"name": "rap", "expansions": 2, "iterations": 3, "aggregate": "text", **STEPS},
    *RANKED,
]


def label(spec):
    return "-".join(str(spec[key]) for key in ("name", "order", "answers", "aggregate") if key in spec)


@pytest.mark.parametrize("spec", ALL, ids=label)
def test_answers_and_costs_do_not_depend_on_what_else_runs(spec):
    running.assert_same_alone_and_together(methods.build(spec))


@pytest.mark.parametrize("spec", ALL, ids=label)
def test_the_shipped_models_give_the_same_alone_and_together(spec, latin_lm, latin_rm, latin_prompts):
    sampling = Sampling(temperature=0.7, max_new_tokens=48)
    changed = {**spec, "sampling": sampling}
    if "boundary" in spec:
        changed["boundary"] = {"name": "regex", "pattern": "/"}
    found = [
        running.run(Engine(latin_lm, latin_rm, live=live), methods.build(changed), latin_prompts[:3])
        for live in (1, 64)
    ]
    assert [s.tokens for s in found[0]] == [s.tokens for s in found[1]]


@pytest.mark.parametrize("spec", ALL[1:], ids=label)
def test_a_method_runs_until_its_budget_is_spent_and_answers_on_the_way(spec):
    method, limits = methods.build(spec), (80.0, 200.0)
    plain = running.run(running.tiny_engine(), method)
    solutions = running.run(running.tiny_engine(**toy.calls(*limits)), method)
    lower = running.run(running.tiny_engine(**toy.calls(limits[0])), method)
    for solution, before, early in zip(solutions, plain, lower, strict=True):
        spent = [c.usage.calls for c in solution.checkpoints]
        assert spent == sorted(spent)
        assert solution.cost.total.calls >= limits[1]
        # At most one more round: a search, or a quarter of the pool.
        assert solution.cost.total.calls <= 1.4 * limits[1] + before.cost.total.calls
        assert answer_within(solution.checkpoints, "calls", limits[1]) is not None
        first = [c for c in solution.checkpoints if c.usage.calls <= limits[0]]
        assert [c.tokens for c in early.checkpoints[: len(first)]] == [c.tokens for c in first]
        if spec in RANKED:
            rewards = [c.reward for c in solution.checkpoints]
            assert rewards == sorted(rewards)
            assert solution.reward == rewards[-1]


@pytest.mark.parametrize("spec", SEARCHES, ids=label)
def test_searches_start_narrow_under_a_budget_and_widen(spec):
    wide = {k: 4 for k in ("expansions", "thoughts") if k in spec}
    engine = running.tiny_engine(continuous=False, **toy.calls(1000.0))  # rollouts in the batches asked for
    first_steps = []
    rollouts = engine.workspace.handlers["rollout"]

    def watched(requests):
        begins = all(len(r.opening.response) == 0 for r in requests)
        first_steps.append(len(requests) if begins else 0)
        return rollouts(requests)

    engine.workspace.handlers["rollout"] = watched
    running.run(engine, methods.build({**spec, **wide}), PROMPTS[:1])
    full = 8 if spec["name"] == "beam-search" else 4
    assert first_steps[0] == 2
    assert 4 in first_steps[1:4]  # one narrow search, of at most three steps
    assert full in first_steps
    first_steps.clear()
    engine.workspace.budgets = ()
    running.run(engine, methods.build({**spec, **wide}), PROMPTS[:1])
    assert [n for n in first_steps if n] == [8 if spec["name"] in ("beam-search", "dvts") else 4]


@pytest.mark.parametrize("spec", RANKED, ids=label)
def test_a_larger_budget_never_lowers_the_reward(spec):
    method = methods.build(spec)
    found = [running.run(running.tiny_engine(**toy.calls(limit)), method) for limit in (60.0, 240.0)]
    for small, large in zip(*found, strict=True):
        assert large.reward >= small.reward
    assert any(large.reward > small.reward for small, large in zip(*found, strict=True))


@pytest.mark.parametrize("spec", SEARCHES, ids=label)
def test_a_budget_below_one_answer_still_gives_a_complete_one(spec):
    (solution,) = running.run(running.tiny_engine(**toy.calls(1.0)), methods.build(spec), PROMPTS[:1])
    assert solution.finished or len(solution.tokens) == SAMPLING.max_new_tokens
    assert solution.reward is not None


@pytest.mark.parametrize("spec", SEARCHES, ids=label)
@pytest.mark.parametrize("boundary", [{"name": "length", "tokens": 2}, {"name": "regex", "pattern": "[s1]"}])
def test_at_temperature_zero_every_search_writes_the_greedy_response(spec, boundary):
    greedy = running.run(running.tiny_engine(), methods.build("greedy", max_new_tokens=12))
    changes = {"sampling": Sampling(temperature=0.0, max_new_tokens=12), "boundary": boundary}
    solutions = running.run(running.tiny_engine(), methods.build({**spec, **changes}))
    assert [s.tokens for s in solutions] == [s.tokens for s in greedy]


PRUNING = [
    *[spec for spec in SEARCHES if spec["name"] != "rap"],  # which leaves no branch for good
    {"name": "particle-filter", "particles": 3, **STEPS},
]


@pytest.mark.parametrize("spec", PRUNING, ids=label)
def test_a_search_says_from_which_texts_it_goes_on(spec):
    class Heard(Callback):
        steps: ClassVar[list] = []

        def on_prune(self, prompt, kept, dropped):
            self.steps.append([[tuple(t.tokens.tolist()) for t in texts] for texts in (kept, dropped)])
            assert all(t.reward is not None for t in (*kept, *dropped))

    plain = running.run(running.tiny_engine(), methods.build(spec), PROMPTS[:1])
    heard = running.run(running.tiny_engine(events=Events([Heard()])), methods.build(spec), PROMPTS[:1])
    assert running.facts(plain) == running.facts(heard)
    dfs = spec.get("order") == "dfs"  # goes back to what it has left for later
    assert any(dropped for _, dropped in Heard.steps) or dfs
    for (kept, dropped), (later, others) in pairwise(Heard.steps):
        assert not {*kept} & {*dropped}
        assert len({*kept}) == len(kept)
        if not dfs:  # all that comes next comes from what was kept
            assert all(any(text[: len(k)] == k for k in kept) for text in (*later, *others))


@pytest.mark.parametrize("spec", RANKED, ids=label)
def test_no_text_is_scored_twice(spec):
    reward = toy.Counted()
    changes = {"sampling": toy.FLAT}
    if "boundary" in spec:
        changes["boundary"] = toy.SINGLE
    engine = toy.engine(reward, **toy.calls(150.0))
    written = []
    score = engine.workspace.handlers["score"]

    def watched(requests):
        written.extend(tuple(r.response.tokens.tolist()) for r in requests)
        return score(requests)

    engine.workspace.handlers["score"] = watched
    running.run(engine, methods.build({**spec, **changes}), [toy.PROMPT])
    assert len(written) == len(set(written)) == len(reward.seen) > 5


@pytest.mark.parametrize("spec", RANKED, ids=label)
def test_a_missing_reward_is_found_before_any_rollout(spec):
    with pytest.raises(ConfigError, match="there is none"):
        methods.build(spec).check(running.tiny_engine(reward=False))


@pytest.mark.parametrize("name", ["beam-search", "dvts", "tree-of-thoughts", "rap"])
def test_the_last_step_that_is_allowed_runs_to_the_end(name):
    arguments = {"sampling": SAMPLING, "boundary": toy.SINGLE}
    (short,) = running.run(
        running.tiny_engine(), methods.build(name, max_steps=2, **arguments), PROMPTS[:1]
    )
    assert short.finished or len(short.tokens) == SAMPLING.max_new_tokens
    (whole,) = running.run(
        running.tiny_engine(), methods.build(name, max_steps=1, **arguments), PROMPTS[:1]
    )
    count = {"tree-of-thoughts": 4, "rap": 4}.get(name, 8)
    pool = running.run(
        running.tiny_engine(), methods.build("best-of-n", n=count, sampling=SAMPLING), PROMPTS[:1]
    )
    assert (whole.tokens, whole.reward) == (pool[0].tokens, pool[0].reward)  # one step: best-of-N


@pytest.mark.parametrize("spec", ALL, ids=label)
def test_settings_resolve_to_themselves(spec):
    plain = {k: v for k, v in spec.items() if k != "sampling"}
    resolved = resolve(methods, plain)
    assert resolve(methods, resolved) == resolved
    methods.build(resolved)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "self-consistency", "n": 0}, "n must be at least 1"),
        ({"name": "best-of-n", "weight": "cubic"}, "weight"),
        ({"name": "beam-search", "beams": 0}, "beams must be at least 1"),
        ({"name": "dvts", "trees": 0}, "trees must be at least 1"),
        ({"name": "tree-of-thoughts", "order": "astar"}, "order"),
        ({"name": "tree-of-thoughts", "max_steps": 0}, "max_steps must be at least 1"),
        ({"name": "rap", "alpha": 1.5}, "alpha"),
        ({"name": "rap", "exploration": -1.0}, "exploration"),
        ({"name": "rap", "future": "min"}, "future|value of a path"),
        ({"name": "rap", "backup": "median"}, "backup"),
        ({"name": "rap", "boundary": "newlines"}, "Did you mean 'newline'"),
    ],
)
def test_bad_arguments_say_what_to_do(spec, message):
    with pytest.raises(ConfigError, match=message):
        methods.build(spec)
