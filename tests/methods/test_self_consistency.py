"""The majority over a pool, by counting."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nabla.core.sampling import Sampling
from nabla.methods.baselines.self_consistency import SelfConsistency
from nabla.methods.pools import heaviest
from nabla.problems.answers.base import Answers
from tests import running, tiny, toy


class First(Answers):
    """The first letter; responses that begin with nothing readable have no answer."""

    def extract(self, response: str) -> str | None:
        return response[:1] or None

    def equal(self, left: str, right: str) -> bool:
        return left == right


class Silent(First):
    def extract(self, response: str) -> str | None:
        return None


def pool(n, seed):
    async def method(session):
        return [session.decode(t.tokens) for t in await session.rollout(toy.FLAT, n=n)]

    return tiny.drive(toy.engine(seed=seed), toy.PROMPT, method)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("n", [1, 2, 7, 16])
def test_it_is_the_first_response_with_the_most_frequent_answer(n, seed):
    responses = pool(n, seed)
    answers = [r[0] for r in responses if r]
    (solution,) = running.run(toy.engine(seed=seed), SelfConsistency(n, toy.FLAT, First()), [toy.PROMPT])
    (winner, _), *_ = Counter(answers).most_common(1) or [(None, 0)]  # ties in order of appearance
    expected = next((r for r in responses if r and r[0] == winner), responses[0])
    assert solution.response == expected
    assert solution.candidates == n
    assert solution.reward is None


@pytest.mark.parametrize("score", ["log-probability", "mean-log-probability"])
def test_with_a_score_the_most_probable_response_of_the_majority_is_returned(score):
    async def method(session):
        return await session.rollout(toy.FLAT, n=16)

    per_token = score == "mean-log-probability"
    for seed in range(4):
        drawn = tiny.drive(toy.engine(seed=seed), toy.PROMPT, method)
        ranks = [t.log_likelihood / (len(t) if per_token else 1) for t in drawn]
        responses = [toy.LM.decode(t.tokens.tolist()) for t in drawn]
        counts = Counter(r[0] for r in responses if r)
        most = {answer for answer, count in counts.items() if count == max(counts.values())}
        expected = max((i for i, r in enumerate(responses) if r[:1] in most), key=lambda i: ranks[i])
        made = SelfConsistency(16, toy.FLAT, First(), score)
        (solution,) = running.run(toy.engine(seed=seed), made, [toy.PROMPT])
        assert solution.tokens == tuple(drawn[expected].tokens.tolist())


def test_the_pool_under_a_budget_is_the_same_pool():
    method = SelfConsistency(3, toy.FLAT, First())
    (solution,) = running.run(toy.engine(**toy.calls(60.0)), method, [toy.PROMPT])
    assert solution.candidates > 3
    again = SelfConsistency(solution.candidates, toy.FLAT, First())
    (plain,) = running.run(toy.engine(), again, [toy.PROMPT])
    assert plain.tokens == solution.tokens


def test_without_any_answer_it_is_the_first_response():
    (solution,) = running.run(toy.engine(), SelfConsistency(5, toy.FLAT, Silent()), [toy.PROMPT])
    assert solution.response == pool(5, 0)[0]


def test_no_reward_is_needed():
    method = SelfConsistency(3, Sampling(temperature=1.0, max_new_tokens=4))
    solutions = running.run(running.tiny_engine(reward=False), method)
    assert all("reward" not in s.cost.phases for s in solutions)


@given(st.lists(st.tuples(st.none() | st.integers(0, 3), st.integers(-4, 4), st.integers(0, 2)), max_size=12))
def test_the_heaviest_group_by_enumeration(votes):
    groups, weights, ties = ([vote[i] for vote in votes] for i in range(3))
    present = list(dict.fromkeys(g for g in groups if g is not None))
    ranked = sorted(
        present,
        key=lambda g: (
            -sum(w for h, w, _ in votes if h == g),
            -max(t for h, _, t in votes if h == g),
            present.index(g),
        ),
    )
    assert heaviest(groups, weights, ties) == (ranked[0] if ranked else None)
