"""Rollouts that are written elsewhere: the same answers whoever is answered first, and nobody waits idly."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import torch

from nabla.core.costs import Usage
from nabla.core.errors import ComponentError, ConfigError, NablaError, ServerError
from nabla.core.prompt import Prompt
from nabla.core.random import derive_key
from nabla.core.sampling import Sampling
from nabla.engine.engine import Engine
from nabla.engine.requests import RolloutRequest, ScoreRequest, Wait
from nabla.engine.scheduler import Scheduler
from nabla.methods.base import Method, methods
from nabla.models.runner import Runner
from nabla.objectives.base import objectives
from nabla.rewards.base import Response
from nabla.rewards.function import FunctionReward
from nabla.rollouts.base import Continuation, Opening, Resources, Rollout
from nabla.rollouts.huggingface import HuggingFaceRollout
from nabla.schedulers.base import Step
from tests import tiny
from tests.running import PROMPTS, SAMPLING, proposals, rounded, run

LM, RM = tiny.causal_lm("qwen2"), tiny.outcome("qwen3")


class Elsewhere(Rollout):
    """Writes what the local rollout writes, late, and tells tokens and log-probabilities alone.

    Args:
        delay: key of an opening → seconds that it takes.
        change: what comes back instead.
    """

    remote = True

    def __init__(self, delay=lambda key: 0.0, change=lambda found: found):
        self.delay, self.change = delay, change

    async def generate(self, openings, resources):
        assert resources.lm is None or resources.lm.model is LM.model
        own = Resources(LM.vocabulary, Runner(), LM)
        (found,) = await HuggingFaceRollout().generate([replace(o, until=None) for o in openings], own)
        await asyncio.sleep(self.delay(openings[0].key))
        return [self.change(replace(found, states=None, keyed=False))]


def facts(solutions):
    """All but costs: a step that was written to its end elsewhere cost more than one that was not."""
    rows = []
    for s in solutions:
        judged = rounded(s.reward), s.finished, s.candidates, [rounded(c.reward) for c in s.checkpoints]
        rows.append((s.prompt.id, s.tokens, judged, proposals(s), s.revised_positions))
    return rows


def shuffled(key):
    """Delays that have nothing to do with the order of requests."""
    return derive_key("delay", key) % 30 / 1000


WRITING = ("greedy", "sampling", "self-consistency", "best-of-n", "beam-search", "dvts", "rap")
STEPS = {"name": "length", "tokens": 3}


def build(name, **arguments):
    """A registered method on short texts."""
    if name == "greedy":
        return methods.build(name, max_new_tokens=8)
    if name in ("beam-search", "dvts", "rap"):
        arguments["boundary"] = STEPS
    return methods.build(name, sampling=SAMPLING, **arguments)


@pytest.mark.parametrize("name", WRITING)
def test_a_vocabulary_is_enough_for_what_only_writes_and_scores(name):
    method = build(name)
    expected = facts(run(Engine(LM, RM), method))
    assert facts(run(Engine(LM.vocabulary, RM, rollout=Elsewhere()), method)) == expected
    assert facts(run(Engine(LM.vocabulary, RM, rollout=Elsewhere(shuffled), live=2), method)) == expected


REFINING = {
    "nabla-reasoner": {"dto": {"steps": 2}, "selector": "all", "acceptance": "always"},
    "revision": {"rounds": 2},
    "cold": {"steps": 2, "proposal": "argmax"},
    "coordinate-search": {"steps": 2, "batch": 4},
}


@pytest.mark.parametrize("name", REFINING)
def test_states_of_what_was_written_elsewhere_are_read_here(name):
    """Refinement goes on from texts of a server as from its own: the same proposals, and reads to pay for."""
    method = build(name, **REFINING[name])
    local = run(Engine(LM, RM), method)
    served = run(Engine(LM, RM, rollout=Elsewhere(shuffled)), method)
    assert facts(served) == facts(local)
    for here, there in zip(local, served, strict=True):
        reads = there.cost.total.forward_passes - here.cost.total.forward_passes
        assert reads > 0


def test_gradients_values_and_states_of_a_text_without_states():
    objective = objectives.build("sum")

    async def program(session):
        (t,) = await session.rollout(SAMPLING)
        known = t.states is not None
        (read,) = await session.states([t])
        gradient = await session.gradient(t, objective)
        values = await session.values(t, objective, [t.tokens])
        norms = await session.gradient_norms(t, objective)
        (fork,) = await session.fork(t, [(1, (int(t.tokens[1]) + 1) % 20)])
        (fork,) = await session.states([fork])
        total = gradient.total(objective.terms(), Step()).direct
        return known, read, total, values, norms, fork, t

    known, read, total, values, norms, fork, _ = tiny.drive(Engine(LM, RM), PROMPTS[0], program)
    other = tiny.drive(Engine(LM, RM, rollout=Elsewhere()), PROMPTS[0], program)
    assert (known, other[0]) == (True, False)
    assert other[6].noise_keys is None
    for a, b in ((read, other[1]), (fork, other[5])):
        assert a.tokens.tolist() == b.tokens.tolist()
        for name in ("hidden", "entropy", "top1", "log_probs"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name), atol=1e-9, rtol=1e-9)
    for name in values:
        assert values[name] == pytest.approx(other[3][name], abs=1e-9)
    for a, b in zip(norms, other[4], strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(total, other[2], atol=1e-9, rtol=1e-9)


def test_unknown_log_probabilities_are_not_a_number_until_they_are_read():
    def silent(found):
        return replace(found, log_probs=torch.full_like(found.log_probs, float("nan")))

    async def program(session):
        (t,) = await session.rollout(SAMPLING)
        (forked,) = await session.fork(t, [(1, (int(t.tokens[1]) + 1) % 20)])
        return t, forked, *(await session.states([t, forked]))

    engine = Engine(LM, RM, rollout=Elsewhere(change=silent))
    t, forked, *read = tiny.drive(engine, PROMPTS[0], program)
    assert t.log_probs.isnan().all()
    assert t.log_likelihood != t.log_likelihood
    assert forked.log_probs.isnan().all()
    for known in read:
        expected = tiny.trajectory(LM, PROMPTS[0], known.tokens)
        torch.testing.assert_close(known.log_probs, expected.log_probs, atol=1e-9, rtol=1e-9)
    silent_engine = Engine(LM.vocabulary, RM, rollout=Elsewhere(change=silent))
    with pytest.raises(ConfigError, match="RAP weighs steps by their likelihood"):
        run(silent_engine, build("rap"))
    assert run(silent_engine, build("best-of-n"))


def test_a_fork_of_a_known_row_knows_the_log_probability_of_its_token_elsewhere_too():
    async def program(session):
        (t,) = await session.rollout(SAMPLING)
        (t,) = await session.states([t])
        (forked,) = await session.fork(t, [(2, 5 if int(t.tokens[2]) == 6 else 6)])
        return forked

    forked = tiny.drive(Engine(LM, rollout=Elsewhere()), PROMPTS[0], program)
    assert forked.states is None  # the tail's are not known
    expected = tiny.trajectory(LM, PROMPTS[0], forked.tokens)
    torch.testing.assert_close(forked.log_probs, expected.log_probs, atol=1e-8, rtol=1e-8)


def test_a_coupled_proposal_says_that_it_cannot():
    method = methods.build(
        "revision", proposal="coupled", selector="all", acceptance="always", sampling=SAMPLING
    )
    with pytest.raises(ConfigError, match="drawn elsewhere"):
        run(Engine(LM, RM, rollout=Elsewhere()), method)


# -- what runs when ---------------------------------------------------------------------------------


class Held(Elsewhere):
    """The rollouts of one problem come back only when they are released."""

    def __init__(self, problem):
        super().__init__()
        self.problem, self.release, self.begun = problem, threading.Event(), threading.Event()
        self.cancelled = False

    async def generate(self, openings, resources):
        if openings[0].account.problem == self.problem:
            self.begun.set()
            try:
                while not self.release.is_set():
                    await asyncio.sleep(0.001)
            except asyncio.CancelledError:
                self.cancelled = True
                raise
        return await super().generate(openings, resources)


def test_local_batches_run_while_rollouts_are_away():
    """One problem's rollout comes back only after the other problems have been scored."""
    rollout, scored = Held(PROMPTS[0].id), []

    def reward(prompt, response):
        scored.append(prompt)
        if len(scored) == 4:  # two problems with two responses each
            assert not rollout.release.is_set()
            rollout.release.set()
        return float(len(response))

    engine = Engine(LM.vocabulary, FunctionReward(reward), rollout=rollout)
    method = methods.build("best-of-n", n=2, sampling=SAMPLING)
    order = [prompt.id for prompt, _ in engine.run(method.solve, PROMPTS)]
    assert order[-1] == PROMPTS[0].id
    assert set(scored[:4]) == {p.text for p in PROMPTS[1:]}


