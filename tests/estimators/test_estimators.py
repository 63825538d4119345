"""Laws of every registered estimator, and the closed forms of the shipped ones."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import one_hot

from nabla.core.errors import ConfigError
from nabla.core.random import gumbel_like
from nabla.estimators.base import Estimator, estimators
from nabla.estimators.gumbel import GumbelSoftmax, GumbelStraightThrough
from nabla.estimators.soft import SoftEmbedding
from nabla.estimators.stale import Stale
from nabla.estimators.straight_through import StraightThrough, StraightThroughIdentity
from nabla.schedulers.base import Step
from nabla.schedulers.linear import Linear
from tests.strategies import DISTINCT, INF, follows, logits, make_logits, seeded

ARGUMENTS = {"stale": {"estimator": "gumbel-softmax", "bound": 0.5}}
ALL = [estimators.build({"name": name, **ARGUMENTS.get(name, {})}) for name in estimators]
ALL.append(Stale("straight-through", 0.5))
every = pytest.mark.parametrize("estimator", ALL, ids=estimators.name_of)
deterministic = pytest.mark.parametrize(
    "estimator", [e for e in ALL if not e.stochastic], ids=estimators.name_of
)
both = (torch.float32, torch.float64)
few = settings(max_examples=40)


def gradient(estimator, z, cotangent, seed=0, **arguments):
    """The pull-back of ``cotangent`` through the estimator at ``z``."""
    leaf = z.clone().requires_grad_()
    rows = estimator(leaf, generator=seeded(seed), **arguments)
    feedback = cotangent
    if estimator.feedback == "value":  # of a linear objective
        feedback = (rows.detach() * cotangent).sum((-2, -1))
    (found,) = torch.autograd.grad(estimator.loss(leaf, rows, feedback), leaf)
    return found


# -- forward ---------------------------------------------------------------------------------------


@every
@few
@given(z=logits(dtypes=both))
def test_rows_are_on_the_simplex_and_keep_their_dtype(estimator, z):
    rows = estimator(z, generator=seeded())
    assert rows.shape == (z.shape if estimator.draws == 1 else (estimator.draws, *z.shape))
    assert rows.dtype == z.dtype
    assert bool((rows >= 0).all())
    torch.testing.assert_close(rows.sum(-1), torch.ones(rows.shape[:-1], dtype=z.dtype))
    if estimator.hard:
        torch.testing.assert_close(rows, one_hot(rows.argmax(-1), z.shape[-1]).to(z), rtol=0, atol=0)


@every
@few
@given(z=logits(dtypes=both))
def test_a_graph_does_not_change_the_rows(estimator, z):
    free = estimator(z, generator=seeded())
    tracked = estimator(z.clone().requires_grad_(), generator=seeded())
    assert torch.equal(free, tracked.detach())


@every
@few
@given(z=logits(), shift=st.floats(-50, 50))
def test_shift_invariance(estimator, z, shift):
    torch.testing.assert_close(
        estimator(z, generator=seeded()), estimator(z + shift, generator=seeded()), rtol=1e-7, atol=1e-9
    )


@deterministic
@few
@given(z=logits(kinds=DISTINCT), seed=st.integers(0, 2**31))
def test_permutation_equivariance(estimator, z, seed):
    order = torch.randperm(z.shape[-1], generator=seeded(seed))
    torch.testing.assert_close(
        estimator(z[:, order], generator=seeded()), estimator(z, generator=seeded())[:, order]
    )


@deterministic
@few
@given(z=logits(dtypes=both, min_rows=2))
def test_batch_independence(estimator, z):
    alone = torch.cat([estimator(row.unsqueeze(0), generator=seeded()) for row in z])
    torch.testing.assert_close(estimator(z, generator=seeded()), alone, rtol=1e-6, atol=1e-7)


@every
@given(z=logits(dtypes=both), seed=st.integers(0, 2**31))
@few
def test_deterministic_given_the_generator(estimator, z, seed):
    cotangent = torch.randn(z.shape, generator=seeded(1), dtype=z.dtype)
    assert torch.equal(
        estimator(z, generator=seeded(seed)),
        estimator(z.clone(), generator=seeded(seed)),
    )
    assert torch.equal(gradient(estimator, z, cotangent, seed), gradient(estimator, z, cotangent, seed))


@every
def test_only_noisy_estimators_depend_on_the_generator(estimator):
    z = make_logits("uniform", 4, 9, 0, torch.float64, False)
    first, second = (
        (estimator(z, generator=seeded(seed)), gradient(estimator, z, z, seed)) for seed in (0, 1)
    )
    assert all(map(torch.equal, first, second)) != estimator.stochastic


# -- backward --------------------------------------------------------------------------------------


@every
@few
@given(z=logits(dtypes=both), seed=st.integers(0, 2**31))
def test_gradients_are_finite_and_zero_at_masked_candidates(estimator, z, seed):
    cotangent = torch.randn(z.shape, generator=seeded(seed), dtype=z.dtype)
    found = gradient(estimator, z, cotangent, seed)
    assert bool(torch.isfinite(found).all())
    assert bool((found[z == -INF] == 0).all())
    rows = estimator(z, generator=seeded(seed))
    assert bool(torch.isfinite(rows).all())
    assert bool((rows[(z == -INF).expand(rows.shape)] == 0).all())


SOFTMAX_BACKWARD = [
    SoftEmbedding(0.7),
    StraightThrough(0.7),
    GumbelSoftmax(0.7),
    GumbelStraightThrough(0.7),
    Stale(StraightThrough(0.7), 1.0),
]


@pytest.mark.parametrize("estimator", SOFTMAX_BACKWARD, ids=lambda e: type(e).__name__)
@given(z=logits(), seed=st.integers(0, 2**31))
@few
def test_backward_is_equation_25(estimator, z, seed):
    """``∂L/∂z = x (∂L/∂x - x^T ∂L/∂x) / τ`` with x the declared softmax; each row sums to zero."""
    cotangent = torch.randn(z.shape, generator=seeded(1), dtype=z.dtype)
    noise = gumbel_like(z, seeded(seed)) if estimator.stochastic else 0.0
    x = ((z + noise) / 0.7).softmax(-1)
    expected = x * (cotangent - (x * cotangent).sum(-1, keepdim=True)) / 0.7
    found = gradient(estimator, z, cotangent, seed)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.sum(-1), torch.zeros(len(z), dtype=z.dtype))


@given(z=logits(), seed=st.integers(0, 2**31))
@few
def test_identity_passes_the_gradient_unchanged(z, seed):
    cotangent = torch.randn(z.shape, generator=seeded(seed), dtype=z.dtype)
    found = gradient(StraightThroughIdentity(), z, cotangent)
    assert torch.equal(found, cotangent.masked_fill(z == -INF, 0.0))


@pytest.mark.parametrize("estimator", [SoftEmbedding(0.7), GumbelSoftmax(0.7)], ids=["soft", "gumbel"])
def test_the_backward_of_a_soft_estimator_is_its_derivative(estimator):
    z = make_logits("normal", 3, 5, 0, torch.float64, False).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: estimator(x, generator=seeded()), (z,))


# -- temperature -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("soft", "hard"),
    [(SoftEmbedding, StraightThrough), (GumbelSoftmax, GumbelStraightThrough)],
    ids=["plain", "gumbel"],
)
@given(z=logits(kinds=("normal", "extreme", "one-hot")))
@few
def test_temperature_limits(soft, hard, z):
    cold = soft(1e-9)(z, generator=seeded())
    torch.testing.assert_close(cold, hard(1.0)(z, generator=seeded()), rtol=0, atol=1e-6)
    hot = soft(1e9)(z, generator=seeded())
    uniform = (z > -INF).double() / (z > -INF).sum(-1, keepdim=True)
    torch.testing.assert_close(hot, uniform, rtol=1e-3, atol=1e-4)


def test_the_temperature_follows_its_schedule():
    z = make_logits("normal", 2, 5, 0, torch.float64, False)
    annealed = SoftEmbedding(Linear(2.0, 0.5))
    for index, temperature in enumerate([2.0, 1.25, 0.5]):
        rows = annealed(z, generator=seeded(), step=Step(index, 3))
        torch.testing.assert_close(rows, (z / temperature).softmax(-1))


@pytest.mark.parametrize("temperature", [0.0, -1.0, Linear(1.0, 0.0)], ids=["0", "-1", "to 0"])
def test_a_temperature_must_be_positive(temperature):
    with pytest.raises(ConfigError, match="must be positive"):
        SoftEmbedding(temperature)


# -- noise -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [GumbelStraightThrough(0.3), GumbelSoftmax(0.3)], ids=["hard", "soft"])
@pytest.mark.parametrize("dtype", both)
def test_gumbel_draws_follow_the_softmax(estimator, dtype):
    z = torch.tensor([1.0, 0.0, -1.5, 2.0, -INF, 0.3], dtype=dtype)
    rows = estimator(z.expand(20_000, -1), generator=seeded(7))
    assert follows(rows.argmax(-1), z.softmax(-1))
    assert not follows(rows.argmax(-1), (z / 1.1).softmax(-1))  # the test can tell


# -- gradient caching (Algorithm 4) ----------------------------------------------------------------


@pytest.mark.parametrize("estimator", [e for e in ALL if not isinstance(e, Stale)], ids=estimators.name_of)
def test_a_gradient_is_reusable_at_equal_rows_and_nowhere_else(estimator):
    rows = torch.tensor([[0.2, 0.8], [1.0, 0.0]])
    moved = rows + torch.tensor([[1e-7, -1e-7], [0.0, 0.0]])
    assert estimator.reusable(rows, rows.clone())
    assert not estimator.reusable(rows, moved)
    assert not estimator.reusable(rows * float("nan"), rows * float("nan"))


@pytest.mark.parametrize("estimator", [e for e in ALL if e.stochastic], ids=estimators.name_of)
def test_trap_caching_applied_to_noisy_estimators(estimator):
    """Fresh noise moves the rows, so the cached gradient is not valid any more."""
    z = torch.zeros(3, 9, dtype=torch.float64)
    source = seeded()
    first, second = estimator(z, generator=source), estimator(z, generator=source)
    assert not estimator.reusable(first, second)


def test_stale_reuses_up_to_its_bound_in_the_largest_row():
    stale = Stale(SoftEmbedding(), 0.5)
    rows = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    near = rows + torch.tensor([[-0.25, 0.25], [0.0, 0.0]])  # L1 distance 0.5
    far = rows + torch.tensor([[-0.26, 0.26], [0.0, 0.0]])
    assert stale.reusable(rows, near)
    assert not stale.reusable(rows, far)
    assert not stale.reusable(rows, rows * float("nan"))


@given(z=logits(), seed=st.integers(0, 2**31))
@few
@pytest.mark.parametrize("inner", [StraightThrough(0.4), GumbelSoftmax(0.4)], ids=lambda e: type(e).__name__)
def test_stale_is_its_estimator_but_for_reuse(inner, z, seed):
    stale = Stale(inner, 0.1)
    assert (stale.hard, stale.stochastic) == (inner.hard, inner.stochastic)
    assert stale.temperature is inner.temperature
    assert torch.equal(stale(z, generator=seeded(seed)), inner(z, generator=seeded(seed)))


@pytest.mark.parametrize("bound", [-0.1, float("nan"), INF])
def test_stale_checks_its_bound(bound):
    with pytest.raises(ConfigError, match="bound"):
        Stale(SoftEmbedding(), bound)


# -- the contract ----------------------------------------------------------------------------------


class Halved(Estimator):
    """Breaks the contract: changes the dtype."""

    hard = False
    stochastic = False

    def relax(self, logits, *, generator, step, anchor):
        return logits.softmax(-1).half()


def test_relax_must_keep_shape_and_dtype():
    with pytest.raises(ConfigError, match=r"Halved\.relax must keep shape and dtype"):
        Halved()(torch.zeros(1, 3), generator=seeded())
