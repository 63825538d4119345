from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from nabla.core.errors import ConfigError
from nabla.launch.figures import COLOURS, Canvas, dots, end_labels, looks, panels, spread, style


@pytest.mark.parametrize("places", [[0.5], [0.1, 0.9], [0.5, 0.5, 0.5], [0.0, 0.02, 0.97, 1.0], [0.9] * 8])
def test_labels_are_apart_and_in_order(places):
    found = spread(places, 0.1, 0.0, 1.0)
    order = sorted(range(len(places)), key=lambda i: places[i])
    ordered = [found[i] for i in order]
    assert all(b - a >= 0.1 - 1e-9 for a, b in itertools.pairwise(ordered))
    assert min(found) >= -1e-9
    assert max(found) <= 1 + 1e-9


def test_labels_that_are_apart_stay():
    assert spread([0.1, 0.5, 0.9], 0.1, 0.0, 1.0) == pytest.approx([0.1, 0.5, 0.9])


def test_the_first_eight_have_colours_of_their_own():
    found = looks([str(i) for i in range(12)])
    assert len({look["color"] for look in list(found.values())[:8]}) == len(COLOURS) == 8
    assert len({(look["color"], look["marker"]) for look in found.values()}) == 12


def test_a_method_has_one_colour_in_all_figures():
    def colours(*names):
        return {name: look["color"] for name, look in looks(names).items()}

    (long,) = colours("nabla-reasoner, argmax").values()
    assert colours("greedy", "nabla", "revision")["nabla"] == long
    assert colours("mine", "best-of-n")["best-of-n"] == colours("best-of-n")["best-of-n"] == COLOURS[0]
    assert colours("mine", "other")["mine"] == colours("mine")["mine"]
    assert len(set(colours("nabla", "nabla long", "cold", "kl-matched-sharpening").values())) == 4


def test_figures_are_written_in_three_formats(tmp_path):
    begins = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    for kind, begin in begins.items():
        with style():
            figure, (axis,) = panels(1, (3, 2))
            axis.plot([0, 1], [0, 1], color=COLOURS[0])
            dots(axis, [("a", 0.5, 0.4, 0.6)], lambda _: {"color": COLOURS[1], "marker": "o"})
            figure.draw_without_rendering()
            end_labels(axis, {"a line": (1.0, 1.0)}, {"a line": COLOURS[0]})
            assert [text.get_text() for text in axis.texts] == ["a line"]
            path = Canvas(tmp_path, kind).save(figure, "f")
        assert path.suffix == f".{kind}"
        assert path.read_bytes().startswith(begin)
    with pytest.raises(ConfigError, match="Formats: png, svg, pdf"):
        Canvas(Path(), "gif")
