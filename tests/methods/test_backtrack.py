"""Backtracking and pairs: what they draw, keep and pay."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from nabla.core.budget import Budget
from nabla.core.errors import ConfigError, NablaError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.solution import Revision, Solution
from nabla.engine.engine import Engine
from nabla.methods.base import methods
from nabla.methods.screened import Writer, Written
from nabla.methods.searches.agreement import kendall
from nabla.methods.searches.backtrack import ROUND, Backtrack, _reason
from nabla.methods.searches.pairs import FREE, LEAST, Pairs
from nabla.moves.policy import Policy
from nabla.moves.values import ByChangePoint
from nabla.rewards.function import FunctionReward
from nabla.rewards.likelihood import LikelihoodReward, log_odds
from nabla.rollouts.boundaries.length import Length
from nabla.screens.base import screens
from nabla.screens.gate import Gate
from nabla.screens.posterior import Posterior
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


def ordered(method):
    return sorted(run(method), key=lambda solution: solution.prompt.id)


SPECS = [
    {"name": "backtrack", "attempts": 6, **STEPS},
    {"name": "backtrack", "attempts": 6, "screen": "value", "move": "minimum", **STEPS},
    {"name": "backtrack", "attempts": 6, "screen": "never", **STEPS},
    {"name": "backtrack", "attempts": 9, "screen": "value", "width": 3, **STEPS},
    {"name": "backtrack", "attempts": 6, "screen": "drop", "move": "surprise", **STEPS},
    {"name": "backtrack", "attempts": 6, "screen": "bound", "move": "value-drop", **STEPS},
    {"name": "pairs", "attempts": 5, "sampling": SAMPLING},
    {"name": "pairs", "attempts": 9, "width": 3, "move": "change-point", "sampling": SAMPLING},
    # Three attempts: at the fourth two texts have their lowest value at a token they share, a tie.
    {"name": "pairs", "attempts": 3, "move": "first-order", "objective": "reward", "sampling": SAMPLING},
    {"name": "pairs", "attempts": 3, "move": "random-direction", "objective": "reward", "sampling": SAMPLING},
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
        (whole,) = await never.finish(session, [first], None)
        values = whole.trajectory.values
        # Just above the first value behind the first step: the text must be stopped there.
        threshold = min(values[:-1]) + 1e-6
        strict = Writer(screens.build("value", threshold=threshold), Length(3))
        (again,) = await strict.finish(session, [first], None)
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


def test_rows_of_a_batch_stop_singly():
    """Texts of one problem, written in one batch: some are stopped, others end, each by its values."""
    found = []

    async def solve(session):
        begun = await session.rollout(SAMPLING, n=12, until=Length(3))
        writer = Writer(screens.build("value", threshold=-2.5), Length(3))
        found.extend(await writer.finish(session, begun, None))
        found.extend(session.ended(text.trajectory) for text in found[:])

    for _, _ in engine().run(solve, PROMPTS[:1]):
        pass
    texts, ended = found[:12], found[12:]
    assert {True, False} == set(ended)
    assert len({len(text.trajectory) for text in texts}) > 2
    for text, end in zip(texts, ended, strict=True):
        values = text.trajectory.values
        low = [i for i, value in enumerate(values) if value < -2.5]
        assert text.bad == (low[0] if low else None)
        assert end or text.bad is not None
        if text.bad is not None:
            assert len(values) - text.bad <= 3  # nothing was written behind that step


def test_a_text_is_read_at_every_token_where_that_is_asked():
    """The same first bad token, and nothing is written behind it."""

    async def script(session):
        (first,) = await session.rollout(SAMPLING, until=Length(1))
        screen = screens.build("value", threshold=-2.5)
        return await Writer(screen, Length(3), "token").finish(session, [first], None)

    found = []

    async def solve(session):
        found.extend(await script(session))

    for _, _ in engine().run(solve, PROMPTS):
        pass
    assert len(found) == len(PROMPTS)
    for stopped in found:
        assert stopped.bad is None or stopped.bad == len(stopped.trajectory) - 1
    assert any(stopped.bad is not None for stopped in found)
    with pytest.raises(ConfigError, match="line"):
        methods.build({"name": "backtrack", "every": "line"})


def test_after_four_stops_a_text_is_written_to_its_end():
    """Every value is bad: four texts are stopped, the fifth is whole."""
    spec = {"name": "backtrack", "attempts": 11, "screen": {"name": "value", "threshold": 1e6}, **STEPS}
    for solution in run(methods.build(spec)):
        counts = solution.cost.counts
        assert counts["stopped_texts"] + counts["finished_texts"] >= 10
        assert counts["finished_texts"] >= 2
        assert counts["stopped_texts"] <= 4 * (counts["finished_texts"] + 1)


GATED = {"name": "backtrack", "attempts": 6, "gate": {"texts": 24, "least": 3, "prompts": 3}, **STEPS}


def test_a_gate_follows_from_the_prompts_alone():
    method = methods.build(GATED)
    one, two = (method.prepared(engine(live=live), PROMPTS) for live in (1, 64))
    assert one.calibration == two.calibration
    assert one.calibration.texts == 24
    assert one.calibration.flops > 0
    assert method.calibration is None
    assert "gate:" in one.learnt
    assert method.prepared(engine(seed=1), PROMPTS).calibration != one.calibration
    assert method.prepared(engine(), PROMPTS[:2]) is method  # too few
    assert one.prepared(engine(), PROMPTS) is one


def test_gate_screen_and_move_hear_the_judge_by_likelihood(monkeypatch):
    """Its own log-probabilities of tokens, and not the policy's, count as surprise."""
    heard = {"gate": [], "screen": [], "move": []}
    plain_judge, plain_read, plain_weigh = Gate.judge, Posterior.read, ByChangePoint.positions
    monkeypatch.setattr(
        Gate,
        "judge",
        lambda self, screen, texts, *rest: (
            heard["gate"].extend((t.values, t.log_probs) for t in texts)
            or plain_judge(self, screen, texts, *rest)
        ),
    )
    monkeypatch.setattr(
        Posterior,
        "read",
        lambda self, values, held, own: (
            heard["screen"].append((values, own)) or plain_read(self, values, held, own)
        ),
    )
    monkeypatch.setattr(
        ByChangePoint,
        "positions",
        lambda self, values, own=(): heard["move"].append((values, own)) or plain_weigh(self, values, own),
    )
    lm, judge = tiny_lm(TOKENS), LikelihoodReward(tiny_lm(TOKENS, seed=1))
    method = methods.build({**GATED, "gate": {**GATED["gate"], "level": 99.0}, "blind": "search"})
    method = method.prepared(Engine(lm, judge), PROMPTS)
    for _, outcome in Engine(lm, judge).run(method.solve, PROMPTS):
        assert isinstance(outcome, Solution)
    for pairs in heard.values():
        assert pairs
        for values, own in pairs:
            assert log_odds(torch.tensor(own, dtype=torch.float64)).tolist() == pytest.approx(list(values))


