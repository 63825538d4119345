"""Screens against their definitions."""

from __future__ import annotations

import math

import pytest

from nabla.core.change_point import ChangePoint
from nabla.core.errors import ConfigError
from nabla.screens.base import Screen, screens

NAN = math.nan


def first_bad(spec, values, held=None):
    return screens.build(spec).stop(values, held)


def test_never():
    assert first_bad("never", [-100.0, NAN]) is None


def test_value():
    spec = {"name": "value", "threshold": 0.5}
    assert first_bad(spec, [1.0, NAN, 0.4, -3.0]) == 2
    assert first_bad(spec, [1.0, 0.5]) is None


def test_drop_is_from_the_running_maximum():
    spec = {"name": "drop", "size": 1.0}
    assert first_bad(spec, [0.0, 3.0, NAN, 2.5, 1.9, 0.0]) == 4
    assert first_bad(spec, [3.0, 2.0, 2.0]) is None


def test_bound_stops_what_cannot_win_under_a_minimum():
    assert first_bad("bound", [1.0, 0.0], held=None) is None
    assert first_bad("bound", [1.0, 0.5, 0.2], held=0.5) == 1
    assert first_bad("bound", [1.0, 0.6], held=0.5) is None


def test_the_change_point_is_bayes_rule():
    """Against the joint written out: h Π_{j >= i} e^{λ (c - V_j)} for each i, 1 for none."""
    point, values = ChangePoint(centre=0.7, scale=0.4, hazard=0.05), [1.0, -2.0, 0.3]
    joint = [0.05 * math.exp(sum(0.4 * (0.7 - v) for v in values[i:])) for i in range(3)]
    total = 1 + sum(joint)
    assert point.none(values) == pytest.approx(1 / total)
    assert point.weights(values) == pytest.approx([j / sum(joint) for j in joint])
    assert point.none(values, outcome=2.0) == pytest.approx(math.exp(2.0) / (math.exp(2.0) + sum(joint)))
    assert point.weights([NAN, -2.0])[1] == 1.0
    assert math.isnan(point.weights([NAN, -2.0])[0])
    assert point.none([NAN]) == 1.0
    assert point.none([-5000.0]) == 0.0  # no overflow


def test_posterior_stops_where_bad_is_more_probable_than_not():
    good, bad = [2.0, 2.0, 2.0], [2.0, 2.0, -20.0, -20.0]
    assert first_bad("posterior", good) is None
    assert first_bad("posterior", bad) == 2
    assert first_bad("posterior", [NAN, NAN]) is None


@pytest.mark.parametrize("answer", [True, 1.0, "no", 5, -1])
def test_anything_but_a_position_is_refused(answer):
    class Odd(Screen):
        def first_bad(self, values, held):
            return answer

    with pytest.raises(ConfigError, match="position or None"):
        Odd().stop([0.0, 0.0], None)


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "value", "threshold": NAN},
        {"name": "drop", "size": -1.0},
        {"name": "posterior", "certainty": 1.0},
        {"name": "posterior", "hazard": 0.0},
        {"name": "posterior", "scale": -1.0},
    ],
)
def test_settings_are_checked(spec):
    with pytest.raises(ConfigError):
        screens.build(spec)