def test_gradients_run_while_rollouts_are_away():
    """The other problem is refined to its end; only then is the first one answered."""
    rollout = Held(PROMPTS[0].id)
    method = build("nabla-reasoner", dto={"steps": 2}, selector="all")
    order = []
    for prompt, solution in Engine(LM, RM, rollout=rollout).run(method.solve, PROMPTS[:2]):
        order.append(prompt.id)
        assert solution.cost.total.backward_passes > 0
        rollout.release.set()
    assert order == [PROMPTS[1].id, PROMPTS[0].id]


def test_a_new_problem_takes_the_place_of_one_that_is_done():
    rollout = Held(PROMPTS[0].id)
    engine = Engine(LM.vocabulary, rollout=rollout, live=2)
    seen = []
    for prompt, _ in engine.run(build("sampling").solve, PROMPTS):
        seen.append(prompt.id)
        if len(seen) == 2:
            rollout.release.set()
    assert seen == [PROMPTS[1].id, PROMPTS[2].id, PROMPTS[0].id]


def test_closing_the_run_cancels_what_is_away():
    rollout = Held(PROMPTS[0].id)
    before = threading.active_count()
    found = Engine(LM.vocabulary, rollout=rollout).run(build("sampling").solve, PROMPTS)
    assert next(found)[0].id != PROMPTS[0].id
    assert rollout.begun.wait(10)
    found.close()
    assert rollout.cancelled
    assert threading.active_count() == before


