"""Moves against their definitions on a tiny model."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import one_hot

from nabla.core.change_point import ChangePoint
from nabla.core.costs import Account, CostMeter
from nabla.core.errors import ConfigError, NablaError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.engine.engine import Engine
from nabla.moves.base import Law, Move, moves
from nabla.objectives.base import objectives
from nabla.rewards.base import Response
from nabla.testing.inputs import follows
from nabla.testing.tiny import char_tokenizer, tiny_lm, tiny_process_reward

TOKENS = char_tokenizer("abcd")
LM = tiny_lm(TOKENS)
SAMPLING = Sampling(temperature=1.0, max_new_tokens=8)


def at_a_text(spec, objective=None):
    """The law of a move at a judged text, and the text."""
    found = []
    move = moves.build(spec)

    async def solve(session):
        session.objective = None if objective is None else objectives.build(objective)
        (text,) = await session.judge(await session.rollout(SAMPLING))
        found.append((await move.law(text, session), text))

    for _, error in Engine(LM, tiny_process_reward(TOKENS)).run(solve, [Prompt.of("abba")]):
        if not found:
            raise error
    return found[0]


def log_policy(text):
    ids = torch.cat([LM.vocabulary.encode(text.prompt), text.tokens])
    return LM.model(input_ids=ids[None]).logits[0].double().log_softmax(-1)[-len(text) - 1 : -1]


def table(law, size):
    """The law's normalised log-densities as [L, V]."""
    dense = torch.full((len(law.log_weights), size), float("-inf"), dtype=torch.float64)
    dense.scatter_(1, law.candidates, law.log_weights)
    return dense - dense.flatten().logsumexp(0)


def expected(log_weights, text):
    weights = log_weights.clone()
    weights[torch.arange(len(text)), text.tokens] = float("-inf")
    weights[:, LM.head.usable :] = float("-inf")
    return (weights - weights.flatten().logsumexp(0))[:, : LM.head.usable]


def test_policy_is_the_tempered_policy_above_the_floor():
    law, text = at_a_text({"name": "policy", "temperature": 0.5, "floor": 0.05})
    pi = log_policy(text)
    want = expected((pi / 0.5).masked_fill(pi <= math.log(0.05), float("-inf")), text)
    assert torch.allclose(table(law, LM.head.usable).exp(), want.exp(), atol=1e-9)


def test_uniform_position_draws_every_position_alike():
    law, text = at_a_text({"name": "uniform-position", "floor": 0.0})
    rows = table(law, LM.head.usable).logsumexp(-1).exp()
    assert rows.tolist() == pytest.approx([1 / len(text)] * len(text))


def test_surprise_prefers_improbable_tokens():
    law, text = at_a_text({"name": "surprise", "weight": 1.5})
    own = log_policy(text)[torch.arange(len(text)), text.tokens]
    rows = table(law, LM.head.usable).logsumexp(-1)
    assert (rows - rows[0]).tolist() == pytest.approx((-1.5 * (own - own[0])).tolist(), abs=1e-9)


def test_change_point_has_the_posterior_and_a_leak():
    law, text = at_a_text({"name": "change-point", "leak": 3.0})
    weights = ChangePoint().weights(list(text.score.steps))
    want = [w / max(weights) + math.exp(-3.0) for w in weights]
    rows = table(law, LM.head.usable).logsumexp(-1).exp()[: len(want)]
    assert (rows / rows[0]).tolist() == pytest.approx([w / want[0] for w in want], rel=1e-9)


def test_a_sum_is_a_product_of_laws():
    parts = ["policy", "change-point"]
    law, _ = at_a_text({"name": "sum", "parts": parts, "weights": [1.0, 0.5]})
    one, other = (at_a_text(part)[0] for part in parts)
    want = one.log_weights + 0.5 * other.log_weights
    assert torch.allclose(law.log_weights.exp(), want.exp(), atol=1e-12)
    with pytest.raises(ConfigError, match="as many weights"):
        moves.build({"name": "sum", "parts": parts, "weights": [1.0]})


def test_minimum_is_at_or_before_the_first_low_token():
    move = moves.build({"name": "minimum", "slack": 1.0, "preference": 2.0})
    weights = move.positions([3.0, 0.5, 2.0, 0.0, 1.0])
    assert weights == [0.0, 2.0, float("-inf"), float("-inf"), float("-inf")]
    assert moves.build("minimum").positions([math.nan, math.nan]) == [0.0, 0.0]


