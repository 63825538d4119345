"""Effects: planted ones are found, others are not."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from nabla.launch.figures import style
from nabla.study.ablation.effects import effects, interactions, summarise
from nabla.study.ablation.plots import _heat_map, write_plots
from nabla.study.ablation.tables import effects_columns, points_columns, sheets, to_markdown
from nabla.study.evaluation.metric import Metric
from nabla.study.evaluation.tables import to_csv
from tests.study.ablation.small import study


def test_a_planted_effect_is_found_and_a_null_is_not():
    rates = {(a, c): 0.5 + 0.2 * (a == "b") for a in ("a", "b") for c in ("c", "d", "e")}
    found = {(e.factor, e.level): e for e in effects(study(rates), "t", None)}
    planted = found["f0", "b"]
    assert planted.low < 0.2 < planted.high
    assert planted.p_holm < 0.001
    assert planted.difference == pytest.approx(planted.accuracy - 0.5, abs=0.05)
    assert (planted.points, planted.calls) == (3, 2.0)
    for level in ("d", "e"):
        null = found["f1", level]
        assert null.low < 0 < null.high
        assert null.p_holm > 0.05
        assert null.calls == 1.0
    assert all(e.p_holm >= e.p for e in found.values())


def test_several_runs_are_judged_by_their_mean_and_not_by_their_majority():
    made = study({(a, c): 0.5 for a in ("a", "b") for c in ("c", "d", "e")}, problems=180)
    # b loses the majority of 60 problems by one run each, and wins one run of 120 others that both have.
    runs = {"a": ([True, True, False], [True, True, False]), "b": ([True, False, False], [True, True, True])}
    for point in made.points:
        few, many = (side["cde".index(point.levels["f1"])] for side in runs[point.levels["f0"]])
        point.outcomes["t"].correct[None][:] = np.repeat([few, many], [60, 120])
    (found,) = (e for e in effects(made, "t", None) if e.factor == "f0")
    assert found.difference == pytest.approx((120 - 60) / (3 * 180))
    assert (found.level_only, found.reference_only) == (0, 60)
    gains = np.repeat([-1 / 3, 1 / 3], [60, 120])
    t = gains.mean() / (gains.std(ddof=1) / 180**0.5)
    assert found.p == pytest.approx(2 * scipy.stats.t.sf(t, 179))


def test_nulls_are_flagged_as_rarely_as_promised():
    flagged = 0
    for seed in range(20):
        made = study({(a,): 0.5 for a in "abcde"}, problems=200, seed=seed)
        flagged += any(e.p_holm < 0.05 for e in effects(made, "t", None))
    assert flagged <= 3  # 1 expected at most; 4 or more with a probability below 0.02


def test_a_planted_interaction_is_found_and_its_absence_too():
    both = {(a, c): 0.4 + 0.3 * (a == "b" and c == "d") for a in ("a", "b") for c in ("c", "d")}
    (found,) = interactions(study(both, problems=800), "t", None)
    assert found.low < 0.3 < found.high
    assert found.p_holm < 0.01
    additive = {(a, c): 0.4 + 0.15 * (a == "b") + 0.15 * (c == "d") for a in ("a", "b") for c in ("c", "d")}
    (found,) = interactions(study(additive, problems=800), "t", None)
    assert found.low < 0 < found.high
    assert found.p_holm > 0.05


def test_the_difference_of_differences_by_hand():
    made = study({(a, c): 0.5 for a in ("a", "b") for c in ("c", "d")}, problems=9)
    y = {p.label: p.outcomes["t"].correct[None].mean() for p in made.points}
    (found,) = interactions(made, "t", None)
    assert found.difference == pytest.approx((y["b, d"] - y["a, d"]) - (y["b, c"] - y["a, c"]))


def test_a_difference_of_differences_of_rounding_alone_is_none():
    """Shares of three runs, 0, 1/3, 2/3 and 1: (1 - 2/3) - (1/3 - 0) is 5.6e-17 on every problem."""
    levels = [("a", "c"), ("b", "c"), ("a", "d"), ("b", "d")]
    found = study(dict.fromkeys(levels, 0.5), problems=20)
    for right, point in enumerate(found.points):
        point.outcomes["t"].correct[None] = np.repeat([[run < right] for run in range(3)], 20, axis=1)
    (interaction,) = interactions(found, "t", None)
    assert 0 < abs(interaction.difference) < 1e-15
    assert interaction.p == 1.0


def test_missing_levels_of_an_unfinished_run_are_left_out():
    made = study({("a",): 0.5, ("b",): 0.6})
    made.factors["f0"].append("never run")
    assert [e.level for e in effects(made, "t", None)] == ["b"]
    assert summarise(made)["factors"] == {"f0": ["a", "b", "never run"]}


@pytest.mark.parametrize("name", ["task", "unit", "value", "tokens", "failed", "accuracy"])
def test_a_factor_may_be_called_like_a_column(name):
    made = study({("a",): 0.5, ("b",): 0.6}, problems=20)
    plain = summarise(made)
    made.factors = {name: made.factors["f0"]}
    for point in made.points:
        point.levels = {name: point.levels["f0"]}
    found = summarise(made)
    assert [sheet.rows for sheet in sheets(found)] == [sheet.rows for sheet in sheets(plain)]
    columns = points_columns(found)
    assert len(set(columns)) == len(columns)
    cells = list(csv.DictReader(io.StringIO(to_csv(found["points"], columns))))
    expected = list(csv.DictReader(io.StringIO(to_csv(plain["points"], points_columns(plain)))))
    assert [row.pop(f"factor {name}") for row in cells] == [row.pop("f0") for row in expected] == ["a", "b"]
    assert cells == expected


def test_points_are_compared_with_the_reference_points_answers():
    made = study({("a",): 0.5, ("b",): 0.5}, problems=100)
    rows = summarise(made)["points"]
    right = [p.outcomes["t"].correct[None] for p in made.points]
    assert rows[0]["same_answers"] == 1.0
    assert rows[1]["same_answers"] == pytest.approx(float(np.mean(right[0] == right[1])))
    assert rows[1]["flops"] == 2.0


def test_numbers_in_place_of_accuracies(tmp_path):
    """A gain of 0.3 in a number, and problems where a side has none."""
    noise = np.random.default_rng(3)
    hard = noise.normal(size=60)
    made = study({("a",): 0.5, ("b",): 0.5}, problems=60)
    made.metric = Metric("reward")
    values = []
    for point, gain in zip(made.points, (0.0, 0.3), strict=True):
        own = hard + gain + noise.normal(0, 0.05, (2, 60))
        own[:, :5] = np.nan if gain else own[:, :5]
        values.append(own)
        outcome = point.outcomes["t"]
        point.outcomes["t"] = replace(outcome, correct={None: own}, responses=outcome.responses.repeat(2, 0))
    found = summarise(made)
    (effect,) = found["effects"]
    gains = values[1][:, 5:].mean(0) - values[0][:, 5:].mean(0)
    assert effect["difference"] == pytest.approx(gains.mean())
    assert effect["p"] == pytest.approx(scipy.stats.ttest_1samp(gains, 0).pvalue)
    assert effect["level_only"] + effect["reference_only"] == 55
    assert effect["mean"] == pytest.approx(values[1][:, 5:].mean())
    assert [row["mean"] for row in found["points"]] == pytest.approx(
        [values[0].mean(), values[1][:, 5:].mean()]
    )
    text = to_markdown(found)
    assert "Differences of reward" in text
    assert f"{gains.mean():+.3g}" in text
    assert "ccuracy" not in text
    assert "mean" in effects_columns(found)
    assert {path.name for path in write_plots(found, tmp_path)} == {"effects.png", "cost.png"}


def test_cells_are_against_both_references_and_null_ones_are_hatched(tmp_path):
    rates = {(a, c): 0.4 + 0.3 * (a == "b" and c == "d") for a in ("a", "b") for c in ("c", "d")}
    found = summarise(study(rates, problems=800))
    cells = {(cell["level"], cell["other_level"]): cell for cell in found["cells"]}
    assert set(cells) == {("a", "d"), ("b", "c"), ("b", "d")}
    planted = cells["b", "d"]
    assert planted["low"] < 0.3 < planted["high"]
    assert planted["p_holm"] < 0.001
    assert all(cells[key]["p_holm"] > 0.05 for key in (("a", "d"), ("b", "c")))
    with style():
        figure = _heat_map("f0", "f1")(found)
    axis = figure.axes[0]
    (image,) = axis.get_images()
    low, high = image.get_clim()
    assert -low == high == pytest.approx(100 * planted["difference"])
    hatched = [patch.get_xy() for patch in axis.patches if patch.get_hatch()]
    assert sorted(hatched) == [(-0.5, 0.5), (0.5, -0.5)]
    assert {path.name for path in write_plots(found, tmp_path)} == {"effects.png", "cost.png", "heat_map.png"}
