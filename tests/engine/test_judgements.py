"""What a reward says at each token: values of prefixes, each judged once."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from nabla.core.errors import ComponentError, NumericalError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.trajectory import Score
from nabla.engine.engine import Engine
from nabla.rewards.base import Reward
from nabla.rewards.likelihood import LikelihoodReward
from nabla.rewards.process import ProcessReward
from nabla.rollouts.boundaries.length import Length
from nabla.testing.tiny import char_tokenizer, tiny_lm, tiny_process_reward, tiny_reward

PROMPT = Prompt.of("abba")
SAMPLING = Sampling(max_new_tokens=12)


def run(reward, script, lm=None):
    """What a script says that is run as a method."""
    lm = lm or tiny_lm(char_tokenizer("abcd"))
    found = []

    async def solve(session):
        found.append(await script(session))

    for _, error in Engine(lm, reward).run(solve, [PROMPT]):
        if not found:
            raise error
    return found[0]


def process(**arguments):
    return tiny_process_reward(char_tokenizer("abcd"), step_separators=[], **arguments)


@pytest.mark.parametrize("aggregation", ["min", "mean", "sum", "last"])
def test_a_finished_text_is_worth_its_score(aggregation):
    async def script(session):
        written = await session.rollout(SAMPLING, n=4)
        return await session.judge(written), [t.with_reward(0.0) for t in written]

    judged, _ = run(process(aggregation=aggregation), script)

    async def score(session):
        return await session.score(await session.rollout(SAMPLING, n=4))

    scored = run(process(aggregation=aggregation), score)
    for one, other in zip(judged, scored, strict=True):
        assert one.reward == pytest.approx(other.reward, abs=1e-9)
        assert one.score.ends == other.score.ends
        assert one.score.steps == pytest.approx(other.score.steps, abs=1e-9)


@pytest.mark.parametrize("make", [process, lambda: tiny_reward(char_tokenizer("abcd"))])
def test_values_of_a_prefix_are_those_of_the_whole(make):
    async def script(session):
        (open_,) = await session.rollout(SAMPLING, until=Length(4))
        (begun,) = await session.judge([open_])
        (whole,) = await session.extend([open_])
        before = session.cost.total.tokens
        (judged,) = await session.judge([whole])
        return begun, judged, session.cost.total.tokens - before

    begun, judged, tokens = run(make(), script)
    assert judged.score.steps[: len(begun.score.steps)] == begun.score.steps
    # New tokens alone, and what the template writes behind the answer where an outcome is read there.
    assert tokens <= len(judged) - len(begun) + 4

    async def at_once(session):
        (open_,) = await session.rollout(SAMPLING, until=Length(4))
        return (await session.judge(await session.extend([open_])))[0]

    assert run(make(), at_once).score.steps == pytest.approx(judged.score.steps, abs=1e-9)


def test_an_outcome_reward_is_its_score_at_the_end_and_its_last_value_before():
    async def script(session):
        (open_,) = await session.rollout(SAMPLING, until=Length(3))
        (begun,) = await session.judge([open_])
        (whole,) = await session.judge(await session.extend([open_]))
        (scored,) = await session.score([replace(whole, score=None)])
        return begun, whole, scored

    begun, whole, scored = run(tiny_reward(char_tokenizer("abcd")), script)
    assert begun.reward == begun.score.steps[-1]
    assert whole.reward == scored.reward


def test_a_text_is_judged_once():
    async def script(session):
        written = await session.rollout(SAMPLING, n=3)
        first = await session.judge(written)
        calls = session.cost.total.calls
        again = await session.judge([*written, *written])
        return first, again, session.cost.total.calls - calls

    first, again, calls = run(process(), script)
    assert calls == 0
    assert [t.score for t in again] == [t.score for t in first] * 2


def test_the_policy_judges_its_own_texts_for_nothing():
    lm = tiny_lm(char_tokenizer("abcd"))

    async def script(session):
        written = await session.rollout(SAMPLING, n=2)
        calls = session.cost.total.calls
        judged = await session.judge(written)
        return judged, session.cost.total.calls - calls

    judged, calls = run(LikelihoodReward(lm), script, lm)
    assert calls == 0
    for trajectory in judged:
        odds = torch.logit(trajectory.log_probs.double().exp())
        assert trajectory.score.steps == pytest.approx(odds.tolist(), abs=1e-6)


def test_neighbours_do_not_matter():
    lm, prompts = tiny_lm(char_tokenizer("abcd")), [Prompt.of("ab"), Prompt.of("ba"), Prompt.of("abcd")]

    def values(chosen):
        found = {}

        async def solve(session):
            (open_,) = await session.rollout(SAMPLING, until=Length(5))
            (judged,) = await session.judge([open_])
            found[session.prompt.id] = judged.score.steps, session.cost.total.flops

        for _, error in Engine(lm, process()).run(solve, chosen):
            assert found, error
        return found

    together = values(prompts)
    for prompt in prompts:
        steps, flops = values([prompt])[prompt.id]
        assert together[prompt.id][0] == pytest.approx(steps, abs=1e-9)
        assert together[prompt.id][1] == flops


@pytest.mark.parametrize("aggregation", ["mean", "sum", "last"])
def test_steps_are_those_of_the_whole_text_however_often_it_was_judged_on_the_way(aggregation):
    """An open text ends within a step, which is none when the text goes on."""
    reward = tiny_process_reward(char_tokenizer("abcd"), step_separators=["a"], aggregation=aggregation)

    async def script(session):
        (text,) = await session.rollout(SAMPLING, until=Length(1))
        opened = []
        while not session.ended(text):
            (text,) = await session.judge([text])
            opened.append(text)
            (text,) = await session.extend([text], until=Length(1))
        (judged,) = await session.judge([text])
        (again,) = await session.judge(opened[2:3])
        return opened[2], again, judged

    third, again, judged = run(reward, script)
    assert again.score == third.score
    assert third.score.ends[-1] == 2

    async def alone(session):
        return await session.score([replace(judged, score=None)])

    (scored,) = run(reward, alone)
    assert len(scored.score.ends) < len(judged)
    assert judged.score.ends == scored.score.ends
    assert judged.score.steps == pytest.approx(scored.score.steps, abs=1e-9)
    assert judged.reward == pytest.approx(scored.reward, abs=1e-9)


class Broken(Reward):
    """Says of each token what it is told to."""

    def __init__(self, row):
        self.row = row

    def score(self, responses, runner):
        return [Score(0.0) for _ in responses]

    def values(self, texts, runner):
        return self.row(texts)


@pytest.mark.parametrize(("row", "error"), [
    (lambda texts: [[math.inf] * len(t.response.tokens) for t in texts], NumericalError),
    (lambda texts: [], ComponentError),
])
def test_values_that_are_none_fail_the_problem_alone(row, error):
    async def solve(session):
        await session.judge(await session.rollout(SAMPLING))

    prompts = [PROMPT, Prompt.of("cd")]
    found = list(Engine(tiny_lm(char_tokenizer("abcd")), Broken(row)).run(solve, prompts))
    assert len(found) == 2
    assert all(type(outcome) is error for _, outcome in found)


def test_a_model_that_gives_nan_has_not_said_nothing(monkeypatch):
    """NaN at a token means that there is no value: a broken model's would pass for one."""
    read = ProcessReward.token_rewards

    def broken(reward, hidden):
        values = read(reward, hidden)
        values[1:2] = math.nan
        return values

    async def script(session):
        text = await session.rollout(SAMPLING, n=2)
        with pytest.raises(NumericalError, match="NaN"):
            await session.judge(text)
        return True

    with monkeypatch.context() as patch:
        patch.setattr(ProcessReward, "token_rewards", broken)
        assert run(process(), script)
    tokens = char_tokenizer("abcd")
    judge = tiny_lm(tokens, seed=1)
    with torch.no_grad():
        judge.body.embedding.weight[tokens("a", add_special_tokens=False)["input_ids"][-1]] = math.nan
    assert run(LikelihoodReward(judge), script)