def test_an_error_of_the_caller_cancels_too():
    rollout = Held(PROMPTS[0].id)
    before = threading.active_count()

    def interrupted():
        for _ in Engine(LM.vocabulary, rollout=rollout).run(build("sampling").solve, PROMPTS):
            assert rollout.begun.wait(10)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    gc.collect()
    assert rollout.cancelled
    assert threading.active_count() == before


def test_requests_of_several_kinds_are_answered_together():
    """A wait for a rollout and a score at once: both answers, in their order."""
    async def program(session):
        (t,) = await session.rollout(SAMPLING)
        account = session.account("rollout")
        opening = Opening(session.prompt_ids, t.tokens[:0], SAMPLING, 5, account)
        score = ScoreRequest(account, Response(session.prompt, t.tokens, account))
        return await Wait([score, RolloutRequest(account, opening), score])

    first, text, last = tiny.drive(Engine(LM.vocabulary, RM, rollout=Elsewhere()), PROMPTS[0], program)
    assert first.value == pytest.approx(last.value, abs=1e-9)
    assert isinstance(text, Continuation)


# -- connections -------------------------------------------------------------------------------------


class Connected(Elsewhere):
    """Keeps a log of its connection."""

    def __init__(self, fail=""):
        super().__init__()
        self.log, self.fail = [], fail

    @asynccontextmanager
    async def connect(self):
        self.log.append("open")
        if self.fail == "open":
            raise OSError("no socket")
        yield "the line"
        self.log.append("closed")
        if self.fail == "close":
            raise OSError("still busy")

    async def generate(self, openings, resources):
        self.log.append(resources.connection)
        return await super().generate(openings, resources)


def test_a_connection_is_open_for_the_length_of_a_run():
    rollout = Connected()
    engine = Engine(LM.vocabulary, rollout=rollout)
    for _ in range(2):
        run(engine, build("sampling"))
        assert rollout.log == ["open", *["the line"] * len(PROMPTS), "closed"]
        rollout.log.clear()


def test_a_connection_that_fails_ends_the_run_with_its_cause():
    with pytest.raises(ComponentError, match="Connecting Connected failed with OSError: no socket"):
        run(Engine(LM.vocabulary, rollout=Connected("open")), build("sampling"))


def test_a_connection_that_does_not_close_is_a_warning(caplog):
    assert run(Engine(LM.vocabulary, rollout=Connected("close")), build("sampling"))
    assert "still busy" in caplog.text


