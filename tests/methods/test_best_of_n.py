"""Best-of-N over a pool that is drawn apart."""

from __future__ import annotations

import math
from collections import defaultdict

import pytest

from nabla.core.errors import ConfigError
from nabla.core.sampling import Sampling
from nabla.engine.engine import Engine
from nabla.methods.base import methods
from nabla.methods.baselines.best_of_n import BestOfN
from nabla.problems.answers.base import Answers
from nabla.rewards.process import AGGREGATIONS
from tests import running, tiny, toy

VOTES = {
    "sigmoid": lambda r, _: 1 / (1 + math.exp(-r)),
    "softmax": lambda r, pool: math.exp(r) / sum(math.exp(q) for q in pool),
    "raw": lambda r, _: r,
}


class First(Answers):
    """The first letter."""

    def extract(self, response: str) -> str | None:
        return response[:1] or None

    def equal(self, left: str, right: str) -> bool:
        return left == right


def pool(n, seed=0):
    """(response, reward) of the engine's first ``n`` rollouts."""

    async def method(session):
        scored = await session.score(await session.rollout(toy.FLAT, n=n))
        return [(session.decode(t.tokens), t.reward) for t in scored]

    return tiny.drive(toy.engine(seed=seed), toy.PROMPT, method)


@pytest.mark.parametrize("seed", range(5))
def test_plain_is_the_maximum_over_the_pool(seed):
    (solution,) = running.run(toy.engine(seed=seed), BestOfN(9, toy.FLAT), [toy.PROMPT])
    found = pool(9, seed)
    assert (solution.response, solution.reward) == max(found, key=lambda pair: pair[1])


@pytest.mark.parametrize("weight", VOTES)
@pytest.mark.parametrize("seed", range(8))
def test_weighted_adds_up_the_weights_of_equal_answers(weight, seed):
    found = pool(12, seed)
    rewards = [reward for _, reward in found]
    sums: dict[str, float] = defaultdict(float)
    for response, reward in found:
        if response:
            sums[response[0]] += VOTES[weight](reward, rewards)
    winner = max(sums, key=sums.__getitem__)
    expected = max((pair for pair in found if pair[0][:1] == winner), key=lambda pair: pair[1])
    (solution,) = running.run(
        toy.engine(seed=seed), BestOfN(12, toy.FLAT, First(), weight), [toy.PROMPT]
    )
    assert (solution.response, solution.reward) == expected


def test_weighted_differs_from_plain_where_a_frequent_answer_is_good_enough():
    weighted = [
        running.run(toy.engine(seed=s), BestOfN(12, toy.FLAT, First()), [toy.PROMPT])[0].tokens
        for s in range(8)
    ]
    plain = [
        running.run(toy.engine(seed=s), BestOfN(12, toy.FLAT), [toy.PROMPT])[0].tokens for s in range(8)
    ]
    assert weighted != plain


@pytest.mark.parametrize("weight", VOTES)
def test_with_distinct_answers_weighted_is_plain(weight):
    sampling = Sampling(temperature=2.0, max_new_tokens=12)
    found = []
    for answers in (None, "text"):
        method = methods.build("best-of-n", n=6, sampling=sampling, answers=answers, weight=weight)
        found.append(running.run(running.tiny_engine(), method))
    assert [s.tokens for s in found[0]] == [s.tokens for s in found[1]]


@pytest.mark.parametrize("scale", [50.0, 1e4])
def test_huge_rewards_neither_overflow_nor_hide_the_best(scale):
    (best,) = running.run(toy.engine(), BestOfN(8, toy.FLAT), [toy.PROMPT])
    for weight in ("sigmoid", "softmax"):
        engine = toy.engine(lambda p, r: scale * (3 + toy.hashed(p, r)))  # sigmoids are all 1
        (solution,) = running.run(engine, BestOfN(8, toy.FLAT, "text", weight), [toy.PROMPT])
        if len({response for response, _ in pool(8)}) == 8:
            assert solution.tokens == best.tokens
        assert solution.reward is not None


@pytest.mark.parametrize("aggregation", ["last", "min", "mean"])
def test_a_process_reward_ranks_by_its_own_aggregation(aggregation):
    """The reference runs the reward model's own forward pass on the response with its template."""
    lm = tiny.causal_lm()
    reward = tiny.process("qwen3", arguments={"aggregation": aggregation})
    sampling = Sampling(temperature=1.5, max_new_tokens=8)
    engine = Engine(lm, reward)

    async def method(session):
        return await session.rollout(sampling, n=6)

    for prompt in running.PROMPTS:
        rollouts = tiny.drive(Engine(lm, reward), prompt, method)
        question = reward.chat.prompt(prompt.messages)
        totals = []
        for t in rollouts:
            ids = [*question.tolist(), *t.tokens.tolist()]
            scores = reward.model(input_ids=tiny.torch.tensor([ids])).logits[0, len(question) :, 0]
            totals.append(float(AGGREGATIONS[aggregation](scores)))
        (solution,) = running.run(engine, BestOfN(6, sampling), [prompt])
        at = max(range(6), key=totals.__getitem__)
        assert solution.tokens == tuple(rollouts[at].tokens.tolist())
        assert solution.reward == pytest.approx(totals[at], rel=1e-9)


@pytest.mark.parametrize("score", ["log-probability", "mean-log-probability"])
def test_by_the_models_own_probability_no_reward_is_needed_and_nothing_more_is_spent(score):
    async def rollouts(session):
        return await session.rollout(toy.FLAT, n=9)

    engine = Engine(toy.LM, None)
    own = {"log-probability": sum, "mean-log-probability": lambda values: sum(values) / len(values)}[score]
    pool = tiny.drive(engine, toy.PROMPT, rollouts)
    best = max(pool, key=lambda t: own(t.log_probs.tolist()))
    (solution,) = running.run(engine, BestOfN(9, toy.FLAT, score=score), [toy.PROMPT])
    assert solution.tokens == tuple(best.tokens.tolist())
    assert solution.reward is None
    (plain,) = running.run(engine, methods.build("self-consistency", n=9, sampling=toy.FLAT), [toy.PROMPT])
    assert solution.cost.total.calls == plain.cost.total.calls
    assert solution.cost.total.flops == plain.cost.total.flops


def test_votes_by_probability_add_up_the_probabilities():
    method = BestOfN(12, toy.FLAT, First(), "softmax", "log-probability")

    async def rollouts(session):
        found = await session.rollout(toy.FLAT, n=12)
        return [(session.decode(t.tokens), t.log_likelihood) for t in found]

    for seed in range(4):
        engine = Engine(toy.LM, None, seed=seed)
        pool = tiny.drive(engine, toy.PROMPT, rollouts)
        sums: dict[str, float] = defaultdict(float)
        for response, log_pi in pool:
            if response:
                sums[response[0]] += math.exp(log_pi)
        winner = max(sums, key=sums.__getitem__)
        expected = max((pair for pair in pool if pair[0][:1] == winner), key=lambda pair: pair[1])
        (solution,) = running.run(engine, method, [toy.PROMPT])
        assert solution.response == expected[0]


def test_without_a_reward_only_probabilities_rank():
    with pytest.raises(ConfigError, match="a reward is needed"):
        BestOfN().check(Engine(toy.LM, None))
    with pytest.raises(ConfigError, match="score"):
        methods.build("best-of-n", score="likelihood")
