"""Each route alone against closed forms, and the errors for input that cannot work."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from nabla.core.errors import ConfigError, NumericalError
from nabla.core.random import generator
from nabla.theory.distances import bures, gaussian_quantiles, grid_quantiles, w2_quantiles
from nabla.theory.flows.bures import BuresFlow
from nabla.theory.flows.discrete import EulerKernel, adam_map, basins
from nabla.theory.flows.families import Affine, Sine
from nabla.theory.flows.fokker_planck import FokkerPlanck, bernoulli
from nabla.theory.flows.jko import COARSE, EntropicJKO, QuantileJKO
from nabla.theory.flows.langevin import Langevin, evaluate
from nabla.theory.flows.policy import SimplexPolicy
from nabla.theory.functionals import GaussianEnergy, GridEnergy, ParticleEnergy
from nabla.theory.grids import Grid
from nabla.theory.pot import ot
from nabla.theory.problems import DoubleWell, GaussianProblem, MixtureProblem, Problem, check_integrable
from nabla.theory.problems.base import gradient
from nabla.theory.problems.gaussian import correlated
from nabla.theory.problems.mixture import three_modes

GAUSSIAN = GaussianProblem(linear=(1.5,), quadratic=((1.5,),))


class Linear(Problem):
    """A reward that outgrows ``-log π``, or a light-tailed π."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__("Laplace", 1, weight, ((-20.0, 20.0),))

    def log_pi(self, x: Tensor) -> Tensor:
        return -x[:, 0].abs()

    def reward(self, x: Tensor) -> Tensor:
        return 0.5 * x[:, 0].abs()

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, 1, generator=generator, dtype=torch.float64)


# -- bad input ------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_integrable() -> None:
    check_integrable(Linear(1.0))
    for weight in (2.0, 3.0):
        with pytest.raises(NumericalError, match=r"integrable|infinity"):
            check_integrable(Linear(weight))
    with pytest.raises(NumericalError, match="integrable"):
        Grid(Linear(2.0), 100)
    with pytest.raises(NumericalError, match="positive definite"):
        GaussianProblem(quadratic=((-1.0,),))


def test_a_grid_that_cuts_off_mass() -> None:
    small = GaussianProblem(widths=3.0)
    with pytest.raises(ConfigError, match="cuts off"):
        Grid(small, 100)
    assert Grid(small, 100, cut=0.01).lost < 0.01
    with pytest.raises(ConfigError, match="8 cells"):
        Grid(GAUSSIAN, 4)


@pytest.mark.parametrize("step", [0.8, 5.0, 0.0, -1.0, float("nan")])
def test_a_step_beyond_stability(step: float) -> None:
    with pytest.raises(ConfigError):
        Langevin(step).final(GAUSSIAN, GAUSSIAN.sample(10, generator("x")), 1.0, generator("y"))


def test_times_must_fit_steps() -> None:
    with pytest.raises(ConfigError, match="multiples"):
        list(Langevin(0.1).run(GAUSSIAN, GAUSSIAN.sample(10, generator("x")), [0.25], generator("y")))
    with pytest.raises(ConfigError, match="multiples"):
        list(QuantileJKO(GAUSSIAN, 0.1).run(gaussian_quantiles(0.0, 1.0, COARSE), [0.25]))


def test_too_few_particles_for_an_entropy_and_too_coarse_grids() -> None:
    with pytest.raises(ConfigError, match="Too few"):
        ParticleEnergy(GAUSSIAN).value(torch.zeros(20, 1, dtype=torch.float64))
    with pytest.raises(ConfigError, match="blur"):
        EntropicJKO(Grid(GAUSSIAN, 60), 0.1, 0.001)
    with pytest.raises(ConfigError, match="noise of a step"):
        EulerKernel(Grid(GAUSSIAN, 60), 1e-4)


