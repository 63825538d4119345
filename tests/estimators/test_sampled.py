"""Estimators with a sampled forward text against closed forms, enumeration and rejection sampling."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nabla.core.errors import ConfigError
from nabla.core.random import conditional_gumbel, gumbel_like
from nabla.estimators.anchors.base import Anchor, AnchorPoint
from nabla.estimators.base import Estimator, HardEstimator, closed_form
from nabla.estimators.decoupled import DecoupledStraightThrough
from nabla.estimators.gapped import GappedStraightThrough
from nabla.estimators.gumbel import GumbelStraightThrough
from nabla.estimators.rao_gumbel import RaoGumbel
from nabla.estimators.reinmax import ReinMax
from nabla.estimators.score_function import ScoreFunction
from nabla.estimators.stale import Stale
from nabla.estimators.straight_through import StraightThrough
from nabla.schedulers.linear import Linear
from nabla.study.laboratory.problems import linear, normal_logits, quadratic, text_rows
from nabla.study.laboratory.truths import expectation, relative_error
from nabla.testing import check_estimator
from tests.strategies import ALPHA, follows, logits, make_logits, seeded

few = settings(max_examples=30)


class Stand(Anchor):
    """Stands at the given token."""

    def index(self, scores, reference_scores, chosen):
        return chosen


def pulled(estimator, z, chosen, cotangent, seed=0):
    """The pull-back of ``cotangent`` at a forced forward token."""
    leaf = z.clone().requires_grad_()
    rows = estimator(leaf, generator=seeded(seed), anchor=AnchorPoint(Stand(), z, chosen))
    assert torch.equal(rows.argmax(-1), chosen)
    (found,) = torch.autograd.grad(rows, leaf, cotangent)
    return found


def jacobian_times(p, g):
    """Eq. 25."""
    return p * (g - (p * g).sum(-1, keepdim=True))


# -- ReinMax -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [1.0, 0.6, 2.0])
def test_reinmax_is_algorithm_2(tau):
    z = make_logits("normal", 5, 6, 0, torch.float64, False)
    g = torch.randn(5, 6, generator=seeded(1), dtype=z.dtype)
    chosen = torch.tensor([0, 5, 2, 3, 3])
    d = torch.nn.functional.one_hot(chosen, 6).double()
    middle = (d + (z / tau).softmax(-1)) / 2
    expected = 2 * jacobian_times(middle, g) - 0.5 * jacobian_times(z.softmax(-1), g)
    torch.testing.assert_close(pulled(ReinMax(tau), z, chosen, g), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("make", [linear, quadratic])
def test_reinmax_is_exact_for_quadratic_functions(make, length):
    source = seeded(length)
    problem = make(normal_logits(length, 4, source), source)
    assert relative_error(expectation(ReinMax(), problem), problem.exact()) < 1e-12


def test_reinmax_is_not_exact_at_another_temperature():
    source = seeded(0)
    problem = quadratic(normal_logits(2, 4, source), source)
    assert relative_error(expectation(ReinMax(2.0), problem), problem.exact()) > 1e-3


# -- conditional noise and Rao-Blackwellisation ---------------------------------------------------------


@given(z=logits(), seed=st.integers(0, 2**31))
@settings(max_examples=60)
def test_conditional_noise_gives_the_token(z, seed):
    chosen = torch.multinomial((z > -float("inf")).double(), 1, generator=seeded(seed))[:, 0]
    noise = conditional_gumbel(z, chosen, seeded(seed))
    assert bool(torch.isfinite(noise).all())
    scores = z + noise
    assert bool((scores.gather(-1, chosen[:, None])[:, 0] >= scores.amax(-1)).all())
    assert bool((noise[z == -float("inf")] == 0).all())


def test_conditional_noise_of_sampled_tokens_is_gumbel():
    z = torch.tensor([1.0, -0.5, 0.3, 2.0], dtype=torch.float64)
    many = z.expand(20_000, -1)
    chosen = torch.multinomial(z.softmax(-1), len(many), replacement=True, generator=seeded(0))
    noise = conditional_gumbel(many, chosen, seeded(1))
    for column in noise.T:
        assert stats.kstest(column.numpy(), stats.gumbel_r.cdf).pvalue > ALPHA
    correlations = torch.corrcoef(noise.T) - torch.eye(4)
    assert float(correlations.abs().max()) < 5 / len(many) ** 0.5


@pytest.mark.parametrize("token", [0, 3])
def test_conditional_noise_is_what_rejection_leaves(token):
    z = torch.tensor([1.0, -0.5, 0.3, 2.0], dtype=torch.float64)
    free = gumbel_like(z.expand(40_000, -1), seeded(0))
    kept = free[(z + free).argmax(-1) == token]
    drawn = conditional_gumbel(z.expand(len(kept), -1), torch.full((len(kept),), token), seeded(1))
    for left, right in zip(kept.T, drawn.T, strict=True):
        assert stats.ks_2samp(left.numpy(), right.numpy()).pvalue > ALPHA


@pytest.mark.parametrize("token", [0, 3])
def test_rao_gumbel_is_the_conditional_mean_of_gumbel_straight_through(token):
    z = torch.tensor([1.0, -0.5, 0.3, 2.0], dtype=torch.float64)
    g = torch.tensor([1.0, -1.0, 0.5, 2.0], dtype=torch.float64)
    tau, n = 0.7, 60_000
    leaf = z.expand(n, -1).clone().requires_grad_()
    rows = GumbelStraightThrough(tau)(leaf, generator=seeded(0))
    (every,) = torch.autograd.grad(rows, leaf, g.expand(n, -1))
    kept = every[rows.argmax(-1) == token]
    many = z.expand(3000, -1)
    mine = pulled(RaoGumbel(tau, samples=10), many, torch.full((3000,), token), g.expand(3000, -1))
    error = (kept.var(0) / len(kept) + mine.var(0) / len(mine)).sqrt()
    assert float(((kept.mean(0) - mine.mean(0)) / error).abs().max()) < 4.5
    ratio = mine.var(0).sum() / kept.var(0).sum()  # 1/samples
    assert 0.08 < float(ratio) < 0.125


@pytest.mark.parametrize("samples", [0, -1])
def test_rao_gumbel_needs_a_sample(samples):
    with pytest.raises(ConfigError, match="samples"):
        RaoGumbel(samples=samples)


# -- gapped -------------------------------------------------------------------------------------------


@given(z=logits(masked=False), seed=st.integers(0, 2**31), gap=st.sampled_from([0.0, 1.0, 3.0]))
@few
def test_gapped_moves_the_sample_on_top_by_the_gap(z, seed, gap):
    """Row by row, in words: lift D to the maximum, push others at least the gap below it."""
    chosen = torch.multinomial(torch.ones_like(z), 1, generator=seeded(seed))[:, 0]
    moved = z.clone()
    for row, token in enumerate(chosen.tolist()):
        top = float(z[row].max())
        for column in range(z.shape[1]):
            moved[row, column] = top if column == token else min(float(z[row, column]), top - gap)
    g = torch.randn(z.shape, generator=seeded(1), dtype=z.dtype)
    expected = jacobian_times((moved / 0.7).softmax(-1), g) / 0.7
    found = pulled(GappedStraightThrough(0.7, gap), z, chosen, g)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("gap", [-1.0, float("inf"), float("nan")])
def test_gapped_checks_its_gap(gap):
    with pytest.raises(ConfigError, match="gap"):
        GappedStraightThrough(gap=gap)


# -- decoupled ---------------------------------------------------------------------------------------


def test_decoupled_samples_at_one_temperature_and_differentiates_at_another():
    z = torch.tensor([1.0, 0.0, -1.5, 2.0], dtype=torch.float64)
    estimator = DecoupledStraightThrough(2.0, 0.5)
    rows = estimator(z.expand(20_000, -1), generator=seeded(0))
    assert follows(rows.argmax(-1), (z / 2).softmax(-1))
    assert not follows(rows.argmax(-1), z.softmax(-1))
    g = torch.tensor([[1.0, 2.0, -1.0, 0.5]], dtype=torch.float64)
    found = pulled(estimator, z[None], torch.tensor([1]), g)
    torch.testing.assert_close(found, jacobian_times((z[None] / 0.5).softmax(-1), g) / 0.5)


@pytest.mark.parametrize("temperature", [0.0, -1.0, Linear(1.0, 0.0)], ids=["0", "-1", "to 0"])
def test_decoupled_temperatures_are_positive(temperature):
    with pytest.raises(ConfigError, match="forward_temperature must be positive"):
        DecoupledStraightThrough(temperature)
    with pytest.raises(ConfigError, match="must be positive"):
        DecoupledStraightThrough(1.0, temperature)


@pytest.mark.parametrize("estimator", [ReinMax(), RaoGumbel(), GappedStraightThrough()])
def test_samples_follow_the_softmax(estimator):
    z = torch.tensor([1.0, 0.0, -1.5, 2.0], dtype=torch.float64)
    assert follows(estimator(z.expand(10_000, -1), generator=seeded(3)).argmax(-1), z.softmax(-1))


# -- the score function --------------------------------------------------------------------------------


@pytest.mark.parametrize("draws", [2, 3])
def test_the_score_function_is_unbiased_by_enumeration(draws):
    """Every combination of texts, weighted by its probability: the exact gradient."""
    source = seeded(0)
    problem = quadratic(normal_logits(2, 2, source), source)
    texts, estimator = text_rows(2, 2), ScoreFunction(draws)
    log_p = (texts * problem.logits.log_softmax(-1)).sum((-2, -1))
    total = torch.zeros_like(problem.logits)
    for picks in torch.cartesian_prod(*[torch.arange(len(texts))] * draws):
        leaf = problem.logits.clone().requires_grad_()
        loss = estimator.loss(leaf, texts[picks], problem.values[picks])
        (gradient,) = torch.autograd.grad(loss, leaf)
        total += log_p[picks].sum().exp() * gradient
    torch.testing.assert_close(total, problem.exact(), rtol=1e-12, atol=1e-13)


def test_the_baseline_removes_constants():
    z = make_logits("normal", 3, 5, 0, torch.float64, False).requires_grad_()
    estimator = ScoreFunction(4)
    rows = estimator(z, generator=seeded(0))
    values = torch.tensor([1.0, 3.0, -2.0, 0.5], dtype=z.dtype)
    found = [torch.autograd.grad(estimator.loss(z, rows, values + c), z)[0] for c in (0.0, 1e3)]
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)
    (flat,) = torch.autograd.grad(estimator.loss(z, rows, torch.full_like(values, 7.0)), z)
    assert not flat.any()


def test_independent_problems_may_share_a_call():
    """Values ``[draws, n]``: the gradient of each problem is as alone."""
    z = make_logits("normal", 6, 4, 0, torch.float64, False).reshape(3, 2, 4)
    estimator, leaf = ScoreFunction(3), z.clone().requires_grad_()
    rows = estimator(leaf, generator=seeded(0))
    values = torch.randn(3, 3, generator=seeded(1), dtype=z.dtype)
    (together,) = torch.autograd.grad(estimator.loss(leaf, rows, values), leaf)
    for i in range(3):
        own = z[i].clone().requires_grad_()
        (alone,) = torch.autograd.grad(estimator.loss(own, rows[:, i], values[:, i]), own)
        torch.testing.assert_close(together[i], alone)


def test_stale_passes_values_through():
    stale = Stale(ScoreFunction(3), 0.5)
    assert (stale.draws, stale.feedback, stale.hard) == (3, "value", True)
    z = make_logits("normal", 2, 4, 0, torch.float64, False).requires_grad_()
    rows = stale(z, generator=seeded(0))
    values = torch.tensor([1.0, 2.0, 0.0], dtype=z.dtype)
    assert torch.equal(stale.loss(z, rows, values), ScoreFunction(3).loss(z, rows, values))


def test_stale_values_serve_no_other_texts():
    """The value of one text on the log-probability of another is noise of mean 0, not the gradient."""
    stale = Stale(ScoreFunction(2), 2.0)
    z = torch.zeros(3, 4, dtype=torch.float64)
    first, second = stale(z, generator=seeded(0)), stale(z, generator=seeded(1))
    assert not torch.equal(first, second)
    assert not stale.reusable(first, second)
    assert stale.reusable(first, first.clone())


@pytest.mark.parametrize("draws", [1, 0])
def test_the_baseline_needs_another_text(draws):
    with pytest.raises(ConfigError, match="draws must be at least 2"):
        ScoreFunction(draws)


# -- the interface ------------------------------------------------------------------------------------


def relax(self, logits, *, generator, step, anchor):
    return logits


def test_a_class_declares_whether_its_rows_are_texts():
    with pytest.raises(ConfigError, match="Undeclared does not declare whether its rows are one-hot"):
        type("Undeclared", (Estimator,), {"relax": relax})()
    type("StillAbstract", (Estimator,), {})
    assert type("Declared", (Estimator,), {"relax": relax, "hard": False})().stochastic


def test_only_texts_have_values():
    with pytest.raises(ConfigError, match="which only texts have"):
        type("Wrong", (Estimator,), {"relax": relax, "hard": False, "feedback": "value"})()
    with pytest.raises(ConfigError, match="feedback is 'gradient' or 'value'"):
        type("Wrong", (Estimator,), {"relax": relax, "hard": True, "feedback": "reward"})()


def test_the_number_of_draws_is_checked():
    class Forgetful(Estimator):
        """Says two draws, returns one."""

        hard = True
        draws = 2

        def relax(self, logits, *, generator, step, anchor):
            return logits.softmax(-1)

    with pytest.raises(ConfigError, match=r"\(2, 1, 3\)"):
        Forgetful()(torch.zeros(1, 3), generator=seeded())


class Tempered(HardEstimator):
    """A hard estimator of one's own: its soft rows alone."""

    def soft(self, logits, step):
        return (logits * 2 / self.temperature(step)).softmax(-1)


