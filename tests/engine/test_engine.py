"""The engine: scheduling, seeding, batching, caching, failures."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from nabla.core.costs import Account, CostMeter
from nabla.core.errors import ComponentError, ConfigError, NablaError, NumericalError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.engine.engine import Engine
from nabla.engine.events import Callback, Events
from nabla.engine.requests import Request
from nabla.engine.scheduler import FullestFirst, Live
from nabla.engine.session import Session
from nabla.methods.base import Method, methods
from nabla.models.body import EMPTY, Chunk
from nabla.models.prefixes import BLOCK
from nabla.objectives.base import TrajectoryObjective, objectives
from nabla.rewards.function import FunctionReward
from nabla.rollouts.boundaries.length import Length
from tests import tiny

SAMPLING = Sampling(temperature=0.7, max_new_tokens=48)


def run(engine, method, prompts):
    return {p.id: s for p, s in engine.run(method.solve, prompts)}


def solve_one(engine, prompt, program):
    """Runs an async function of the session on one prompt."""
    box = {}

    async def method(session: Session) -> Solution:
        box["value"] = await program(session)
        return object()  # type: ignore[return-value]

    ((_, outcome),) = list(engine.run(method, [prompt]))
    if isinstance(outcome, NablaError):
        raise outcome
    return box["value"]


def same(a, b):
    return a.tokens == b.tokens and a.reward == pytest.approx(b.reward, abs=1e-4)


@pytest.mark.parametrize("name", ["best-of-n", "nabla-reasoner"])
def test_results_do_not_depend_on_batching_or_order(latin_lm, latin_rm, latin_prompts, name):
    together = run(Engine(latin_lm, latin_rm, seed=3), methods.build(name), latin_prompts)
    alone = run(Engine(latin_lm, latin_rm, seed=3, live=1, batch_size=1), methods.build(name), latin_prompts)
    backwards = run(Engine(latin_lm, latin_rm, seed=3, live=2), methods.build(name), latin_prompts[::-1])
    for prompt in latin_prompts:
        assert same(together[prompt.id], alone[prompt.id])
        assert same(together[prompt.id], backwards[prompt.id])


def test_the_seed_changes_the_draws(latin_lm, latin_rm, latin_prompts):
    texts = {
        seed: [s.tokens for s in run(Engine(latin_lm, latin_rm, seed=seed), methods.build("best-of-n", n=1),
                                     latin_prompts).values()]
        for seed in (0, 1)
    }
    assert texts[0] != texts[1]


def test_prefix_reuse_and_kept_gradients_change_cost_not_results(latin_lm, latin_rm, latin_prompts):
    fast = run(Engine(latin_lm, latin_rm), methods.build("nabla-reasoner"), latin_prompts)
    slow = run(
        Engine(latin_lm, latin_rm, reuse_prefixes=False, kept_gradients=0),
        methods.build("nabla-reasoner"),
        latin_prompts,
    )
    for key in fast:
        assert same(fast[key], slow[key])
    assert sum(s.cost.total.tokens for s in fast.values()) < sum(s.cost.total.tokens for s in slow.values())
    assert sum(s.cost.total.backward_passes for s in fast.values()) < sum(
        s.cost.total.backward_passes for s in slow.values()
    )


@pytest.mark.parametrize("room", [0, 1])
def test_a_budget_of_one_block_and_of_none_changes_cost_not_results(latin_lm, latin_rm, latin_prompts, room):
    """What gave way is run again and counted: more tokens by as many as were lost."""
    probe = Engine(latin_lm, latin_rm)
    plenty = run(probe, methods.build("nabla-reasoner"), latin_prompts[:2])
    assert probe.workspace.store.used == 0  # every problem has been released
    assert 0 < probe.workspace.store.peak <= probe.workspace.store.budget.limit
    with torch.no_grad():
        chunk = Chunk(EMPTY, latin_lm.body.embed(torch.arange(BLOCK)))
        (output,) = latin_lm.body.run([chunk], keep=True)
    block = BLOCK * sum(group.bytes_per_token for group in output.keys.groups())
    tight = Engine(latin_lm, latin_rm, prefix_bytes=room * block)
    few = run(tight, methods.build("nabla-reasoner"), latin_prompts[:2])
    assert tight.workspace.store.peak <= room * block
    for key, solution in plenty.items():
        assert same(few[key], solution)
        lost = few[key].cost.counts["prefix_tokens_lost"]
        assert "prefix_tokens_lost" not in solution.cost.counts
        assert lost > 0
        assert few[key].cost.total.flops > solution.cost.total.flops
        assert few[key].cost.total.tokens == solution.cost.total.tokens + lost


def test_problems_share_storage_and_no_cost(latin_lm, latin_prompts):
    """Two problems of one text keep its keys once; each pays for what it computes as if it were alone."""
    twins = [replace(latin_prompts[0], id=name) for name in ("a", "b")]
    peaks, costs = [], []
    for prompts in (twins[:1], twins):
        engine = Engine(latin_lm)
        solved = run(engine, methods.build("greedy"), prompts)
        peaks.append(engine.workspace.store.peak)
        costs += [s.cost.total.flops for s in solved.values()]
    assert peaks[0] == peaks[1] > 0
    assert len(set(costs)) == 1


def test_states_of_texts_that_are_read_keep_no_batch_alive(latin_lm, latin_prompts):
    texts = [torch.arange(5), torch.arange(40) % 8]

    async def work(session):
        return await session.read(texts, SAMPLING)

    for trajectory in tiny.drive(Engine(latin_lm), latin_prompts[0], work):
        assert trajectory.hidden.untyped_storage().nbytes() == trajectory.hidden.numel() * 4


@pytest.mark.parametrize("wrong", [-1, True])
def test_a_budget_of_bytes_is_a_number(latin_lm, wrong):
    with pytest.raises(ConfigError, match="prefix_bytes must be a whole number of bytes") as caught:
        Engine(latin_lm, prefix_bytes=wrong)
    assert "0 keeps nothing" in str(caught.value)


def rollout_sizes(engine, monkeypatch):
    """A list that grows by the number of rows of each batch of rollouts."""
    sizes = []
    original = engine.workspace.rollout.generate

    def spy(openings, resources):
        sizes.append(len(openings))
        return original(openings, resources)

    monkeypatch.setattr(engine.workspace.rollout, "generate", spy)
    return sizes


def test_requests_of_live_problems_share_batches(latin_lm, latin_rm, latin_prompts, monkeypatch):
    engine = Engine(latin_lm, latin_rm)
    sizes = rollout_sizes(engine, monkeypatch)
    run(engine, methods.build("greedy"), latin_prompts)
    assert sizes == [len(latin_prompts)]


@pytest.mark.parametrize(
    ("fullest_first", "expected"), [(True, [4, 4, 4, 4, 2]), (False, [4, 2, 2, 2, 2, 2, 2, 2])]
)
def test_problems_out_of_step_fall_back_into_it(
    latin_lm, latin_prompts, monkeypatch, fullest_first, expected
):
    """Every second problem has one rollout more at the start: the others' scores wait or go ahead until
    all roll out together again. The draws are the same as alone."""
    prompts = latin_prompts[:4]
    reward = FunctionReward(lambda prompt, response: 0.0)

    class OutOfStep(Method):
        async def solve(self, session):
            late = session.prompt.id in (prompts[1].id, prompts[3].id)
            for _ in range(2 if late else 1):
                (trajectory,) = await session.rollout(SAMPLING)
            for _ in range(3):
                await session.score([trajectory])
                (trajectory,) = await session.rollout(SAMPLING)
            return self.solution(session, trajectory)

    engine = Engine(latin_lm, reward, fullest_first=fullest_first)
    sizes = rollout_sizes(engine, monkeypatch)
    found = run(engine, OutOfStep(), prompts)
    assert sizes == expected
    alone = run(Engine(latin_lm, reward, live=1), OutOfStep(), prompts)
    assert {i: s.tokens for i, s in found.items()} == {i: s.tokens for i, s in alone.items()}


def test_rollouts_wait_for_everything_else(latin_lm, latin_prompts, monkeypatch):
    """Three of four problems wait for a rollout, the fourth for a score: it comes first, so that all four
    roll out together."""
    prompts = latin_prompts[:4]

    class OneScores(Method):
        async def solve(self, session):
            (trajectory,) = await session.rollout(SAMPLING)
            if session.prompt.id == prompts[2].id:
                await session.score([trajectory])
            (trajectory,) = await session.rollout(SAMPLING)
            return self.solution(session, trajectory)

    engine = Engine(latin_lm, FunctionReward(lambda prompt, response: 0.0))
    sizes = rollout_sizes(engine, monkeypatch)
    run(engine, OneScores(), prompts)
    assert sizes == [4, 4]


def test_live_limits_how_many_problems_are_in_flight(latin_lm, latin_prompts):
    engine = Engine(latin_lm, live=2)
    in_flight, most = 0, 0

    class Counting(Method):
        async def solve(self, session):
            nonlocal in_flight, most
            in_flight += 1
            most = max(most, in_flight)
            (trajectory,) = await session.rollout(SAMPLING)
            in_flight -= 1
            return self.solution(session, trajectory)

    run(engine, Counting(), latin_prompts)
    assert most == 2


def test_gradient_is_computed_once_per_text(latin_lm, latin_rm, latin_prompts):
    engine = Engine(latin_lm, latin_rm)
    objective = objectives.build("sum")

    async def program(session):
        (trajectory,) = await session.rollout(SAMPLING)
        first = await session.gradient(trajectory, objective)
        later = await session.gradient(trajectory.commit(5), objective)
        other = await session.gradient(trajectory, objectives.build("likelihood"))
        return first, later, other, session.cost

    first, later, other, cost = solve_one(engine, latin_prompts[0], program)
    assert later is first
    assert other is not first
    assert cost.counts["gradients_computed"] == 2
    assert cost.counts["gradients_reused"] == 1


def test_a_gradient_that_counts_free_tokens_is_not_kept_for_fewer(latin_lm, latin_rm, latin_prompts):
    """Without a likelihood, too: an objective is what it declares (``additive``)."""

    class PerToken(TrajectoryObjective):
        unit = "reward per free token"
        needs_reward = True

        def value(self, view):
            return -view.reward / len(view.log_likelihood)

    async def program(session):
        (text,) = await session.rollout(SAMPLING)
        first = await session.gradient(text, PerToken())
        later = await session.gradient(text.commit(len(text) // 2), PerToken())
        return len(text), *(next(iter(found.terms.values())).value for found in (first, later))

    length, first, later = solve_one(Engine(latin_lm, latin_rm), latin_prompts[0], program)
    assert later * (length - length // 2) == pytest.approx(first * length, rel=1e-4)


def test_branch_after_eos_or_at_the_limit_rolls_nothing_out(latin_lm, latin_rm, latin_prompts):
    engine = Engine(latin_lm, latin_rm)
    eos = latin_lm.eos_ids[0]

    async def program(session):
        (trajectory,) = await session.rollout(SAMPLING)
        before = session.cost.total.decode_steps
        (ended,) = await session.fork(trajectory, [(3, eos)])
        (short,) = await session.rollout(replace(SAMPLING, max_new_tokens=4))
        middle = session.cost.total.decode_steps
        other = (int(short.tokens[3]) + 1) % 100
        (full,) = await session.fork(short, [(3, other)])
        return trajectory, ended, short, full, before, middle, session.cost.total.decode_steps

    trajectory, ended, short, full, before, middle, after = solve_one(engine, latin_prompts[0], program)
    assert ended.finished
    assert len(ended) == 4
    assert int(ended.tokens[-1]) == eos
    assert torch.equal(ended.tokens[:3], trajectory.tokens[:3])
    assert middle - before == 3  # the short rollout alone
    assert len(short) == len(full) == 4
    assert not full.finished
    assert after == middle


def test_a_branch_within_a_step_halts_at_that_steps_end(latin_lm, latin_prompts):
    boundary = Length(4)

    async def program(session):
        (text,) = await session.rollout(SAMPLING)
        tokens = [int(token) + 1 for token in text.tokens]
        return await session.fork(text, [(i, tokens[i]) for i in range(8)], until=boundary)

    branches = solve_one(Engine(latin_lm), latin_prompts[0], program)
    for i, branch in enumerate(branches):
        begun = i + 1  # the changed token included; a step that it completes is followed by a whole one
        assert branch.finished or len(branch) == begun + 4 - begun % 4


def test_a_branch_knows_the_log_probability_of_its_forced_token(latin_lm, latin_rm, latin_prompts):
    engine = Engine(latin_lm, latin_rm)

    async def program(session):
        (trajectory,) = await session.rollout(SAMPLING)
        (branch,) = await session.fork(trajectory, [(2, int(trajectory.tokens[2]) + 1)])
        return session.prompt_ids, branch

    prompt_ids, branch = solve_one(engine, latin_prompts[0], program)
    ids = torch.cat([prompt_ids, branch.tokens])
    logits = latin_lm.model(input_ids=ids[None]).logits[0, len(prompt_ids) - 1 : -1, : latin_lm.head.usable]
    expected = logits.log_softmax(-1).gather(-1, branch.tokens[:, None])[:, 0]
    torch.testing.assert_close(branch.log_probs, expected, atol=1e-3, rtol=1e-3)


def test_a_known_reward_is_never_scored_again(latin_lm, latin_prompts):
    calls = []

    def reward(prompt, response):
        calls.append(response)
        return 1.0

    async def program(session):
        (trajectory,) = await session.rollout(SAMPLING)
        (scored,) = await session.score([trajectory])
        (again,) = await session.score([scored.commit(3)])
        return scored, again

    scored, again = solve_one(Engine(latin_lm, FunctionReward(reward)), latin_prompts[0], program)
    assert len(calls) == 1
    assert scored.reward == again.reward == 1.0


def test_one_failing_problem_does_not_touch_the_others(latin_lm, latin_prompts):
    bad = latin_prompts[2].text

    def reward(prompt, response):
        return float("nan") if prompt == bad else 0.0

    outcomes = run(Engine(latin_lm, FunctionReward(reward)), methods.build("best-of-n", n=2), latin_prompts)
    failed = [key for key, value in outcomes.items() if isinstance(value, NablaError)]
    assert failed == [latin_prompts[2].id]
    assert isinstance(outcomes[failed[0]], NumericalError)


def test_a_bug_in_a_component_is_wrapped_with_its_cause(latin_lm, latin_prompts):
    class Broken(Method):
        async def solve(self, session):
            raise ZeroDivisionError("oops")

    outcomes = run(Engine(latin_lm), Broken(), latin_prompts[:2])
    for outcome in outcomes.values():
        assert isinstance(outcome, ComponentError)
        assert isinstance(outcome.__cause__, ZeroDivisionError)


def test_without_reward_a_score_request_says_what_to_do(latin_lm, latin_prompts):
    async def program(session):
        (trajectory,) = await session.rollout(SAMPLING)
        return await session.score([trajectory])

    with pytest.raises(ConfigError, match="Pass a reward model"):
        solve_one(Engine(latin_lm), latin_prompts[0], program)


def test_support_keeps_the_rows_own_token_and_reports_what_it_drops(latin_lm, latin_prompts):
    async def program(session):
        (trajectory,) = await session.rollout(replace(SAMPLING, temperature=3.0))
        whole = slice(0, len(trajectory))
        return trajectory, session.reference(trajectory, whole, 4), session.reference(trajectory, whole)

    trajectory, small, full = solve_one(Engine(latin_lm), latin_prompts[0], program)
    assert small.candidates is not None
    own = small.candidates.gather(-1, small.chosen[:, None])[:, 0]
    assert torch.equal(own, trajectory.tokens)
    kept = full.logits.softmax(-1).gather(-1, small.candidates).sum(-1)
    torch.testing.assert_close(small.dropped_mass, 1 - kept, atol=1e-5, rtol=1e-4)
    assert float(full.dropped_mass.max()) == 0


def test_seconds_of_all_phases_and_every_hook_are_counted(latin_lm, latin_rm, latin_prompts):
    heard = []

    class Listening(Callback):
        def on_rollout(self, prompt, trajectory):
            heard.append("rollout")

        def on_select(self, prompt, trajectory, positions):
            heard.append("select")

        def on_commit(self, prompt, trajectory):
            heard.append("commit")

        def on_solution(self, solution):
            heard.append("solution")

    engine = Engine(latin_lm, latin_rm, events=Events([Listening()]))
    (solution,) = run(engine, methods.build("nabla-reasoner"), latin_prompts[:1]).values()
    assert {"rollout", "select", "commit", "solution"} <= set(heard)
    for phase in ("rollout", "reward"):
        assert solution.cost.phases[phase].seconds > 0
        assert solution.cost.phases[phase].flops > 0


def test_released_problems_leave_nothing_in_the_prefix_store(latin_lm, latin_rm, latin_prompts):
    engine = Engine(latin_lm, latin_rm)
    run(engine, methods.build("nabla-reasoner"), latin_prompts)
    assert engine.workspace.store._texts == engine.workspace.store._trees == {}
    assert engine.workspace.store.used == engine.workspace.store.budget.used == 0


def test_an_empty_prompt_and_one_beyond_the_context_fail_alone(latin_lm, latin_prompts):
    long = Prompt.of("1" * 5000, id="long")
    outcomes = run(Engine(latin_lm), methods.build("greedy"), [long, latin_prompts[0]])
    assert "context" in str(outcomes["long"])
    assert not isinstance(outcomes[latin_prompts[0].id], NablaError)


def test_a_second_engine_knows_nothing_of_what_the_first_ones_reward_forbade():
    tok = tiny.tokenizer()
    lm = tiny.causal_lm(tok=tok)
    first = Engine(lm, tiny.outcome(tok=tiny.tokenizer(missing=["y"]), arguments={"minimum_coverage": 0.5}))
    second = Engine(lm, tiny.outcome(tok=tok))
    assert first.lm.head.blocked is not None
    assert second.lm.head.blocked is None
    assert lm.head.blocked is None


def test_two_engines_on_one_model_run_in_turn_as_each_does_alone():
    """Masks, bound rewards and checkpointing belong to an engine, not to the model it shares."""
    tok = tiny.tokenizer()
    lm = tiny.causal_lm(tok=tok)
    shared = tiny.outcome(tok=tok)
    poorer = tiny.outcome(tok=tiny.tokenizer(missing=["y"]), arguments={"minimum_coverage": 0.5})
    prompts = [Prompt.of(f"{i}+2=", id=str(i)) for i in range(4)]
    settings = [(shared, {}), (poorer, {"checkpoint_activations": True}), (shared, {"seed": 3})]

    def method():
        sampling = {"max_new_tokens": 6}
        return methods.build(
            "nabla-reasoner", dto={"steps": 2}, selector="all", sampling=sampling, max_rollouts=3
        ).solve

    def run(reward, arguments):
        return Engine(lm, reward, live=1, **arguments).run(method(), prompts)

    alone = [[s.to_dict() for _, s in run(*setting)] for setting in settings]
    together = [run(*setting) for setting in settings]
    turns = [[next(one)[1].to_dict() for one in together] for _ in prompts]
    for number, expected in enumerate(alone):
        found = [turn[number] for turn in turns]
        for a, b in zip(found, expected, strict=True):
            assert {k: a[k] for k in a if k != "cost"} == {k: b[k] for k in b if k != "cost"}
    assert {t for row in alone[1] for t in row["tokens"]}.isdisjoint({tok.get_vocab()["y"]})


def test_a_method_that_returns_nothing_is_an_error_and_no_hang(latin_lm, latin_prompts):
    class Silent(Method):
        async def solve(self, session):
            return None

    ((_, outcome),) = Engine(latin_lm).run(Silent().solve, latin_prompts[:1])
    assert isinstance(outcome, ComponentError)


def test_a_shorter_limit_extends_nothing(latin_lm, latin_prompts):
    """A response that has as many tokens as the new setting allows is at its end."""

    async def program(session):
        (long,) = await session.rollout(Sampling(temperature=0.7, max_new_tokens=6))
        (same,) = await session.extend([long], sampling=Sampling(max_new_tokens=4))
        (even,) = await session.extend([long], sampling=Sampling(max_new_tokens=6))
        return long, same, even

    long, *others = solve_one(Engine(latin_lm, seed=0), latin_prompts[0], program)
    assert len(long) == 6
    for other in others:
        assert torch.equal(long.tokens, other.tokens)


def test_a_text_never_beats_itself(latin_lm, latin_prompts):
    """Where a reward differs from batch to batch, as half precision makes it, the first value counts."""
    values = iter(range(100))
    reward = FunctionReward(lambda prompt, response: float(next(values)))

    async def program(session):
        first, other = await session.rollout(SAMPLING, 2)
        (one,) = await session.score([first])
        again, new = await session.score([replace(first, committed=1), other])
        return one, again, new

    one, again, new = solve_one(Engine(latin_lm, reward), latin_prompts[0], program)
    assert not torch.equal(one.tokens, new.tokens)
    assert one.reward == again.reward == 0.0
    assert new.reward == 2.0


def test_nobody_starves_however_full_the_others_are():
    """A problem that waits for rollouts, which come last, is served within a bounded number of flushes."""

    def waiting(wanted):
        class Wish(Request):
            kind = wanted

        problem = object.__new__(Live)
        problem.requests, problem.answers = [Wish(Account("p", CostMeter(), "method"))], {}
        problem.passed_over = 0
        return problem

    policy = FullestFirst(patience=5)
    late, others = waiting("rollout"), [waiting("score") for _ in range(9)]
    served = None
    for flush in range(20):
        chosen = policy.choose([*others, late])
        for problem in [*others, late]:
            problem.passed_over = 0 if problem in chosen else problem.passed_over + 1
        if late in chosen:
            served = flush
            break
    assert served == policy.patience
    assert policy.choose([*others, late]) == others  # and then the others again


def test_a_problem_that_takes_a_freed_place_is_served(latin_lm, latin_rm, latin_prompts):
    """One problem that never ends its scoring does not keep those behind it from their first rollout."""
    flushes, written = [0], {}

    class Endless(Method):
        async def solve(self, session):
            (trajectory,) = await session.rollout(SAMPLING)
            written[session.prompt.id] = flushes[0]
            if session.prompt.id != latin_prompts[0].id:
                return self.solution(session, trajectory)
            while len(written) < 4:
                await session.jointly(count, 0)
            return self.solution(session, trajectory)

    def count(tasks):
        flushes[0] += 1
        return tasks

    engine = Engine(latin_lm, latin_rm, live=2)
    engine.scheduler.policy = FullestFirst(patience=7)
    solved = list(engine.run(Endless().solve, latin_prompts[:4]))
    assert all(isinstance(solution, Solution) for _, solution in solved)
    gaps = [b - a for a, b in pairwise(sorted(written.values()))]
    assert max(gaps) <= 8


def test_a_pool_that_no_machine_holds_is_refused_at_once(latin_lm, latin_prompts):
    method = methods.build("sampling").solve

    async def many(session):
        await session.rollout(Sampling(max_new_tokens=2), 10**10)
        return await method(session)

    ((_, outcome),) = Engine(latin_lm).run(many, latin_prompts[:1])
    assert isinstance(outcome, ConfigError)
    assert "100,000 responses at once" in str(outcome)
