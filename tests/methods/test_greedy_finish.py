"""Finishing greedily: what is written, kept and paid for at a method's end."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from nabla.core.budget import Budget
from nabla.core.errors import ConfigError
from nabla.core.sampling import Sampling
from nabla.core.trajectory import Score
from nabla.engine.engine import Engine
from nabla.methods.base import methods
from nabla.methods.searches.greedy_finish import GreedyFinish
from nabla.testing.inputs import make_trajectory
from nabla.testing.tiny import char_tokenizer, tiny_lm, tiny_process_reward
from tests import running, tiny

INNER = {"name": "best-of-n", "n": 3, "sampling": running.SAMPLING}


def finish(**inner) -> GreedyFinish:
    return GreedyFinish({**INNER, **inner}, max_new_tokens=running.SAMPLING.max_new_tokens)


def process_engine(**arguments) -> Engine:
    tokens = char_tokenizer("0123456789+=")
    return Engine(tiny_lm(tokens), tiny_process_reward(tokens), **arguments)


@pytest.mark.parametrize("make", [process_engine, running.tiny_engine])
def test_the_answer_is_the_searchs_or_its_head_written_on_greedily(make):
    searched, finished = (running.run(make(), m) for m in (methods.build(INNER), finish()))
    changed = 0
    for before, after in zip(searched, finished, strict=True):
        assert after.candidates == before.candidates + 1
        assert after.reward >= before.reward - 1e-9
        if after.tokens == before.tokens:
            continue
        changed += 1
        same = next(i for i, (a, b) in enumerate(zip(before.tokens, after.tokens, strict=False)) if a != b)

        async def greedy(session, start=before.tokens, same=same):
            """The most likely tokens behind what both have."""
            sampling = Sampling(temperature=0.0, max_new_tokens=running.SAMPLING.max_new_tokens)
            (head,) = await session.read([torch.tensor(start[:same])], sampling)
            (text,) = await session.extend([head])
            return tuple(text.tokens.tolist())

        if same:
            assert tiny.drive(make(), before.prompt, greedy) == after.tokens
    assert changed


def test_an_answer_that_leaves_no_room_stays():
    """Its head alone, which a reward of its least value prefers, is no answer."""
    longer = {**INNER, "sampling": replace(running.SAMPLING, max_new_tokens=24)}
    searched = running.run(process_engine(), methods.build(longer))
    finished = running.run(process_engine(), GreedyFinish(longer, slack=0.0, max_new_tokens=4))
    assert any(len(before.tokens) > 4 for before in searched)
    for before, after in zip(searched, finished, strict=True):
        assert after.tokens == before.tokens or before.tokens[: len(after.tokens)] != after.tokens


def test_its_cost_is_set_aside_inside_the_budget():
    limit = 150.0
    plain, finished = (
        running.run(process_engine(budgets=[Budget("calls", (limit,))]), method)
        for method in (methods.build(INNER), finish())
    )
    for before, after in zip(plain, finished, strict=True):
        assert before.cost.total.calls >= limit
        own = after.checkpoints[0].usage.calls
        assert after.checkpoints[-1].usage.calls <= limit + own
        assert after.candidates <= before.candidates + 1  # what it writes at the end counts too


def test_the_worst_token_is_the_first_near_the_minimum():
    method, text = finish(), make_trajectory()
    length = len(text)
    values = [3.0, -1.0, -1.5, *[-2.0] * (length - 3)]
    assert method.worst(text.with_score(Score(0.0, tuple(values), tuple(range(length))))) == 1
    assert method.worst(text.with_score(Score(0.0))) == int(text.log_probs.argmin())
    late = text.with_score(Score(0.0, (-4.0,), (length - 1,)))
    assert math.isnan(late.values[0])
    assert method.worst(late) == length - 1


def test_alone_and_together_and_without_a_reward():
    running.assert_same_alone_and_together(finish())
    with pytest.raises(ConfigError, match="a reward is needed"):
        finish().check(running.tiny_engine(reward=False))
