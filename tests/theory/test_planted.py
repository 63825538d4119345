"""Each check sees the error it is meant to see: planted here, the verdict flips; without it, it passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nabla.acceptance.metropolis import Metropolis
from nabla.core.random import generator
from nabla.core.sampling import Sampling
from nabla.estimators.stale import Stale
from nabla.estimators.straight_through import StraightThroughIdentity
from nabla.objectives.base import Objective
from nabla.objectives.weighted_sum import WeightedSum
from nabla.refinement.descent import Descent
from nabla.theory.duality.amortised import Amortised
from nabla.theory.duality.base import Check, checks
from nabla.theory.duality.dissipation import Dissipation
from nabla.theory.duality.exactness import exactness
from nabla.theory.duality.gap import Gap
from nabla.theory.duality.gap_text import straight_through
from nabla.theory.duality.orders import Orders
from nabla.theory.duality.stationarity import Stationarity
from nabla.theory.duality.text import Text, eq_objective, sampler_dto
from nabla.theory.duality.trajectories import Trajectories
from nabla.theory.flows.bures import BuresFlow
from nabla.theory.flows.fokker_planck import FokkerPlanck
from nabla.theory.flows.jko import QuantileJKO
from nabla.theory.flows.langevin import Langevin
from nabla.theory.flows.ppo import ClippedPPO
from nabla.theory.flows.sequence import Kernels, Proposals, metropolis_rule, refined_proposals
from nabla.theory.functionals import GridEnergy
from nabla.theory.grids import Grid
from nabla.theory.problems import DoubleWell, GaussianProblem, MixtureProblem, Problem
from nabla.theory.problems.text import SequenceSpace
from nabla.theory.report import Findings, Report, Verdict

# -- planted errors -------------------------------------------------------------------------------------


class WrongNoise(Langevin):
    """``√dt`` instead of ``√(2 dt)``."""

    def descent(self) -> Descent:
        return Descent("SGD", learning_rate=self.step, langevin=0.5 * self.temperature)


class MissingWeight(Langevin):
    """λ = 1 whatever the problem says."""

    def objective(self, problem: Problem) -> Objective:
        return WeightedSum({"reward": 1.0, "likelihood": 1.0})


class WrongSign(Langevin):
    """Climbs away from π."""

    def objective(self, problem: Problem) -> Objective:
        return WeightedSum({"reward": problem.weight, "likelihood": 0.5})


class Clamped(Langevin):
    """Particles held inside an interval."""

    def confine(self, parameter: Tensor) -> None:
        with torch.no_grad():
            parameter.clamp_(-1.0, 1.0)


class Biased(Langevin):
    """A drift twice as large as the noise allows."""

    def objective(self, problem: Problem) -> Objective:
        return WeightedSum({"reward": 2 * problem.weight, "likelihood": 2.0})


class WrongKL(GridEnergy):
    """``-KL`` in place of KL."""

    def value(self, density: Any) -> float:
        logs = np.log(np.maximum(density, 1e-300)) - self.log_prior
        return float(np.sum(density * (self.reward_term - logs)) * self.grid.volume)

    def first_variation(self, density: Any) -> Any:
        return self.reward_term - np.log(np.maximum(density, 1e-300)) + self.log_prior - 1


class NoEntropy(GridEnergy):
    """A first variation without log ρ."""

    def first_variation(self, density: Any) -> Any:
        return self.reward_term - self.log_prior


class HalfDissipation(GridEnergy):
    """A lost factor."""

    def dissipation(self, density: Any) -> float:
        return 0.5 * super().dissipation(density)


class NoReward(FokkerPlanck):
    """Flows to π."""

    def potential(self) -> Any:
        return -self.grid.log_pi


class Uphill(FokkerPlanck):
    """The reward's sign lost."""

    def potential(self) -> Any:
        return -2 * self.grid.log_pi - self.grid.potential


