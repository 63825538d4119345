"""Figures of the theory: names at the ends of lines, plain numbers at the axes, no point behind another."""

from __future__ import annotations

from nabla.launch.figures import style
from nabla.theory.duality.base import BELOW, order_panel
from nabla.theory.figures import Figure, Line, Panel
from nabla.theory.plots import _figure

T = (1.0, 2.0, 4.0)


def drawn(*panels: Panel):
    with style():
        return _figure(Figure("f", panels)).axes


def test_lines_are_named_at_their_ends():
    lines = Line("up", T, (1.0, 2.0, 3.0)), Line("flat", T[::-1], (1.0, 1.0, 1.0))
    (axis,) = drawn(Panel("p", "x", "y", lines))
    assert {text.get_text(): text.xy[0] for text in axis.texts}.keys() == {"up", "flat"}
    assert all(text.xy[0] > 0.9 for text in axis.texts)  # at the largest x, whatever the order
    assert axis.get_legend() is None


def test_lines_that_end_together_have_a_legend():
    heights = {"a": 1.0, "b": 2.0, "c": 3.0}
    lines = tuple(Line(name, T, (height, height, 0.0)) for name, height in heights.items())
    (axis,) = drawn(Panel("p", "x", "y", lines))
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["a", "b", "c"]


def test_points_that_coincide_all_show():
    lines = tuple(Line(style, T, (1.0, 2.0, 3.0), style) for style in ("o", "x", "."))
    (axis,) = drawn(Panel("p", "x", "y", lines))
    ring, cross, dot = axis.get_lines()
    assert ring.get_markerfacecolor() == "none"
    assert ring.get_markersize() > cross.get_markersize() > dot.get_markersize()


def test_what_was_run_stands_at_the_axis():
    x = (2_000.0, 200.0, 20.0)
    (axis,) = drawn(Panel("p", "N", "y", (Line("", x, (0.5, 0.2, 0.1)),), log_x=True, log_y=True))
    assert [label.get_text() for label in axis.get_xticklabels()] == ["20", "200", "2,000"]
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert {"0.1", "0.2", "0.5"} <= set(labels)
    assert not any("10^" in label for label in labels)


def test_names_stand_in_rows():
    (axis,) = drawn(Panel("p", "", "far", (Line("", (0.0, 1.0), (3.0, 5.0)),), ticks=("near", "away")))
    assert [label.get_text() for label in axis.get_yticklabels()] == ["near", "away"]
    assert axis.get_xlabel() == "far"


def test_an_order_is_drawn_beside_its_slope():
    panel = order_panel("p", "h", "e", (0.2, 0.1), (4.0, 1.0), 2.0, floor=0.5)
    slope, error, floor = panel.lines
    assert (slope.label, slope.y) == ("slope 2", (BELOW * 4.0, BELOW * 1.0))
    assert error.y == (4.0, 1.0)
    assert floor.y == (0.5, 0.5)