def test_a_prompt_that_fails_is_left_out_of_the_gate():
    long = Prompt.of("ab" * 400, id="long")
    found = methods.build(GATED).prepared(engine(), [PROMPTS[0], long, PROMPTS[1]]).calibration
    assert found.prompts == 2
    with pytest.raises(NablaError):
        methods.build(GATED).prepared(engine(), [replace(long, id=str(i)) for i in range(3)])


SHUT = {**GATED, "gate": {**GATED["gate"], "level": 0.0}}


def test_a_shut_gate_stops_nothing():
    method = methods.build({**SHUT, "blind": "search"}).prepared(engine(), PROMPTS)
    assert not method.calibration.opened
    assert "revision" not in method.learnt
    for solution in run(method):
        assert "stopped_texts" not in solution.cost.counts
    alone = sorted(running.facts(run(method, live=1)))
    assert sorted(running.facts(run(method, live=64))) == alone


def test_where_values_do_not_say_where_revision_answers():
    """Its texts, draws, answers and costs to the last one, under the method's own name."""
    method = methods.build(SHUT).prepared(engine(), PROMPTS)
    assert method.learnt.endswith("revision in its place")
    plain = methods.build({"name": "revision", "sampling": SAMPLING})
    budgets = [Budget("flops", (2e5, 1e6))]
    ours, theirs = (run(m, budgets=budgets) for m in (method, plain))
    assert {s.method for s in ours} == {"backtrack"}
    assert sorted(running.facts(ours)) == sorted(running.facts(theirs))
    assert all(solution.candidates <= ROUND for solution in run(method))  # attempts: 6, one round
    with pytest.raises(ConfigError, match="blind"):
        methods.build({**SHUT, "blind": "stop"})