# -- problems -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", [GAUSSIAN, correlated(), MixtureProblem(), three_modes()])
def test_closed_form_targets_are_the_tilted_law(problem: Problem) -> None:
    grid = Grid(problem, 200 if problem.dim == 1 else 70)
    x = problem.sample_target(40_000, generator("target"))
    mean, covariance = grid.moments(grid.target)
    found = bures(x.mean(0).numpy(), torch.atleast_2d(torch.cov(x.T)).numpy(), mean, covariance)
    assert found < 0.03
    x = problem.sample(40_000, generator("prior"))
    mean, covariance = grid.moments(grid.prior)
    assert bures(x.mean(0).numpy(), torch.atleast_2d(torch.cov(x.T)).numpy(), mean, covariance) < 0.03


@pytest.mark.parametrize("problem", [GAUSSIAN, MixtureProblem(), DoubleWell(dim=3)])
def test_the_objective_is_the_loss(problem: Problem) -> None:
    x = problem.sample(50, generator("loss"))
    losses, slope = evaluate(problem, problem.objective(), x)
    torch.testing.assert_close(losses, problem.loss(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(slope, gradient(problem, x), rtol=1e-12, atol=1e-12)


# -- routes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", [GAUSSIAN, MixtureProblem(), DoubleWell(), three_modes()])
def test_the_finite_volume_scheme_keeps_its_promises(problem: Problem) -> None:
    grid = Grid(problem, 120 if problem.dim == 1 else 30, cut=1e-5)
    flow, energy = FokkerPlanck(grid), GridEnergy(grid)
    values, rho = [energy.value(grid.prior)], grid.prior
    for _ in range(6):
        rho = flow.advance(rho, 0.3)
        assert grid.mass(rho) == pytest.approx(1, abs=1e-12)
        assert (rho > 0).all()
        values.append(energy.value(rho))
    assert (np.diff(values) < 0).all()
    assert values[-1] > energy.minimum - 1e-12
    np.testing.assert_allclose(flow.advance(grid.target, 1.0), grid.target, rtol=1e-9, atol=1e-15)
    one = flow.advance(flow.advance(grid.prior, 0.2), 0.3)
    np.testing.assert_allclose(one, flow.advance(grid.prior, 0.5), rtol=1e-9, atol=1e-14)


def test_bernoulli_is_smooth_at_zero() -> None:
    x = np.array([-800.0, -1.0, -1e-4, -1e-6, 0.0, 1e-6, 1e-4, 1.0, 800.0])
    found = bernoulli(x)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[::-1] - found, x, atol=1e-9)


@pytest.mark.parametrize("tau", [0.05, 0.5])
def test_a_jko_step_of_a_gaussian_is_known(tau: float) -> None:
    """``m' = m - τ P (m' - m*)``; ``(σ' - σ)/τ = 1/σ' - P σ'``."""
    scheme = QuantileJKO(GAUSSIAN, tau)
    x = scheme.advance(gaussian_quantiles(0.0, 1.0, COARSE))
    p, goal = float(GAUSSIAN.precision[0, 0]), float(GAUSSIAN.target_mean[0])
    mean = tau * p * goal / (1 + tau * p)
    deviation = (1 + np.sqrt(1 + 4 * tau * (1 + tau * p))) / (2 * (1 + tau * p))
    assert w2_quantiles(x, gaussian_quantiles(mean, deviation, COARSE), COARSE) < 1e-3


def test_quantile_distances_are_pots() -> None:
    grid = Grid(MixtureProblem(), 300)
    a, b = grid.prior * grid.volume, grid.target * grid.volume
    x = grid.axes[0]
    expected = np.sqrt(ot.emd2_1d(x, x, a / a.sum(), b / b.sum()))
    assert w2_quantiles(grid_quantiles(grid, grid.prior), grid_quantiles(grid, grid.target)) == pytest.approx(
        expected, rel=2e-3
    )


def test_the_bures_flow_is_the_closed_form() -> None:
    problem = correlated()
    times = (0.1, 1.0, 30.0)
    found = BuresFlow(problem).run(problem.mean.numpy(), problem.covariance.numpy(), times)
    for time, (mean, covariance) in zip(times, found, strict=True):
        m, s = problem.law(time)
        np.testing.assert_allclose(mean, m.numpy(), atol=1e-8)
        np.testing.assert_allclose(covariance, s.numpy(), atol=1e-8)
    np.testing.assert_allclose(found[-1][1], problem.target_covariance.numpy(), atol=1e-8)


def test_energies_agree_and_are_minimal_at_the_target() -> None:
    closed, grid = GaussianEnergy(GAUSSIAN), Grid(GAUSSIAN, 400)
    energy = GridEnergy(grid)
    assert energy.value(grid.prior) == pytest.approx(float(closed.value(*GAUSSIAN.law(0.0))), abs=1e-6)
    assert energy.dissipation(grid.prior) == pytest.approx(closed.dissipation(*GAUSSIAN.law(0.0)), rel=2e-3)
    assert energy.minimum == pytest.approx(closed.minimum, abs=1e-9)
    assert energy.value(grid.target) == pytest.approx(energy.minimum, abs=1e-12)
    x = GAUSSIAN.sample(40_000, generator("energy"))
    assert ParticleEnergy(GAUSSIAN).value(x) == pytest.approx(
        float(closed.value(*GAUSSIAN.law(0.0))), abs=0.05
    )
    law = SimplexPolicy(grid).minimise(grid.prior)
    assert np.abs(law - grid.target).max() < 1e-12


@pytest.mark.parametrize("family", [Affine(2), Sine(2)])
def test_families_invert_and_know_their_determinant(family: Affine | Sine) -> None:
    values = (
        [0.3, -0.2, 0.9, 0.7, 0.25, -0.15]
        if isinstance(family, Affine)
        else [0.3, -0.2, 0.9, 0.7, 0.25, -0.15, 0.0, 0.4]
    )
    theta = torch.tensor(values, dtype=torch.float64)
    xi = torch.randn(5, 2, generator=generator("xi"), dtype=torch.float64)
    torch.testing.assert_close(family.pull(theta, family.push(theta, xi)), xi, rtol=1e-10, atol=1e-10)
    for row, found in zip(xi, family.log_det(theta, xi), strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda v: family.push(theta, v[None])[0], row)
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, found, rtol=1e-9, atol=1e-9)