class Uncentred(FokkerPlanck):
    """Upwind potentials, half a cell off: first order."""

    def potential(self) -> Any:
        shifted = self.grid.points - torch.tensor(self.grid.steps) / 2
        return self.grid.problem.loss(shifted).detach().numpy()


class TimeScaled(QuantileJKO):
    """``W2²/τ`` in place of ``W2²/2τ``."""

    def __init__(self, problem: Problem, step: float, **arguments: Any) -> None:
        super().__init__(problem, step, **arguments)

    def advance(self, old: Any, **arguments: Any) -> Any:
        step, self.step = self.step, self.step / 2
        try:
            return super().advance(old, **arguments)
        finally:
            self.step = step


class NoDiffusion(BuresFlow):
    """``dΣ/dt`` without ``2I``."""

    def velocity(self, mean: Any, covariance: Any) -> Any:
        dm, ds = super().velocity(mean, covariance)
        return dm, ds - np.eye(len(mean))


@dataclass(frozen=True)
class NoPrior(ClippedPPO):
    """PPO whose reward lacks the KL to π."""

    def advantage(self, problem: Problem, x: Tensor, log_old: Tensor) -> Tensor:
        found = problem.weight * problem.reward(x) - log_old
        return found - found.mean()


class Hot(Metropolis):
    """Metropolis at λ = 1 whatever it is told."""

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__(1.0)


def no_weight(space: SequenceSpace) -> Objective:
    return WeightedSum({"reward": 1.0, "likelihood": 1.0})


def detached(space: SequenceSpace) -> Objective:
    return WeightedSum(
        {"reward": space.weight, "l": 1.0}, {"l": {"name": "likelihood", "detach_context": True}}
    )


# -- small settings -------------------------------------------------------------------------------------

STATIONARITY = Stationarity(
    cells=200, cells_2d=40, particles=8_000, tolerance=0.08, tolerance_tv=0.05, ppo=ClippedPPO(500, 40)
)
ORDERS = Orders(
    particles=40_000,
    taus=(0.2, 0.1, 0.05, 0.025),
    cells=(40, 80, 160, 320),
    counts=(200, 800, 3200, 12_800),
    repeats=8,
    counts_high=(50, 100, 200, 400),
    repeats_high=3,
    epsilons=(0.32, 0.16, 0.08, 0.04),
    entropic_cells=80,
)
TRAJECTORIES = Trajectories(
    cells=200,
    cells_2d=30,
    particles=8_000,
    step=0.05,
    tolerance=0.015,
    tolerance_particles=0.12,
    times=(0.2, 0.8),
    orders=ORDERS,
)
DISSIPATION = Dissipation(cells=(50, 100, 200, 400), particles=4_000, times=(0.1, 0.45, 1.3), step=0.025)
AMORTISED = Amortised(particles=8_000, tolerance_particles=0.1, times=(0.2, 0.8), nodes=100)
GAP = Gap(
    particles=4_000, cells=300, tolerance=0.15, temperatures=(0.3,), time=4.8, etas=(0.32, 0.16, 0.08, 0.04)
)
TEXT = Text(chains=600, sweeps=8, resolution=0.2, problems=0)

Part = Callable[[Findings], None]


def verdicts(check: Check, part: Callable[[Any, Findings], None]) -> dict[str, Report]:
    found = check.findings()
    part(check, found)
    return {report.name: report for report in found.reports}


def flipped(check: Check, part: Callable[[Any, Findings], None], *words: str) -> None:
    """Every report whose name has one of the words fails."""
    rows = verdicts(check, part)
    hit = {name: row for name, row in rows.items() if any(word in name for word in words)}
    assert hit, list(rows)
    assert {row.verdict for row in hit.values()} == {Verdict.FAIL}, [
        (n, r.value, r.verdict) for n, r in hit.items()
    ]


def line(check: Any, found: Findings) -> None:
    check._line(found, 0)