def test_a_hard_estimator_is_its_soft_rows():
    check_estimator(Tempered())
    assert (Tempered.hard, Tempered.stochastic) == (True, False)
    z = make_logits("normal", 3, 5, 0, torch.float64, False).requires_grad_()
    cotangent = torch.randn(z.shape, generator=seeded(1), dtype=z.dtype)
    rows = [e(z, generator=seeded()) for e in (Tempered(2.0), StraightThrough(1.0))]
    assert torch.equal(rows[0], rows[1])
    found = [torch.autograd.grad(r, z, cotangent)[0] for r in rows]
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-14)


def test_an_inherited_closed_form_is_not_another_rule_s():
    """A class that changes the rule below a ``pull_back`` has none, until it gives its own."""

    class Halved(StraightThrough):
        def loss(self, logits, rows, feedback):
            return super().loss(logits, rows, feedback) / 2

    class HalvedAgain(Halved):
        def pull_back(self, logits, feedback, step):
            return super().pull_back(logits, feedback, step) / 2

    class Named(StraightThrough):
        """Changes nothing."""

    assert closed_form(StraightThrough()) is not None
    assert closed_form(Named()) is not None
    assert closed_form(Halved()) is None
    assert closed_form(HalvedAgain()) is not None
    assert closed_form(Tempered()) is None
    check_estimator(HalvedAgain(), laws=["the closed form is the gradient"])