def test_the_euler_kernel_is_the_particles_law_of_a_gaussian() -> None:
    """Unadjusted steps on a quadratic loss: the stationary variance is ``1 / (P (1 - dt P / 2))``."""
    grid = Grid(GAUSSIAN, 400)
    law = EulerKernel(grid, 0.2).advance(grid.prior, 200)
    p = float(GAUSSIAN.precision[0, 0])
    mean, covariance = grid.moments(law)
    assert mean[0] == pytest.approx(float(GAUSSIAN.target_mean[0]), abs=1e-9)
    assert covariance[0, 0] == pytest.approx(1 / (p * (1 - 0.1 * p)), rel=1e-9)


def test_adam_by_hand_is_torchs() -> None:
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None].clone().requires_grad_()
    rates = [0.1, 0.05, 0.02]
    expected = adam_map(GAUSSIAN, x.detach()[:, 0].numpy().copy(), rates)
    solver = torch.optim.AdamW([x], weight_decay=0.0)
    for rate in rates:
        solver.param_groups[0]["lr"] = rate
        x.grad = gradient(GAUSSIAN, x.detach())
        solver.step()
    np.testing.assert_allclose(x.detach()[:, 0].numpy(), expected, rtol=1e-12)


def test_basins_partition_the_mass() -> None:
    grid = Grid(DoubleWell(), 800)
    found = basins(grid, grid.prior)
    assert len(found) == 2
    assert sum(m for _, m in found) == pytest.approx(1)
    assert found[1][1] > found[0][1]  # the reward moves the barrier to the left