# -- errors -------------------------------------------------------------------------------------------


class Failing(Elsewhere):
    """Fails for one problem."""

    def __init__(self, error):
        super().__init__(shuffled)
        self.error = error

    async def generate(self, openings, resources):
        if openings[0].account.problem == PROMPTS[1].id:
            if isinstance(self.error, ServerError):
                return [self.error]
            raise self.error
        return await super().generate(openings, resources)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ServerError("Too busy"), ServerError),
        (ConfigError("No such model"), ConfigError),
        (ZeroDivisionError("oops"), ComponentError),
        (asyncio.CancelledError("its own"), ComponentError),
    ],
)
def test_an_error_is_its_problems_alone(error, kind):
    method = build("best-of-n")
    alone = {s.prompt.id: s for s in run(Engine(LM, RM), method)}
    engine = Engine(LM.vocabulary, RM, rollout=Failing(error))
    outcomes = {prompt.id: outcome for prompt, outcome in engine.run(method.solve, PROMPTS)}
    failed = outcomes.pop(PROMPTS[1].id)
    assert type(failed) is kind
    if kind is ComponentError:
        assert type(failed.__cause__) is type(error)
    assert failed.cost.phases["rollout"].seconds > 0
    for name, solution in outcomes.items():
        assert solution.tokens == alone[name].tokens


def cut(found, tokens, **changes):
    tokens = torch.tensor(tokens)
    return replace(found, tokens=tokens, log_probs=torch.zeros(len(tokens)), finished=False, **changes)


END = tiny.TOKENS.index(tiny.END)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: cut(f, [5, 500]), "ids that the vocabulary does not have .got 500"),
        (lambda f: cut(f, [5, -1]), "ids that the vocabulary does not have .got -1"),
        (lambda f: replace(f, tokens=f.tokens[:0], log_probs=f.log_probs[:0]), "than 1 to 8 .got 0"),
        (lambda f: cut(f, [5] * 9), "than 1 to 8 .got 9"),
        (lambda f: cut(f, [5, END]), "an end of sequence that is not its end"),
        (lambda f: replace(cut(f, [5, 5]), finished=True), "an end of sequence that is not its end"),
        (lambda f: replace(cut(f, [END, 5, END]), finished=True), "an end of sequence that is not its end"),
        (lambda f: replace(cut(f, [5, 5]), log_probs=torch.tensor([0.0, 2.0])), "log-probabilities that are"),
    ],
)
def test_what_cannot_be_right_is_an_error(change, message):
    engine = Engine(LM.vocabulary, rollout=Elsewhere(change=change))
    with pytest.raises(ServerError, match=message):
        run(engine, build("sampling"))


def test_a_token_that_the_reward_cannot_read_is_an_error():
    tok = tiny.tokenizer(missing=["y"])
    reward = tiny.outcome(tok=tok, arguments={"minimum_coverage": 0.5})
    missing = tiny.TOKENS.index("y")
    for lm in (LM, LM.vocabulary):
        engine = Engine(lm, reward, rollout=Elsewhere(change=lambda f: cut(f, [5, missing])))
        with pytest.raises(ServerError, match=f"the reward model does not have .got {missing}"):
            run(engine, build("best-of-n"))


class Undeclared(Rollout):
    """Waits, and does not say so."""

    def __init__(self, wait):
        self.wait = wait

    async def generate(self, openings, resources):
        await self.wait()
        return []


@pytest.mark.parametrize("wait", [lambda: asyncio.sleep(0), lambda: asyncio.sleep(0.01)])
def test_a_rollout_that_waits_and_is_not_declared_remote(wait):
    with pytest.raises(ConfigError, match=r"not declared remote .got 'Undeclared'.. Set remote = True"):
        run(Engine(LM, rollout=Undeclared(wait)), build("sampling"))


def test_another_runtime_error_stays_what_it_is():
    async def broken():
        raise RuntimeError("shapes differ")

    with pytest.raises(ComponentError, match="shapes differ"):
        run(Engine(LM, rollout=Undeclared(broken)), build("sampling"))


# -- what needs weights ---------------------------------------------------------------------------------


