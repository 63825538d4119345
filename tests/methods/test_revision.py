"""Revision is ∇-Reasoner with a gradient of zero, at a lower cost."""

from __future__ import annotations

import pytest

from nabla.core.errors import ConfigError
from nabla.engine.events import Callback, Events
from nabla.methods.base import methods
from nabla.rewards.function import FunctionReward
from tests.running import (
    SAMPLING,
    assert_anytime,
    assert_same_alone_and_together,
    facts,
    proposals,
    run,
    tiny_engine,
)

COMMON = {
    "proposal": {"name": "sample", "temperature": 1.5},
    "sampling": SAMPLING,
    "max_rollouts": 6,
}


def revision(**changes):
    return methods.build({"name": "revision", **COMMON, **changes})


def test_it_is_nabla_reasoner_at_a_learning_rate_of_zero():
    still = methods.build(
        {"name": "nabla-reasoner", "dto": {"steps": 2, "learning_rate": 0.0}, **COMMON, "rounds": 2}
    )
    with_gradient, without = run(tiny_engine(), still), run(tiny_engine(), revision(rounds=2))
    assert any(r.accepted for s in without for r in s.revisions)
    for a, b in zip(with_gradient, without, strict=True):
        assert (a.tokens, a.candidates) == (b.tokens, b.candidates)
        assert a.reward == pytest.approx(b.reward, rel=1e-9)
        assert proposals(a) == proposals(b)
        assert [c.tokens for c in a.checkpoints] == [c.tokens for c in b.checkpoints]
        assert b.cost.total.flops < a.cost.total.flops
        assert b.cost.total.backward_passes == 0 < a.cost.total.backward_passes
        assert b.cost.total.decode_steps == a.cost.total.decode_steps


def test_never_accepting_returns_the_first_rollout():
    kept = run(tiny_engine(), revision(acceptance="never"))
    first = run(tiny_engine(), methods.build("best-of-n", n=1, sampling=SAMPLING))
    assert [s.tokens for s in kept] == [s.tokens for s in first]
    assert any(s.revisions for s in kept)


def test_alone_and_together():
    assert_same_alone_and_together(revision(rounds=2))


def test_under_a_budget():
    assert_anytime(revision(), (60.0, 150.0))


def test_a_gradient_selector_needs_an_objective_and_pays_for_it():
    with pytest.raises(ConfigError, match="no objective"):
        revision(selector="gradient-norm")
    selecting = revision(selector={"name": "gradient-norm", "threshold": 0.0}, objective="sum")
    for solution in run(tiny_engine(), selecting):
        assert solution.cost.phases["selection"].backward_passes > 0
        assert solution.revisions
    with pytest.raises(ConfigError, match="selector's objective"):
        selecting.check(tiny_engine(reward=False))


def test_a_reward_of_any_kind_will_do_and_none_will_not():
    with pytest.raises(ConfigError, match="compares rewards"):
        revision().check(tiny_engine(reward=False))
    engine = tiny_engine(reward=False)
    engine = type(engine)(engine.lm, FunctionReward(lambda prompt, response: float(len(response))))
    assert any(r.accepted for s in run(engine, revision()) for r in s.revisions)


def test_a_width_offers_the_best_of_several_tokens_of_a_position_in_one_batch():
    wide = revision(width=4, proposal={"name": "sample", "temperature": 3.0}, max_rollouts=12)
    offers: dict[tuple[str, int, tuple[int, ...]], list[int]] = {}

    class Watch(Callback):
        def on_proposal(self, prompt, trajectory, position, token):
            key = prompt.id, position, tuple(trajectory.tokens.tolist())
            offers.setdefault(key, []).append(token)

    solutions = run(tiny_engine(events=Events([Watch()])), wide)
    assert max(map(len, offers.values())) > 1
    for (_, position, tokens), offered in offers.items():
        assert len(set(offered)) == len(offered) <= 4
        assert tokens[position] not in offered
    for solution in solutions:
        assert solution.candidates <= 12
        assert solution.cost.total.critical_steps < solution.cost.total.calls
    assert_same_alone_and_together(wide)
    with pytest.raises(ConfigError, match="needs the densities"):
        revision(width=2, acceptance="metropolis-hastings").check(tiny_engine())


def test_the_seed_decides():
    assert facts(run(tiny_engine(), revision())) == facts(run(tiny_engine(), revision()))
