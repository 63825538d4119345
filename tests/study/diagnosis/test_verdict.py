"""The rule says what its thresholds say, on numbers that are made up."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from nabla.launch.figures import Canvas
from nabla.study.diagnosis.findings import OWN, Chooser, Findings, Gradient, Locator, Predictor, plain
from nabla.study.diagnosis.measures import UNKNOWN, Estimate
from nabla.study.diagnosis.plots import write_figure
from nabla.study.diagnosis.verdict import Thresholds, verdicts


def about(value: float, half: float = 0.03) -> Estimate:
    return Estimate(value, value - half, value + half, 40)


def findings(
    *, texts=0.95, made=0.95, drop=0.9, slope=0.8, margin=-0.1, proposals=2.0, any_right=0.8
) -> Findings:
    gain = Predictor("∇, first-order gain", "r", about(slope), about(margin), "value drop")
    return Findings(
        problems=50,
        accuracy=about(0.4),
        any_right=about(any_right),
        success=about(0.1),
        choosers=(Chooser(OWN, about(0.8), about(0.7)), Chooser("r", about(texts), about(texts))),
        locators=(Locator("r", about(made), UNKNOWN, UNKNOWN),),
        predictors=(Predictor("value drop", "r", about(drop)), gain),
        gradients=(Gradient("r", 1e9, 5e8, proposals, proposals, UNKNOWN, UNKNOWN),),
    )


@pytest.mark.parametrize(
    ("changes", "method", "settings"),
    [
        ({}, "backtrack", ""),
        ({"made": 0.85}, "backtrack", "--method.screen never"),
        ({"made": 0.85, "drop": 0.6}, "revision", ""),
        ({"texts": 0.52}, "best-of-n", "without --rm"),
        ({"margin": 0.1}, "nabla-reasoner", ""),
        ({"margin": 0.1, "proposals": 9.0}, "backtrack", ""),
        ({"margin": 0.02}, "backtrack", ""),  # the interval holds 0
        ({"made": math.nan, "drop": 0.9}, "backtrack", "--method.screen never"),
    ],
)
def test_each_answer_decides(changes, method, settings):
    (found,) = verdicts(findings(**changes), ["r"])
    assert (found.method, found.settings) == (method, settings)
    assert found.reward == "r"
    assert len(found.answers) == 5
    assert all(answer.because for answer in found.answers)


def test_one_problem_answers_nothing():
    """A right and a wrong text, a swap that succeeded: of a single problem they speak for no method."""
    found = findings(margin=0.3)
    one = {"low": math.nan, "high": math.nan, "count": 1}
    gain, drop = found.predictors[1], found.predictors[0]
    alone = replace(
        found,
        choosers=tuple(replace(c, pooled=replace(c.pooled, **one)) for c in found.choosers),
        locators=tuple(replace(x, prefix=replace(x.prefix, **one)) for x in found.locators),
        predictors=(
            replace(drop, auc=replace(drop.auc, **one)),
            replace(gain, auc=replace(gain.auc, **one), margin=replace(gain.margin, **one)),
        ),
    )
    (verdict,) = verdicts(alone, ["r"])
    assert [answer.yes for answer in verdict.answers] == [True, False, False, False, False]
    assert verdict.method == "best-of-n"
    assert "(one problem)" in verdict.answers[1].because
    assert "nan" not in "".join(answer.because for answer in verdict.answers)


def test_a_figure_of_one_problem_has_no_bars(tmp_path):
    told = {"task": "t", "findings": plain(replace(findings(), problems=1))}
    for predictor in told["findings"]["predictors"]:
        predictor["auc"] |= {"low": None, "high": None}
    assert write_figure(told, Canvas(tmp_path), "t").is_file()


def test_headroom_is_told():
    (found,) = verdicts(findings(any_right=0.41), ["r"])
    assert not found.answers[0].yes
    assert "0.41" in found.answers[0].because


def test_thresholds_are_the_callers():
    (found,) = verdicts(findings(made=0.85), ["r"], Thresholds(stop=0.8))
    assert found.settings == ""


def test_without_a_reward_there_is_the_language_models_own_word():
    (found,) = verdicts(findings(), [])
    assert (found.reward, found.method) == (None, "best-of-n")


def test_the_better_reward_comes_first():
    one = findings()
    poor = Chooser("poor", about(0.5), about(0.5))
    both = replace(one, choosers=(*one.choosers, poor))
    assert [v.reward for v in verdicts(both, ["poor", "r"])] == ["r", "poor"]


def test_what_is_not_known_is_no():
    bare = replace(findings(), locators=(), predictors=(), gradients=())
    (found,) = verdicts(bare, ["r"])
    assert [answer.yes for answer in found.answers[2:]] == [False] * 3
    assert all("not known" in answer.because for answer in found.answers[2:])