def test_a_local_rollout_needs_a_language_model():
    with pytest.raises(ConfigError, match="'huggingface' writes in this process: a local language model"):
        Engine(LM.vocabulary, RM)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nabla-reasoner", "A sweep proposes tokens"),
        ("revision", "A sweep proposes tokens"),
        ("cold", "COLD moves"),
        ("coordinate-search", "Coordinate search chooses"),
        ("tpo", "TPO reads"),
    ],
)
def test_methods_that_need_weights_say_so_before_they_run(name, message):
    engine = Engine(LM.vocabulary, RM, rollout=Elsewhere())
    with pytest.raises(ConfigError, match=f"{message}.*a local language model is needed"):
        methods.build(name).check(engine)


@pytest.mark.parametrize("call", ["states", "read", "gradient", "values", "reference", "norms"])
def test_what_a_session_does_with_weights_is_a_clear_error_without_them(call):
    objective = objectives.build("sum")

    async def program(session):
        (t,) = await session.rollout(SAMPLING)
        if call == "states":
            await session.states([t])
        elif call == "read":
            await session.read([t.tokens], SAMPLING)
        elif call == "gradient":
            await session.gradient(t, objective)
        elif call == "values":
            await session.values(t, objective, [t.tokens])
        elif call == "norms":
            await session.gradient_norms(t, objective)
        else:
            session.reference(t, slice(0, 1))

    engine = Engine(LM.vocabulary, RM, rollout=Elsewhere())
    with pytest.raises(ConfigError, match="a local language model is needed"):
        tiny.drive(engine, PROMPTS[0], program)
    with pytest.raises(ConfigError, match="Gradients go through the language model"):
        engine.workspace.gradients  # noqa: B018


def test_a_fork_needs_no_weights():
    async def program(session):
        (t,) = await session.rollout(SAMPLING)
        return t, *(await session.fork(t, [(1, 9), (2, 9)]))

    t, *forks = tiny.drive(Engine(LM.vocabulary, rollout=Elsewhere()), PROMPTS[0], program)
    for position, fork in zip((1, 2), forks, strict=True):
        assert fork.tokens[: position + 1].tolist() == [*t.tokens[:position].tolist(), 9]
        assert fork.log_probs.isnan().tolist() == [i == position for i in range(len(fork))]


# -- costs ------------------------------------------------------------------------------------------------


class Counted(Rollout):
    """Three fixed tokens after half a second."""

    remote = True

    async def generate(self, openings, resources):
        await asyncio.sleep(0.5)
        (opening,) = openings
        opening.account.meter.add(opening.account.phase, Usage(decode_steps=3, tokens=3, flops=7.0))
        return [Continuation(torch.tensor([5, 6, 7]), False, torch.zeros(3), keyed=False)]


class Three(Method):
    """Three responses of the length of what is written elsewhere."""

    async def solve(self, session):
        (t, *_) = await session.rollout(Sampling(max_new_tokens=3), n=3)
        return self.solution(session, t)


def test_a_problem_pays_for_what_was_written_and_for_the_time_until_its_last_answer():
    solutions = run(Engine(LM.vocabulary, rollout=Counted()), Three())
    for solution in solutions:
        usage = solution.cost.phases["rollout"]
        assert (usage.decode_steps, usage.tokens, usage.flops, usage.calls) == (9, 9, 21.0, 9)
        assert 0.5 <= usage.seconds < 1.4  # three answers at once, not one after the other
    assert [s.tokens for s in solutions] == [(5, 6, 7)] * 3


def test_who_has_nothing_to_do_sleeps(monkeypatch):
    """Half a second for each problem would be thousands of rounds of looking."""
    rounds, flush = [], Scheduler._flush
    monkeypatch.setattr(Scheduler, "_flush", lambda self, here: rounds.append(len(here)) or flush(self, here))
    run(Engine(LM.vocabulary, rollout=Counted()), Three())
    assert len(rounds) <= len(PROMPTS)
    assert not any(rounds)


def test_prompts_that_cannot_be_asked_fail_alone():
    long = Prompt.of("1" * 5000, id="long")
    engine = Engine(LM.vocabulary, rollout=Elsewhere())
    outcomes = {p.id: o for p, o in engine.run(build("sampling").solve, [long, *PROMPTS])}
    assert "context" in str(outcomes.pop("long"))
    assert not any(isinstance(outcome, NablaError) for outcome in outcomes.values())