def test_where_values_say_where_nobody_takes_over():
    aimed = methods.build(GATED).prepared(engine(), PROMPTS)
    aimed.calibration = replace(aimed.calibration, aimed=True, opened=False)
    aimed.stopping = False
    assert not aimed.revises
    for solution in run(aimed):
        assert solution.cost.counts["finished_texts"] == solution.candidates - 1


def test_a_stored_calibration_is_taken_without_sampling(tmp_path):
    import json

    found = methods.build(GATED).prepared(engine(), PROMPTS).calibration
    file = tmp_path / "gate.json"
    file.write_text(json.dumps(found.to_dict()))
    method = Backtrack(gate={"file": str(file)}, attempts=6, **STEPS)
    assert method.calibration == found
    assert method.prepared(engine(), PROMPTS) is method
    assert method.screen.scale == method.move.parts[1].scale == found.scale


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


class _Counted(Policy):
    """The policy's law, which says whether it is the text's own. Over fewer candidates than there are tokens:
    rows over all of them are not kept, and paid for each time."""

    support = 4

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.own, self.texts = own, list[tuple[int, ...]]()

    @property
    def has_densities(self) -> bool:
        return self.own

    async def log_weights(self, view):
        self.texts.append(tuple(view.trajectory.tokens.tolist()))
        return await super().log_weights(view)


def test_a_law_is_formed_once_for_a_text_and_anew_where_it_is_more_than_the_texts_own():
    def solve(own):
        move = _Counted(own)
        (found,) = run(Backtrack(move=move, attempts=12, **STEPS), PROMPTS[2:3])
        total = found.cost.total
        return move.texts, (found.tokens, found.revisions, total.flops, total.calls)

    kept, same = solve(own=True)
    anew, expected = solve(own=False)
    assert same == expected
    assert kept == [text for i, text in enumerate(anew) if i == 0 or text != anew[i - 1]]
    assert 1 < len(kept) < len(anew)  # a changed head has another law


def _rounded(made: Revision) -> Revision:
    return replace(made, old_reward=round(made.old_reward, 9), new_reward=round(made.new_reward, 9))


def test_gains_that_agree_with_nothing_are_not_asked_for_again():
    """A level that nothing reaches: six proposals by the gradient, then none."""
    first_order = {"attempts": 24, "move": "first-order", "objective": "reward", "sampling": SAMPLING}
    always = ordered(Pairs(**first_order))
    asked = ordered(Pairs(**first_order, agreement=1.1))
    spent, usual = (sum(s.cost.total.backward_passes for s in found) for found in (asked, always))
    assert 0 < spent < usual
    for one, other in zip(asked, always, strict=True):  # other batches: the last bits of rewards may differ
        assert list(map(_rounded, one.revisions[:LEAST])) == list(map(_rounded, other.revisions[:LEAST]))
    kept = ordered(Pairs(**first_order, agreement=-1.0))
    assert [s.revisions for s in kept] == [s.revisions for s in always]
    with pytest.raises(ConfigError, match="fallback without"):
        Pairs(move="policy", agreement=0.0)
    with pytest.raises(ConfigError, match="fallback without"):
        Pairs(move="first-order", objective="reward", fallback="first-order")


def test_agreement_is_kendalls():
    assert kendall([1.0, 2.0, 3.0], [2.0, 3.0, 9.0]) == 1.0
    assert kendall([1.0, 2.0, 3.0], [2.0, 9.0, 3.0]) == pytest.approx(1 / 3)
    assert kendall([1.0, 1.0], [2.0, 3.0]) == 0.0
    assert kendall([1.0], [2.0]) == 0.0


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


def test_a_decision_says_how_far_both_texts_are_good():
    """What is compared has digits: two texts with the same first bad token are told apart."""

    found = []

    async def solve(session):
        (text,) = await session.rollout(SAMPLING, until=Length(3))
        reached = [Written(text, 6, 6.2), Written(text, 6, 6.5), Written(text, None, math.inf)]
        found.extend(_reason(session, old, new) for old, new in itertools.pairwise(reached))
        assert not session.ended(text)

    for _, error in engine().run(solve, PROMPTS[:1]):
        assert found, error
    assert found == ["good up to token 6.2 before, token 6.5 now", "good up to token 6.5 before, the end now"]
