"""Selectors and their compositions; the laws of every one are checked in tests/testing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nabla.core.errors import ConfigError
from nabla.selectors.base import And, Not, Or, Selector, selectors
from nabla.selectors.confidence import ConfidenceSelector
from nabla.selectors.entropy import EntropySelector
from nabla.selectors.gradient_norm import GradientNormSelector
from nabla.selectors.simple import All, RandomSelector
from nabla.testing.inputs import SessionStandIn, at_once
from tests.strategies import INF, make_trajectory, seeded, trajectories

few = settings(max_examples=60)


def make_view(trajectory, seed=0, norms=True):
    """Gradient norms are NaN at committed positions, as the engine gives them."""
    length = len(trajectory)
    plain = 16 * torch.rand(length, generator=seeded(seed))
    plain[: trajectory.committed] = float("nan")
    return trajectory, SessionStandIn(seed, (plain, 0.7 * plain) if norms else None)


def select(selector, view):
    return at_once(selector.select(*view))


def free(trajectory):
    mask = torch.arange(len(trajectory)) >= trajectory.committed
    if trajectory.finished:
        mask[-1] = False
    return mask


@given(trajectories())
def test_trap_a_rollout_started_after_an_accepted_end_of_sequence_token(trajectory):
    """The end of a finished response is never offered for refinement, so nothing is written behind it."""
    mask = select(All(), make_view(trajectory))
    assert torch.equal(mask, free(trajectory))
    assert not (trajectory.finished and bool(mask[-1]))


# -- thresholds ------------------------------------------------------------------------------------


@given(trajectories(), st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**31))
def test_monotone_in_the_threshold(trajectory, a, b, seed):
    low, high = sorted([a, b])

    def chosen(selector):
        return select(selector, make_view(trajectory, seed))

    stricter_first = [
        (EntropySelector(3 * high), EntropySelector(3 * low)),
        (GradientNormSelector(16 * high), GradientNormSelector(16 * low)),
        (GradientNormSelector(16 * high, centred=False), GradientNormSelector(16 * low, centred=False)),
        (ConfidenceSelector(low), ConfidenceSelector(high)),
        (RandomSelector(low), RandomSelector(high)),
    ]
    for strict, loose in stricter_first:
        assert not bool((chosen(strict) & ~chosen(loose)).any())


def test_thresholds_are_the_papers():
    """Entropy at most 0.25 nats, top-1 above 0.95 and gradient norm at most 8 are skipped."""
    trajectory = make_trajectory(
        [1, 2, 3, 4],
        entropy=torch.tensor([0.2, 0.25, 0.26, 3.0]),
        top1=torch.tensor([0.94, 0.95, 0.96, 1.0]),
    )
    norms = torch.tensor([7.0, 8.0, 8.1, 9.0])
    view = (trajectory, SessionStandIn(0, (norms + 100, norms)))
    assert select(EntropySelector(), view).tolist() == [False, False, True, True]
    assert select(ConfidenceSelector(), view).tolist() == [True, True, False, False]
    assert select(GradientNormSelector(), view).tolist() == [False, False, True, True]
    assert select(GradientNormSelector(centred=False), view).tolist() == [True] * 4
    assert select(EntropySelector(float(trajectory.entropy[3])), view).tolist() == [False] * 4


def test_random_selects_its_share():
    view = make_view(make_trajectory([1] * 4000, entropy=torch.zeros(4000), top1=torch.ones(4000)))
    share = float(select(RandomSelector(0.3), view).float().mean())
    assert abs(share - 0.3) < 5 * (0.3 * 0.7 / 4000) ** 0.5
    assert not bool(select(RandomSelector(0.0), view).any())
    assert bool(select(RandomSelector(1.0), view).all())


def test_two_random_parts_draw_apart():
    view = make_view(make_trajectory([1] * 4000, entropy=torch.zeros(4000), top1=torch.ones(4000)))
    share = float(select(RandomSelector(0.5) & RandomSelector(0.5), view).float().mean())
    assert abs(share - 0.25) < 5 * (0.25 * 0.75 / 4000) ** 0.5


@pytest.mark.parametrize(
    "make",
    [
        lambda: EntropySelector(float("nan")),
        lambda: GradientNormSelector(INF),
        lambda: ConfidenceSelector(1.01),
        lambda: ConfidenceSelector(float("nan")),
        lambda: RandomSelector(-0.1),
        lambda: RandomSelector(float("nan")),
    ],
)
def test_settings_are_checked(make):
    with pytest.raises(ConfigError):
        make()


# -- compositions ----------------------------------------------------------------------------------

atoms = st.sampled_from(
    [All(), EntropySelector(1.0), ConfidenceSelector(0.5), GradientNormSelector(6.0), RandomSelector(0.5)]
)


@given(trajectories(), atoms, atoms, st.integers(0, 2**31))
def test_boolean_algebra_on_free_positions(trajectory, a, b, seed):
    def chosen(selector):
        return select(selector, make_view(trajectory, seed))

    assert torch.equal(chosen(~(a & b)), chosen(~a | ~b))  # De Morgan
    assert torch.equal(chosen(~(a | b)), chosen(~a & ~b))
    assert torch.equal(chosen(~~a), chosen(a))
    assert torch.equal(chosen(a & All()), chosen(a))
    assert torch.equal(chosen(a | ~All()), chosen(a))
    assert torch.equal(chosen(a) | chosen(~a), free(trajectory))
    assert not bool((chosen(a) & chosen(~a)).any())


def test_operators_and_settings_make_the_same_compositions():
    view = make_view(make_trajectory([1, 2, 3, 4, 5]))
    by_name = selectors.build(
        {"name": "and", "parts": ["entropy", {"name": "not", "selector": "confidence"}]}
    )
    by_operator = EntropySelector() & ~ConfidenceSelector()
    assert torch.equal(select(by_name, view), select(by_operator, view))
    assert isinstance(EntropySelector() | All(), Or)


def test_a_composition_needs_what_its_parts_need():
    gradient = GradientNormSelector()
    assert And([All(), gradient]).needs_gradient
    assert Or([gradient, All()]).needs_gradient
    assert Not(gradient).needs_gradient
    assert not (All() & ~EntropySelector()).needs_gradient


@pytest.mark.parametrize("parts", [[], ()])
def test_a_composition_has_parts(parts):
    with pytest.raises(ConfigError, match="list of at least one selector"):
        And(parts)


def test_a_name_alone_is_no_list_of_parts():
    with pytest.raises(ConfigError, match="list of at least one selector"):
        selectors.build({"name": "or", "parts": "entropy"})


# -- the contract ----------------------------------------------------------------------------------


def broken(value):
    """A selector whose mask is ``value``, unchecked by annotations."""

    class Broken(Selector):
        async def mask(self, trajectory, session):
            return value

    return Broken()


@pytest.mark.parametrize(
    "value",
    [torch.tensor([0, 2]), [0, 2], torch.tensor([True]), torch.tensor([[True] * 3]), torch.ones(3)],
    ids=["positions", "list", "short", "two axes", "floats"],
)
def test_a_selector_returns_a_mask_and_not_positions(value):
    with pytest.raises(ConfigError, match=r"boolean tensor of shape \[3\].*Return a mask, not positions"):
        select(broken(value), make_view(make_trajectory([1, 2, 3])))