# -- 0: nothing planted ---------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [STATIONARITY, DISSIPATION, AMORTISED], ids=lambda c: type(c).__name__)
def test_without_a_planted_error_everything_passes(check: Check) -> None:
    rows = check.run(0).reports
    assert {r.verdict for r in rows} == {Verdict.PASS}, [(r.name, r.value, r.verdict) for r in rows]
    assert all(r.seconds >= 0 for r in rows)


# -- 1: stationarity ------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [WrongNoise, MissingWeight, WrongSign, Clamped])
def test_stationarity_sees_a_wrong_langevin_law(broken: type[Langevin]) -> None:
    flipped(replace(STATIONARITY, langevin=broken), line, "Langevin law")


def test_stationarity_sees_a_wrong_free_energy() -> None:
    flipped(replace(STATIONARITY, energy=NoEntropy, particles=200), line, "all grid laws")


def test_stationarity_sees_a_flow_without_reward_and_ppo_without_prior() -> None:
    flipped(replace(STATIONARITY, flow=NoReward, particles=200), line, "Fokker-Planck")
    flipped(replace(STATIONARITY, ppo=NoPrior(500, 40)), lambda c, f: c._ppo(f, 0), "PPO")


def test_too_few_particles_or_too_short_a_chain_are_inconclusive() -> None:
    few = verdicts(replace(STATIONARITY, particles=300), line)
    assert all(r.verdict is not Verdict.PASS for n, r in few.items() if "Langevin" in n)
    short = verdicts(replace(STATIONARITY, time=2.4, tolerance=0.9, tolerance_tv=1.0, particles=2000), line)
    assert short["Langevin law, MALA"].verdict is Verdict.INCONCLUSIVE
    assert "still" in short["Langevin law, MALA"].detail


def test_a_chain_that_does_not_move_is_inconclusive() -> None:
    tiny = replace(STATIONARITY, step=0.0006, time=0.06, tolerance=5.0, tolerance_tv=1.0, particles=500)
    rows = verdicts(tiny, line)
    assert rows["Langevin law, MALA"].verdict is Verdict.INCONCLUSIVE


# -- 2: trajectories ------------------------------------------------------------------------------------


def gaussian_line(check: Any, found: Findings) -> None:
    check._line(found, GaussianProblem(linear=(0.75,), quadratic=((0.75,),), weight=2.0), 0)


def test_trajectories_pass_and_each_broken_route_is_named() -> None:
    rows = verdicts(TRAJECTORIES, gaussian_line)
    assert {r.verdict for r in rows.values()} == {Verdict.PASS}, [(n, r.value) for n, r in rows.items()]
    few = replace(TRAJECTORIES, particles=100, tolerance_particles=5.0)
    broken = replace(few, flow=NoReward, jko=TimeScaled, bures_flow=NoDiffusion)
    flipped(broken, gaussian_line, "grid against", "JKO against", "Bures ODE against")


@pytest.mark.parametrize("broken", [WrongNoise, MissingWeight, Clamped, Biased])
def test_trajectories_see_wrong_particles(broken: type[Langevin]) -> None:
    flipped(replace(TRAJECTORIES, langevin=broken, cells=100), gaussian_line, "Langevin against")


def test_orders_pass_and_a_wrong_order_fails() -> None:
    problem = GaussianProblem(linear=(0.75,), quadratic=((0.75,),), weight=2.0)

    def cells(check: Any, found: Findings) -> None:
        check.orders._cells(found, check.routes, problem)

    def steps(check: Any, found: Findings) -> None:
        check.orders._steps(found, check.routes, problem, 0)

    (good,) = verdicts(TRAJECTORIES, cells).values()
    assert good.verdict is Verdict.PASS
    assert good.order is not None
    assert good.order.slope == pytest.approx(2, abs=0.1)
    flipped(replace(TRAJECTORIES, flow=Uncentred), cells, "order in h")
    (good,) = verdicts(TRAJECTORIES, steps).values()
    assert good.verdict is not Verdict.FAIL
    flipped(replace(TRAJECTORIES, langevin=WrongNoise), steps, "order in dt")
    (few,) = verdicts(replace(TRAJECTORIES, orders=replace(ORDERS, particles=200)), steps).values()
    assert few.verdict is Verdict.INCONCLUSIVE


