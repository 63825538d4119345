from __future__ import annotations

import errno
import itertools
from pathlib import Path

import pytest

from nabla.core.errors import ConfigError
from nabla.launch.figures import (
    COLOURS,
    DASHES,
    FORMATS,
    LINES,
    OWN,
    Canvas,
    counted,
    dashes,
    dots,
    end_labels,
    line,
    log_ticks,
    looks,
    panels,
    spread,
    style,
)
from nabla.methods.base import methods


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


def test_every_method_has_a_colour_of_its_own():
    """Whatever stands beside it, and no two of them the same."""
    assert set(methods) <= set(OWN)
    colours = {name: colour for name, (colour, _) in OWN.items() if name != "nabla"}
    assert len(set(colours.values())) == len(colours)
    every = looks([*colours, "best-of-n weighted"])
    assert all(every[name]["color"] == colour for name, colour in colours.items())
    assert every["best-of-n weighted"]["color"] not in colours.values()
    mixed = looks(["backtrack", "abort and restart", "redraw the bad token only"])
    assert mixed["backtrack"]["color"] == OWN["backtrack"][0]
    taken = {colour for colour, _ in OWN.values()}
    assert not taken & {mixed[name]["color"] for name in list(mixed)[1:]}
    beside = looks(["nabla", "nabla algorithm-1"])
    assert looks(["nabla algorithm-1"])["nabla algorithm-1"] == beside["nabla algorithm-1"]


def test_a_line_that_lies_on_another_one_is_dashed():
    drawn = [[0.0, 1.0], [0.0, 0.5]]
    assert dashes([0.001, 1.0], drawn, 0.01) == DASHES[1]
    assert dashes([0.1, 1.0], drawn, 0.01) == DASHES[0] == "-"
    assert dashes([0.0], drawn, 0.01) == "-"
    assert dashes([0.0, 1.0], [[0.0, 1.0]] * LINES, 0.01) == DASHES[-1]


def test_a_bar_beside_its_point_is_whole():
    with style():
        figure, (axis,) = panels(1, (3, 2))
        line(axis, [1, 2], [5, 6], ([4, 2], [6, 9]), {"color": COLOURS[0]}, band=False, aside=4.0)
        figure.draw_without_rendering()
        low, high = axis.get_ylim()
        assert low <= 2 < 9 <= high


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


def test_a_logarithmic_axis_says_plain_numbers_that_do_not_touch():
    with style():
        figure, (axis,) = panels(1, (4, 2))
        axis.plot([1.4e8, 1.3e9], [0, 1])
        axis.set_xscale("log")
        log_ticks(axis.xaxis)
        figure.draw_without_rendering()
        said = [label.get_text() for label in axis.get_xticklabels()]
    assert {"200 M", "500 M", "1 G"} <= set(said)
    assert [label.get_text() for label in axis.get_xticklabels(minor=True) if label.get_text()] == []
    assert counted(1.5e12) == "1.5 T"


@pytest.fixture
def figure():
    with style():
        found, (axis,) = panels(1, (2, 2))
        axis.plot([1, 2])
        yield found


@pytest.mark.parametrize("ending", FORMATS)
def test_a_figure_in_another_folder_is_written_over_no_file_of_somebody_else(figure, tmp_path, ending):
    canvas = Canvas(tmp_path, ending, own=False)
    theirs = tmp_path / f"mine.{ending}"
    figure.savefig(theirs)
    before = theirs.read_bytes()
    with pytest.raises(ConfigError, match="that nabla has not drawn"):
        canvas.save(figure, "mine")
    assert theirs.read_bytes() == before
    for _ in range(2):  # an earlier figure is drawn anew
        assert canvas.save(figure, "own").stat().st_size > 100
    assert {p.name for p in tmp_path.iterdir()} == {theirs.name, f"own.{ending}"}


def test_a_full_disk_leaves_the_figure_as_it_was(figure, tmp_path, monkeypatch):
    path = Canvas(tmp_path).save(figure, "own")
    before = path.read_bytes()

    def full(self, data):
        with self.open("wb") as file:
            file.write(data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        Canvas(tmp_path).save(figure, "own")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
