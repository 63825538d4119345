"""The study, its truths, and ``nabla estimators`` with tables, CSV and plots."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest

from nabla.cli import main
from nabla.core.errors import ConfigError
from nabla.estimators.base import estimators
from nabla.estimators.straight_through import StraightThrough
from nabla.study.laboratory import study as module
from nabla.study.laboratory.measure import Interval
from nabla.study.laboratory.report import _show
from nabla.study.laboratory.reward import bench
from nabla.study.laboratory.study import QUICK, choose, run_study, softmax_norms
from nabla.study.laboratory.truths import verdicts
from tests import tiny

SMALL = replace(
    QUICK, draws=300, relaxed_draws=10, width=4, lengths=(1,), temperatures=(0.5, 1.0),
    entropies=(0.3, 0.6), cost_repeats=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def study():
    return run_study(SMALL, 0, tasks=("arithmetic",))


def test_every_registered_estimator_is_measured_in_every_cell(study):
    assert set(study.estimators) | set(study.skipped) == set(estimators)
    assert set(study.skipped) <= {name for name in estimators if name not in study.estimators}
    assert "stale" in study.skipped
    assert study.families == ["linear", "quadratic", "arithmetic reward"]
    cells = 3 + 1  # two temperatures and two entropies with one in common, and a length
    assert len(study.rows) == cells * 3 * len(study.estimators)
    for row in study.rows:
        for interval in (row.result.bias, row.result.variance, row.result.cosine, row.result.norm):
            assert interval.low <= interval.value <= interval.high


def test_the_known_truths_come_out(study):
    found = verdicts(study)
    claims = [verdict for verdict in found if "largest variance" not in verdict.claim]
    assert len(found) - len(claims) == 2  # measured, and reported where they fail
    sure = [v for v in claims if "reward" not in v.claim]
    assert len(sure) == 12
    assert [v.claim for v in sure if not v.holds] == []


def test_a_biased_estimator_is_caught(study, monkeypatch):
    """A straight-through estimator that scales its gradient is not exact for linear f."""

    class Shrunk(StraightThrough):
        """Half the gradient."""

        def loss(self, logits, rows, feedback):
            return super().loss(logits, rows, feedback) / 2

    monkeypatch.setitem(estimators._classes, "straight-through", Shrunk)
    broken = run_study(SMALL, 0, ["straight-through", "straight-through-identity"], tasks=())
    verdict = next(v for v in verdicts(broken) if v.claim.startswith("straight-through (softmax), linear"))
    assert not verdict.holds


@pytest.mark.parametrize(
    ("interval", "shown"),
    [
        ((-0.3, -0.32, -0.28), "-0.3 \\[-0.32, -0.28]"), ((-0.3, -0.3, -0.3), "-0.3"), ((0.0, 0.0, 0.0), "0"),
        ((1e-12, -1e-12, 1e-10), "0"), ((0.5, 0.4, 0.6), "0.5 \\[0.4, 0.6]"),
    ],
)  # fmt: skip
def test_an_estimate_that_points_the_other_way_is_not_shown_as_nothing(interval, shown):
    assert _show(Interval(*interval)) == shown


def test_costs_are_counted_by_the_engine(study):
    for name, cost in study.costs.items():
        value = estimators[name].feedback == "value"
        assert (cost.forward_passes, cost.backward_passes) == ((4, 0) if value else (1, 1)), name
        assert 0 < cost.seconds.value < 5


def test_reward_problems_are_the_reward_models(study):
    """Values at texts are what the engine scores; the slope at a text is DTO's gradient there."""
    place = bench("arithmetic", 2, 4, 0)
    problem = study.problems["arithmetic reward", 2]
    from nabla.rewards.base import Response

    for number in (0, 5, 15):
        tokens = place.trajectory.tokens.clone()
        tokens[place.positions] = place.candidates.gather(
            -1, problem.logits.new_tensor([divmod(number, 4)]).long().T
        )[:, 0]
        response = Response(place.trajectory.prompt, tokens, place.account())
        (score,) = tiny.rewards_of(place.engine.reward, [response], place.engine.workspace.runner)
        assert float(problem.values[number]) == pytest.approx(-score, abs=1e-4)


def test_named_estimators_only():
    assert choose(["reinmax", "reinmax"]) == (["reinmax"], {})
    with pytest.raises(ConfigError, match="Did you mean 'reinmax'"):
        choose(["reinmx"])
    with pytest.raises(ConfigError, match="stale"):
        choose(["stale"])
    with pytest.raises(ConfigError, match="No estimator"):
        choose([])


def test_the_softmax_rule_at_both_ends():
    curve = {width: norm for width, _, norm in softmax_norms([2, 50], [0.9999], 5, 0)}
    assert curve[2].value == pytest.approx(1 / 2, rel=0.02)
    assert curve[50].value == pytest.approx(1 / 50, rel=0.05)


def test_the_command(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(module, "QUICK", replace(SMALL, draws=100))
    monkeypatch.setattr(module, "TASKS", ("arithmetic",))
    arguments = ["estimators", "--quick", "--estimators", "reinmax,score-function,soft-embedding"]
    assert main([*arguments, "--output", str(tmp_path / "out"), "--seed", "1"]) == 0
    out = capsys.readouterr().out
    assert "Known truths" in out
    assert "score-function" in out
    assert "…" not in out.split("Known truths")[0]  # no interval is cut off
    with (tmp_path / "out" / "estimators.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["estimator"] for row in rows} == {"reinmax", "score-function", "soft-embedding"}
    for row in rows:
        assert float(row["bias_low"]) <= float(row["bias"]) <= float(row["bias_high"])
    for name in ("bias_variance.png", "gradient_norm.png", "cosine.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    for name in ("truths.csv", "costs.csv"):
        assert len((tmp_path / "out" / name).read_text().splitlines()) > 1


def test_the_command_names_unknown_estimators(capsys):
    assert main(["estimators", "--estimators", "reinmx"]) == 2
    assert "Did you mean 'reinmax'" in capsys.readouterr().err


def test_seeds(study):
    again = run_study(SMALL, 0, ["reinmax"], tasks=())
    mine = [row for row in study.rows if row.estimator == "reinmax" and "reward" not in row.family]
    assert [row.result for row in again.rows] == [row.result for row in mine]
    other = run_study(SMALL, 1, ["reinmax"], tasks=())
    assert [row.result for row in other.rows] != [row.result for row in mine]
