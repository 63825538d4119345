"""A language model as judge, against its plain forward pass."""

from __future__ import annotations

import math

import pytest
import torch

from nabla.core.costs import Account, CostMeter
from nabla.core.errors import ConfigError, VocabularyError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.engine.engine import Engine
from nabla.models.runner import Runner
from nabla.rewards.base import Reading, Response
from nabla.rewards.likelihood import LikelihoodReward, log_odds
from nabla.rewards.noisy import NoisyReward
from nabla.testing import check_reward
from nabla.testing.tiny import char_tokenizer, tiny_lm

PROMPT = Prompt.of("abba")


def judge(aggregation="min", architecture="qwen3", characters="abcd"):
    return LikelihoodReward(tiny_lm(char_tokenizer(characters), architecture=architecture), aggregation)


def account():
    return Account("p", CostMeter(), "reward")


def expected(reward, tokens):
    """Log-odds of each token by the model's own logits over all of its ids."""
    lm = reward.judge
    ids = torch.cat([lm.vocabulary.encode(PROMPT), tokens])
    log_p = lm.model(input_ids=ids[None]).logits[0].double().log_softmax(-1)
    rows = log_p[-len(tokens) - 1 : -1].gather(-1, tokens[:, None])[:, 0]
    return rows - torch.log1p(-rows.exp())


@pytest.mark.parametrize("architecture", ["qwen3", "gpt2", "gemma2"])
def test_a_value_is_the_log_odds_of_a_token(architecture):
    reward = judge(architecture=architecture)
    reward = reward.bind(reward.judge.vocabulary)
    tokens = torch.tensor([4, 6, 5, 7, 2])
    (found,) = reward.values([Reading(Response(PROMPT, tokens, account()))], Runner())
    tolerance = 1e-5 if architecture == "gemma2" else 1e-9
    assert found == pytest.approx(expected(reward, tokens).tolist(), abs=tolerance)


def average(values):
    return sum(values) / len(values)


@pytest.mark.parametrize(("aggregation", "reduce"), [("min", min), ("sum", sum), ("mean", average)])
def test_a_score_aggregates_the_values(aggregation, reduce):
    reward = judge(aggregation)
    reward = reward.bind(reward.judge.vocabulary)
    tokens = torch.tensor([4, 6, 5, 2])
    (score,) = reward.score([Response(PROMPT, tokens, account())], Runner())
    assert score.value == pytest.approx(reduce(expected(reward, tokens).tolist()), abs=1e-9)
    assert score.ends == (0, 1, 2, 3)


def test_what_is_known_is_not_run_again():
    reward = judge()
    reward = reward.bind(reward.judge.vocabulary)
    tokens, runner = torch.tensor([4, 6, 5, 7, 4, 2]), Runner()
    first = account()
    (begun,) = reward.values([Reading(Response(PROMPT, tokens[:3], first))], runner)
    second = account()
    (rest,) = reward.values([Reading(Response(PROMPT, tokens, second), known=3)], runner)
    assert begun + rest == pytest.approx(expected(reward, tokens).tolist(), abs=1e-9)
    # Tokens 3 and 4 and the state of token 2: the last token conditions nothing.
    assert second.meter.snapshot().total.tokens == 3
    (nothing,) = reward.values([Reading(Response(PROMPT, tokens, second), known=6)], runner)
    assert nothing == []
    assert second.meter.snapshot().total.forward_passes == 1


def test_the_policys_own_values_cost_nothing():
    lm = tiny_lm(char_tokenizer("abcd"))
    reward = LikelihoodReward(lm).bind(lm.view().vocabulary)
    assert reward.of_policy([math.log(0.5), math.log(0.9)]) == pytest.approx([0.0, math.log(9)])
    other = judge().bind(lm.vocabulary)
    assert other.of_policy([-1.0]) is None


def test_without_a_model_it_is_the_one_that_writes():
    lm = tiny_lm(char_tokenizer("abcd"))
    reward = LikelihoodReward(aggregation="mean")
    with pytest.raises(ConfigError, match="which one writes"):
        reward.bind(lm.vocabulary)
    with pytest.raises(ConfigError, match="runs elsewhere"):
        reward.written_by(None)
    found = reward.written_by(lm).bind(lm.vocabulary)
    assert (found.judge.model, found.aggregation) == (lm.model, "mean")
    assert found.of_policy([math.log(0.5)]) == pytest.approx([0.0])
    named = judge()
    assert named.written_by(lm) is named


def test_the_policy_scores_its_own_texts_for_nothing():
    lm = tiny_lm(char_tokenizer("abcd"))
    found = {}

    def scored(name, reward):
        async def solve(session):
            texts = await session.rollout(Sampling(max_new_tokens=8), n=3)
            before = session.cost.total.calls
            rewards = [t.reward for t in await session.score(texts)]
            found[name] = rewards, session.cost.total.calls - before

        for _, error in Engine(lm, reward).run(solve, [PROMPT]):
            assert name in found, error

    scored("itself", LikelihoodReward(aggregation="sum"))
    scored("another of the same weights", LikelihoodReward(tiny_lm(char_tokenizer("abcd")), "sum"))
    (own, calls), (other, passes) = found["itself"], found["another of the same weights"]
    assert (calls, passes) == (0, 3)
    assert own == pytest.approx(other, abs=1e-6)


def test_certainty_is_finite_and_keeps_its_slope():
    found = log_odds(torch.tensor([0.0, -1e-9, -40.0], dtype=torch.float64))
    assert found.isfinite().all()
    assert float(found[2]) == pytest.approx(-40.0)
    row = torch.tensor([-0.3], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(log_odds(row).sum(), row)
    assert float(slope) == pytest.approx(1 / (1 - math.exp(-0.3)))  # d logit / d log p


def test_other_tokens_are_refused_by_name():
    with pytest.raises(VocabularyError, match="'e'"):
        judge(characters="abcd").bind(tiny_lm(char_tokenizer("abce")).vocabulary)


@pytest.mark.parametrize("aggregation", ["min", "mean", "sum"])
def test_laws(aggregation):
    check_reward(judge(aggregation), max_examples=20)


@pytest.mark.parametrize("architecture", ["gpt2", "llama-tied"])
def test_laws_of_other_bodies(architecture):
    check_reward(judge("mean", architecture), max_examples=10)


def test_a_change_point_is_surprised_by_what_the_judge_finds_improbable():
    """A value speaks of its own token alone: its probability stands in for the policy's."""
    policy, own = tiny_lm(char_tokenizer("abcd"), seed=1).vocabulary, [-0.5, -0.25, -1.0]
    reward = judge().bind(policy)
    values = [math.log(3.0), math.nan, -math.log(3.0)]
    found = reward.token_log_probs(values, own)
    assert found == pytest.approx([math.log(0.75), -0.25, math.log(0.25)])
    noisy = NoisyReward(reward, 0.0)
    assert noisy.token_log_probs(values, own) == found


def test_the_policy_that_judges_itself_is_surprised_by_itself():
    lm = tiny_lm(char_tokenizer("abcd"))
    reward = LikelihoodReward(lm).bind(lm.vocabulary)
    assert reward.token_log_probs([0.0, 1.0], [-0.5, -0.25]) == [-0.5, -0.25]
