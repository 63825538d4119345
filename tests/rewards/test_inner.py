"""Values within an answer: what they cost, and what a prefix is worth as an answer of its own."""

from __future__ import annotations

import pytest
import torch

from nabla.core.costs import Account, CostMeter
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.engine.engine import Engine
from nabla.models.prefixes import PrefixStore
from nabla.models.runner import Runner
from nabla.rewards.base import Reading, Response
from nabla.rewards.outcome import OutcomeReward
from nabla.rollouts.boundaries.length import Length
from nabla.testing import check_reward
from nabla.testing.tiny import END, char_tokenizer, tiny_lm, tiny_process_reward, tiny_reward

PROMPT = Prompt.of("abba")
TOKENS = char_tokenizer("abcd")
LM = tiny_lm(TOKENS)


def closed(**arguments):
    model = tiny_reward(TOKENS, **arguments)
    return OutcomeReward(model.model, TOKENS, read="closed", reuse_prefix=model.body.reuse_prefix)


def ids(text):
    return torch.tensor(TOKENS(text, add_special_tokens=False)["input_ids"])


def account():
    return Account("p", CostMeter(), "reward")


@pytest.mark.parametrize("architecture", ["qwen2", "gpt2", "mistral"])
@pytest.mark.parametrize("reuse", [True, False])
def test_a_closed_prefix_is_worth_its_score_as_an_answer(architecture, reuse):
    reward = closed(architecture=architecture, reuse_prefix=reuse).bind(LM.vocabulary)
    texts = [ids("abcdab" + END), ids("bc")]
    known = (2, 0)
    readings = [Reading(Response(PROMPT, t, account()), k) for t, k in zip(texts, known, strict=True)]
    store = PrefixStore(3 if reuse else 0)
    found = reward.values(readings, Runner(store=store))
    prefixes = [texts[0][: end + 1] for end in range(2, 7)] + [texts[1][: end + 1] for end in range(2)]
    scores = reward.score([Response(PROMPT, prefix, account()) for prefix in prefixes], Runner())
    assert [len(row) for row in found] == [5, 2]
    assert [*found[0], *found[1]] == pytest.approx([score.value for score in scores], abs=1e-9)
    assert reward.together(found[0]) == found[0][-1]
    inner = tiny_reward(TOKENS, architecture=architecture).bind(LM.vocabulary)
    assert inner.values(readings, Runner())[0] != pytest.approx(found[0])
    assert inner.together(found[0]) is None


def test_the_templates_end_and_the_head_are_counted():
    text = ids("abcda")
    costs = {}
    for name, reward in (("inner", tiny_reward(TOKENS)), ("closed", closed())):
        reward, own = reward.bind(LM.vocabulary), account()
        reward.values([Reading(Response(PROMPT, text, own))], Runner())
        costs[name] = own.meter.snapshot().total, reward
    (inner, reward), (behind, _) = costs["inner"], costs["closed"]
    whole = len(reward.layout(Response(PROMPT, text, account())).before) + len(text)
    assert (inner.tokens, inner.forward_passes) == (whole, 1)
    # The template's one token behind each of five prefixes.
    assert (behind.tokens, behind.forward_passes) == (whole + 5, 6)
    read = 2.0 * reward.model.config.hidden_size
    assert reward.read_flops == read
    assert inner.flops == reward.body.flops(whole, 0) + 5 * read
    closing = sum(reward.body.flops(1, whole - i) for i in range(5))
    assert behind.flops == pytest.approx(inner.flops + closing)


def test_a_head_of_two_labels_costs_twice_as_much():
    one, two = tiny_process_reward(TOKENS), tiny_process_reward(TOKENS, label=1)
    assert two.read_flops == 2 * one.read_flops == 4.0 * one.model.config.hidden_size


def test_a_finished_text_needs_no_second_pass():
    found = []

    async def solve(session):
        (open_,) = await session.rollout(Sampling(max_new_tokens=10), until=Length(4))
        await session.judge([open_])
        (whole,) = await session.judge(await session.extend([open_]))
        calls = session.cost.total.calls
        (scored,) = await session.score([whole])
        found.append((whole, scored, session.cost.total.calls - calls))

    for _, error in Engine(LM, closed()).run(solve, [PROMPT]):
        assert found, error
    whole, scored, calls = found[0]
    assert calls == 0
    assert whole.reward == scored.reward == whole.score.steps[-1]
    assert len(whole.score.steps) == len(whole)
    (expected,) = closed().bind(LM.vocabulary).score([Response(PROMPT, whole.tokens, account())], Runner())
    assert whole.reward == pytest.approx(expected.value, abs=1e-9)


def test_laws():
    check_reward(closed(), max_examples=10)