# -- 3: dissipation -------------------------------------------------------------------------------------


def identity(check: Any, found: Findings) -> None:
    check._first_variation(found, MixtureProblem(), 0)
    check._identity(found, MixtureProblem())


def test_dissipation_sees_the_wrong_sign_of_kl_a_lost_factor_and_a_lost_entropy() -> None:
    flipped(replace(DISSIPATION, energy=WrongKL), identity, "∫ρ|∇δF/δρ|²")
    flipped(replace(DISSIPATION, energy=HalfDissipation), identity, "∫ρ|∇δF/δρ|²")
    flipped(replace(DISSIPATION, energy=NoEntropy), identity, "first variation", "∫ρ|∇δF/δρ|²")
    flipped(replace(DISSIPATION, flow=Uphill), identity, "∫ρ|∇δF/δρ|²", "F never rises")


def test_dissipation_sees_a_wrong_rate() -> None:
    class Slow(FokkerPlanck):
        def advance(self, density: Any, time: float) -> Any:
            return super().advance(density, 0.9 * time)

    flipped(replace(DISSIPATION, flow=Slow), lambda c, f: c._rates(f), "decay rate", "closed form")


# -- 4: amortised ---------------------------------------------------------------------------------------


def test_amortised_sees_a_missing_weight_and_a_missing_score() -> None:
    class NoScore(Amortised):
        def velocity(self, problem: Problem, family: Any, theta: Tensor, x: Tensor) -> Tensor:
            return -torch.autograd.grad(problem.loss(leaf := x.clone().requires_grad_()).sum(), leaf)[0]

    few = replace(AMORTISED, particles=100, times=(0.2,), nodes=80)
    unweighted = replace(few, objective=lambda problem: WeightedSum({"reward": 1.0, "likelihood": 1.0}))
    for broken in (unweighted, NoScore(nodes=80, particles=100, times=(0.2,))):
        rows = [r for r in broken.run(0).reports if "(∂_θ f)" in r.name]
        assert len(rows) == 4
        assert {r.verdict for r in rows} == {Verdict.FAIL}


@pytest.mark.parametrize("broken", [WrongNoise, MissingWeight])
def test_amortised_sees_particles_that_are_not_ppos(broken: type[Langevin]) -> None:
    flipped(replace(AMORTISED, langevin=broken), lambda c, f: c._moments(f, 0), "DTO's particles")


# -- 5: text --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def space() -> SequenceSpace:
    return SequenceSpace(length=2)


@pytest.fixture(scope="module")
def tables(space: SequenceSpace) -> Proposals:
    return refined_proposals(space, sampler_dto(space), Sampling(temperature=1.0, max_new_tokens=2))


def exact_rows(space: SequenceSpace, **changes: Any) -> dict[str, Report]:
    found = Findings("text")
    parts = {
        "objective": eq_objective(space),
        "estimator": Text().estimator(),
        "cached": Text().cached(),
        "tolerance": 1e-10,
        **changes,
    }
    exactness(found, space, **parts)
    return {r.name.partition(":")[0] + ("" if "dense" not in r.name else " dense"): r for r in found.reports}


def test_exactness_passes_and_sees_each_error(space: SequenceSpace) -> None:
    rows = exact_rows(space)
    assert {r.verdict for r in rows.values()} == {Verdict.PASS}, [
        (n, r.value, r.verdict) for n, r in rows.items()
    ]
    for wrong in (no_weight(space), detached(space)):
        assert exact_rows(space, objective=wrong)["Prop. C.1 dense"].verdict is Verdict.FAIL
    stale = Stale("straight-through", bound=2.0)  # never recomputes: not exact once a token flips
    rows = exact_rows(space, estimator=StraightThroughIdentity(), cached=stale)
    assert rows["Eq. 25"].verdict is Verdict.FAIL
    assert rows["caching (Algorithm 4)"].verdict is Verdict.FAIL


