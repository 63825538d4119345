"""Random directions have the gradient's norms and nothing else of it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nabla.core.errors import ConfigError
from nabla.methods.base import methods
from nabla.refinement.directions import Direction, RandomDirection, turned
from nabla.refinement.dto import DTO
from tests.cases import FINISHED, case
from tests.running import SAMPLING, assert_anytime, assert_same_alone_and_together, run, tiny_engine

DTO_SPEC = {"steps": 3, "learning_rate": 0.5}


def method(name="random-direction", **changes):
    spec = {"dto": DTO_SPEC, "proposal": {"name": "sample", "temperature": 1.5}, "sampling": SAMPLING}
    return methods.build({"name": name, **spec, "max_rollouts": 4, **changes})


@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 4),
    width=st.integers(4, 9),
    terms=st.integers(1, 3),
    masked=st.booleans(),
    mean=st.floats(-5, 5),
)
def test_norms_means_and_angles_stay_and_directions_do_not(seed, rows, width, terms, masked, mean):
    noise = torch.Generator().manual_seed(seed)
    given_rows = {
        str(i): torch.randn(rows, width, generator=noise, dtype=torch.float64) + mean for i in range(terms)
    }
    usable = torch.ones(rows, width, dtype=torch.bool)
    if masked and width - 1 > terms + 1:
        usable[:, 0] = False
        given_rows = {name: row * usable for name, row in given_rows.items()}
    found = turned(given_rows, usable, noise)
    weights = torch.randn(terms, generator=noise, dtype=torch.float64).tolist()
    before = sum(w * row for w, row in zip(weights, given_rows.values(), strict=True))
    after = sum(w * row for w, row in zip(weights, found.values(), strict=True))
    assert torch.allclose(before.norm(dim=-1), after.norm(dim=-1), rtol=1e-6, atol=1e-6)
    assert torch.allclose(before.sum(-1), after.sum(-1), atol=1e-8)
    assert (after * ~usable == 0).all()
    for name, row in given_rows.items():
        assert torch.allclose(row.norm(dim=-1), found[name].norm(dim=-1), rtol=1e-6)
        assert ((row - found[name]).norm(dim=-1) > 1e-3).all()


def test_the_directions_have_no_preference():
    """The mean of many turned rows is the noise floor's: 1/sqrt(n) of their norm."""
    count, row = 4000, torch.tensor([3.0, -1.0, -1.0, -1.0], dtype=torch.float64)
    usable = torch.ones(count, 4, dtype=torch.bool)
    many = turned({"term": row.repeat(count, 1)}, usable, torch.Generator().manual_seed(0))["term"]
    norm = row.norm()
    assert many.mean(0).norm() < 4 * norm / count**0.5
    covariance = many.T @ many / count
    expected = norm**2 / 3 * (torch.eye(4, dtype=torch.float64) - 0.25)
    assert torch.allclose(covariance, expected, atol=0.05 * float(norm**2))


@pytest.mark.parametrize("rows", ["first", "all"])
@pytest.mark.parametrize("estimator", ["straight-through", "soft-embedding"])
def test_a_refinement_is_paid_for_in_full_and_goes_elsewhere(rows, estimator):
    c = case()
    trajectory = c.trajectory(FINISHED, 2)
    seen = []

    class Watched(Direction):
        def of(self, rows, reference, trajectory, session):
            found = RandomDirection().of(rows, reference, trajectory, session)
            seen.append((rows, found))
            return found

    def refine(dto, direction=None):
        async def ask(session):
            refined = await dto.refine(trajectory, session, direction=direction)
            return refined, session.cost.total

        return c.run(ask)

    # One step: both take one gradient, at the same rows.
    plain = DTO(rows=rows, estimator=estimator, steps=1, learning_rate=0.5)
    (true, cost), (random, paid) = refine(plain), refine(plain, Watched())
    assert (paid.calls, paid.flops) == (cost.calls, cost.flops)
    assert not torch.allclose(true.logits, random.logits)
    assert {n: t.value for n, t in true.first.terms.items()} == pytest.approx(
        {n: t.value for n, t in random.first.terms.items()}
    )
    ((given_rows, found),) = seen
    assert set(found) == {"reward", "likelihood"}
    for name, row in given_rows.items():
        assert torch.allclose(row.norm(dim=-1), found[name].norm(dim=-1), rtol=1e-6)
        assert not torch.allclose(row, found[name])


def test_it_refines_elsewhere_than_nabla_reasoner():
    true, random = run(tiny_engine(), method("nabla-reasoner")), run(tiny_engine(), method())
    assert any(a.revisions != b.revisions for a, b in zip(true, random, strict=True))
    assert all(s.cost.total.backward_passes > 0 for s in random)


def test_alone_and_together():
    assert_same_alone_and_together(method(rounds=2))


def test_under_a_budget():
    assert_anytime(method(), (60.0, 150.0))


def test_what_cannot_be_turned():
    with pytest.raises(ConfigError, match="asks for values"):
        method(dto={"estimator": "score-function"})
    with pytest.raises(ConfigError, match="more candidates"):
        method(dto={"rows": {"name": "all", "support": 2}})
    with pytest.raises(ConfigError, match="differentiable reward"):
        method().check(tiny_engine(reward=False))