def test_value_drop_weighs_falls():
    found = moves.build({"name": "value-drop", "weight": 2.0}).positions([1.0, math.nan, 0.0, 3.0])
    assert found == [0.0, 0.0, 2.0, -6.0]


def plain_gains(text):
    """The reward's gradient in one-hot rows by autograd through the plain reward model."""
    reward = tiny_process_reward(TOKENS)
    bound = reward.bind(LM.vocabulary)
    layout = bound.layout(Response(text.prompt, text.tokens, Account("p", CostMeter(), "reward")))
    embedding = reward.model.get_input_embeddings().weight.detach()
    first, count = len(layout.before), len(layout.answer)
    rows = one_hot(layout.answer, len(embedding)).double().requires_grad_()
    before, after = embedding[layout.before], embedding[layout.after]
    scores = reward.model(inputs_embeds=torch.cat([before, rows @ embedding, after])[None]).logits[0, :, 0]
    (gradient,) = torch.autograd.grad(scores[first : first + count].min(), rows)
    own = gradient.gather(-1, layout.answer.unsqueeze(-1))
    return gradient - own  # what the reward gains


def test_first_order_gains_are_those_of_the_plain_model():
    law, text = at_a_text({"name": "first-order", "temperature": 2.0}, "reward")
    want = plain_gains(text)
    for row, gains in enumerate(want):
        finite = law.log_weights[row] > float("-inf")
        ids = law.candidates[row][finite]
        assert (2 * law.log_weights[row][finite]).tolist() == pytest.approx(gains[ids].tolist(), abs=1e-9)


def test_random_direction_has_the_same_gains_in_another_order():
    law, text = at_a_text("first-order", "reward")
    shuffled, _ = at_a_text("random-direction", "reward")
    changed = [not torch.equal(*(x.log_weights[i] for x in (law, shuffled))) for i in range(len(text))]
    assert any(changed)


def test_a_law_draws_its_density_and_nothing_twice():
    law = Law(3, torch.tensor([[0, 1], [2, 5]]), torch.tensor([[0.0, float("-inf")], [math.log(3), 0.0]]))
    generator = torch.Generator().manual_seed(0)
    counts = {}
    for _ in range(4000):
        pair = law.draw(generator)
        counts[pair] = counts.get(pair, 0) + 1
    pairs = (3, 0), (4, 2), (4, 5)
    assert counts == {p: pytest.approx(4000 * math.exp(law.log_density(*p)), rel=0.1) for p in pairs}
    assert law.log_density(3, 1) == law.log_density(9, 0) == float("-inf")
    tried = set()
    for _ in range(3):
        tried.add(law.draw(generator, tried=tried))
    assert tried == {(3, 0), (4, 2), (4, 5)}
    assert law.draw(generator, tried=tried) is None
    assert law.draw(generator, last=3) == (3, 0)
    assert law.draw(generator, last=2) is None


def test_a_move_that_returns_something_else_is_refused():
    class Odd(Move):
        async def log_weights(self, view):
            return view.log_policy[:1]

    with pytest.raises(NablaError, match="log_weights must return"):
        at_a_text(Odd())


def test_a_table_that_is_too_large_for_one_draw_is_drawn_row_by_row(monkeypatch):
    """torch.multinomial takes 2^24 categories."""
    monkeypatch.setattr("nabla.moves.base.CATEGORIES", 5)
    weights = torch.tensor([[0.0, 1.0, float("-inf")], [2.0, -1.0, 0.5]], dtype=torch.float64)
    law = Law(3, torch.tensor([[5, 6, 7], [8, 9, 4]]), weights)
    generator = torch.Generator().manual_seed(0)
    places = {(3, 5): 0, (3, 6): 1, (3, 7): 2, (4, 8): 3, (4, 9): 4, (4, 4): 5}
    drawn = torch.tensor([places[law.draw(generator)] for _ in range(4000)])
    assert follows(drawn, weights.flatten().softmax(-1))
    assert law.draw(generator, last=3, tried={(3, 6)}) == (3, 5)


def test_an_infinite_weight_is_refused_by_its_move():
    class Endless(Move):
        async def log_weights(self, view):
            weights = torch.zeros_like(view.log_policy)
            weights[0] = float("inf")
            return weights

    with pytest.raises(NablaError, match=r"Endless\.log_weights must return numbers"):
        at_a_text(Endless())