def test_metropolis_chains(space: SequenceSpace) -> None:
    rows = verdicts(TEXT, lambda c, f: c.sampling(f, space, 0))
    assert {r.verdict for r in rows.values()} == {Verdict.PASS}, [(n, r.value) for n, r in rows.items()]
    far = rows["χ²: DTO proposals, the paper's strict rule, one sweep, against its own kernel"].detail
    assert float(far.partition("TV to π e^(λr): ")[2].partition(";")[0]) > 0.05


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"corrected": False}, Verdict.FAIL),
        ({"acceptance": Hot}, Verdict.FAIL),
        ({"chains": 60}, Verdict.INCONCLUSIVE),
    ],
    ids=["no correction", "missing weight", "too few"],
)
def test_broken_metropolis_chains(
    space: SequenceSpace, tables: Proposals, changes: dict[str, Any], verdict: Verdict
) -> None:
    check, found = replace(TEXT, **changes), Findings("text")
    rule = check.acceptance(1 / space.weight)
    target = space.target.numpy()
    check._chi(found, "chain", space, tables, rule, check.corrected, target, generator("planted"), "")
    (row,) = found.reports
    assert row.verdict is verdict, (row.value, row.tolerance, row.detail)
    kernels = Kernels(space, tables, metropolis_rule(space), corrected=check.corrected)
    assert (kernels.imbalance() < 1e-14) is check.corrected


# -- 6: gap ---------------------------------------------------------------------------------------------


def stages(check: Any, found: Findings) -> None:
    problem = MixtureProblem()
    check._stages(found, problem, Grid(problem, check.cells), 0)


@pytest.mark.parametrize("broken", [None, WrongNoise, MissingWeight])
def test_gap_sees_wrong_stages(broken: type[Langevin] | None) -> None:
    check = GAP if broken is None else replace(GAP, langevin=broken)
    rows = verdicts(check, stages)
    names = [n for n in rows if "finite step" in n]
    wanted = Verdict.PASS if broken is None else Verdict.FAIL
    assert [rows[n].verdict for n in names] == [wanted], [(n, rows[n].value) for n in names]


def test_gap_sees_noise_that_should_not_be_there_and_another_optimiser() -> None:
    flipped(
        replace(GAP, langevin=lambda h, a, t: Langevin(h, a, t + 0.1)),
        lambda c, f: c._collapse(f, DoubleWell(), 0),
        "not at a mode",
    )

    class Fast(Descent):
        def step(self, *arguments: Any) -> None:
            for _ in range(4):
                super().step(*arguments)

    flipped(replace(GAP, descent=Fast), stages, "AdamW")


def test_gap_sees_a_wrong_backward_rule(space: SequenceSpace) -> None:
    for estimator, verdict in ((Text().estimator(), Verdict.PASS), (StraightThroughIdentity(), Verdict.FAIL)):
        found = Findings("gap")
        straight_through(found, space, estimator, GAP.shrink)
        assert [r.verdict for r in found.reports] == [verdict]


def test_every_family_is_registered() -> None:
    assert set(checks) == {"stationarity", "trajectories", "dissipation", "amortised", "text", "gap"}


def test_a_kept_end_of_sequence_breaks_reversibility(space: SequenceSpace, tables: Proposals) -> None:
    """nabla's selectors never revise that token; it can be proposed and not taken back."""
    kept = Kernels(space, tables, metropolis_rule(space), corrected=True, keep_end=True)
    assert kept.imbalance() > 1e-4
    start = space.log_pi.exp().numpy()
    far = [0.5 * np.abs(kept.sweep(start, n) - space.target.numpy()).sum() for n in (1, 60)]
    assert far[1] > 0.05