def test_a_reward_without_values_is_asked_once_and_never_of_an_open_text():
    from nabla.rewards.function import FunctionReward

    asked = []

    def function(prompt, response):
        asked.append(response)
        return 1.5

    async def script(session):
        (open_,) = await session.rollout(SAMPLING, until=Length(3))
        (begun,) = await session.judge([open_])
        assert not asked
        return begun, (await session.judge(await session.extend([open_])))[0]

    begun, whole = run(FunctionReward(function), script)
    assert begun.score.steps == whole.score.steps == ()
    assert math.isnan(begun.reward)
    assert whole.reward == 1.5
    assert len(asked) == 1


@pytest.mark.parametrize("aggregation", ["min", "mean"])
def test_texts_that_begin_alike_share_their_values_to_the_last_bit(aggregation):
    """Scored alone and in a larger batch: texts that share their worst step tie, whatever else is asked."""

    async def script(session):
        (text,) = await session.score(await session.rollout(SAMPLING))
        places = range(1, len(text) - 1)
        edits = [(p, token) for p in places for token in range(2, 6) if token != int(text.tokens[p])]
        return text, edits, await session.score(await session.fork(text, edits))

    lm = tiny_lm(char_tokenizer("abcd"), dtype=torch.float32)
    text, edits, others = run(process(aggregation=aggregation, dtype=torch.float32), script, lm)
    assert len(others) > 12
    for (place, _), other in zip(edits, others, strict=True):
        assert other.values[:place] == text.values[:place]
        if aggregation == "min":
            assert other.reward == min(v for v in other.values if not math.isnan(v))
