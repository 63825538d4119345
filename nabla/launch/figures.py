"""What all figures have in common: colours that everybody can tell apart, labels at the ends of lines, dots
with their intervals. Matplotlib is an extra, imported where something is drawn."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nabla.core.errors import ConfigError, require_one_of
from nabla.core.extras import require_extra
from nabla.core.files import replace_whole

FORMATS = ("png", "svg", "pdf")
#: Eight colours for eight lines (after Okabe and Ito), dark enough for text on white; markers tell them too.
COLOURS = ("#0b62b8", "#d55e00", "#00855f", "#b2457f", "#8a6d00", "#2596c4", "#5b3fa0", "#3d3d3d")
MARKERS = "osD^vP*X"
#: Colours and markers of methods, as studies call them, the same in every figure. Those that most often stand
#: side by side have the eight; the others are darker or lighter.
OWN = {
    "best-of-n": ("#0b62b8", "o"),
    "nabla": ("#d55e00", "s"),
    "nabla-reasoner": ("#d55e00", "s"),
    "revision": ("#00855f", "D"),
    "kl-matched-sharpening": ("#b2457f", "^"),
    "random-direction": ("#8a6d00", "v"),
    "self-consistency": ("#2596c4", "P"),
    "backtrack": ("#5b3fa0", "*"),
    "greedy": ("#3d3d3d", "X"),
    "cold": ("#7b4b2a", "^"),
    "particle-filter": ("#d6408a", "s"),
    "vgb": ("#6f9a00", "P"),
    "qalign": ("#9a6fd0", "^"),
    "pairs": ("#00969b", "X"),
    "power-sampling": ("#5f7796", "v"),
    "sampling": ("#757575", "*"),
    "beam-search": ("#a83232", "o"),
    "dvts": ("#c0704d", "D"),
    "rap": ("#4f6d3a", "v"),
    "tree-of-thoughts": ("#7a5c86", "P"),
    "coordinate-search": ("#a88300", "X"),
    "tpo": ("#2f4b7c", "s"),
    "metropolis-chain": ("#b35db3", "^"),
    "greedy-finish": ("#5f5f3d", "o"),
    "nabla long steps": ("#e0783a", "X"),
    "nabla long detached": ("#8c1d18", "*"),
    "random-direction long steps": ("#566300", "p"),
    "best-of-n log π": ("#6886dd", "*"),
}
#: For variants of these (``nabla algorithm-1``), beside which the method may stand, and for other names.
SPARE = ("#8a4f9e", "#00788a", "#b8651b", "#4a7d2c", "#9c3f5f", "#3f5fae")
#: For what is there to compare with, not named one by one.
GREY = "#9aa1ab"
#: Lines of a panel at the most, unless somebody names more.
LINES = 8
#: Lines up to which bands do not hide each other.
BANDS = 3
#: Curves that nowhere differ by more than this part of their range coincide.
ALIKE = 0.01
#: Of curves that coincide: the first, the second, ...
DASHES: tuple[Any, ...] = ("-", (0, (4, 4)), (0, (2, 6)))

_RC = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e6ea",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "hatch.linewidth": 0.6,
}


@dataclass(frozen=True)
class Canvas:
    """Where figures go, and how.

    Args:
        folder: of the files.
        format: png, svg or pdf.
        dpi: of png.
        own: everything in the folder is of the run that is drawn, and is written over.

    Raises ConfigError for another format.
    """

    folder: Path
    format: str = "png"
    dpi: int = 130
    own: bool = True

    def __post_init__(self) -> None:
        require_one_of(self.format, FORMATS, "Figures cannot be written like that", "Formats")

    def save(self, figure: Any, name: str) -> Path:
        """Writes a figure, whole or not at all; ``name`` is without its ending.

        Raises OSError, and ConfigError for a file that is there and that nabla has not drawn.
        """
        path = self.folder / f"{name}.{self.format}"
        if not self.own:
            require_drawn(path)
        drawn = io.BytesIO()
        figure.savefig(drawn, format=self.format, dpi=self.dpi, metadata=_ABOUT[self.format])
        replace_whole(path, drawn.getvalue())
        return path


#: Who has drawn a figure, in the file; and no times.
_MARK = "a figure of nabla"
_ABOUT: dict[str, dict[str, str | None]] = {
    "png": {"Software": _MARK},
    "svg": {"Creator": _MARK, "Date": None},
    "pdf": {"Creator": _MARK, "CreationDate": None},
}


def require_drawn(path: Path) -> None:
    """Raises ConfigError for anything at that place but a figure that nabla has drawn, and OSError."""
    if not path.exists() and not path.is_symlink():
        return
    if path.is_file() and _MARK.encode() in path.read_bytes():
        return
    raise ConfigError(
        "There is a file already that nabla has not drawn", got=str(path), fix="Choose another --output."
    )


@contextmanager
def style() -> Iterator[None]:
    """Inside, figures look as all of them do. Raises ConfigError where matplotlib is missing."""
    require_extra("eval", "matplotlib", purpose="Figures")
    from cycler import cycler
    from matplotlib import rc_context

    settings: Any = {**_RC, "axes.prop_cycle": cycler(color=COLOURS)}
    with rc_context(settings):
        yield


def panels(count: int, size: tuple[float, float], columns: int = 3, **shared: Any) -> tuple[Any, list[Any]]:
    """A figure and so many axes in it.

    Args:
        count: of axes.
        size: of each, inches.
        columns: at the most.
        shared: as ``subplots`` takes it (sharey, ...).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = max(1, min(columns, count))
    down = -(-count // across)
    figure = Figure(figsize=(size[0] * across, size[1] * down), layout="constrained")
    FigureCanvasAgg(figure)
    grid = list(figure.subplots(down, across, squeeze=False, **shared).flat)
    for axis in grid[count:]:
        axis.set_axis_off()
    return figure, grid[:count]


def looks(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Name → colour and marker, the same in every figure: those of :data:`OWN`, or what follows from the name
    itself. A method with a setting behind a comma has the method's, where that is free. Beside methods of
    :data:`OWN` other names do not take a colour that another figure gives to a method, as far as there are
    others. Of names that would share a colour, the first has it and the next takes one that is free; then
    colours begin again with other markers."""
    taken: dict[str, tuple[str, str]] = {}
    own, set_apart = [n for n in names if n in OWN], [n for n in names if n.partition(",")[0] in OWN]
    for name in dict.fromkeys([*own, *set_apart, *names]):
        place = name.partition(",")[0]
        if place in OWN and OWN[place] not in taken.values():
            taken[name] = OWN[place]
            continue
        variant = re.split(r"[ ,]", name, maxsplit=1)[0] in OWN
        spare = bool(own) and not set(SPARE) <= {colour for colour, _ in taken.values()}
        palette = SPARE if variant or spare else COLOURS
        taken[name] = _free(palette, zlib.crc32(name.encode()), set(taken.values()))
    return {name: {"color": taken[name][0], "marker": taken[name][1], "markersize": 4.5} for name in names}


def _free(palette: Sequence[str], wanted: int, taken: set[tuple[str, str]]) -> tuple[str, str]:
    """The next colour from a place on that is free; where none is, the next one with another marker."""
    order = [(wanted + i) % len(palette) for i in range(len(palette))]
    colours = {colour for colour, _ in taken}
    for i in order:
        if palette[i] not in colours:
            return palette[i], MARKERS[i % len(MARKERS)]
    pairs = ((palette[i], MARKERS[(i + turn) % len(MARKERS)]) for turn in range(len(MARKERS)) for i in order)
    return next((pair for pair in pairs if pair not in taken), (palette[order[0]], MARKERS[0]))


def counted(value: float) -> str:
    """A large number as an axis says it: 500 M, 1.5 G."""
    for power, name in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{value / 10**power:g} {name}"
    return f"{value:g}"


def log_ticks(axis: Any) -> None:
    """Of a logarithmic axis over a few powers of ten: 1, 2 and 5 of each by name, which do not touch."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: counted(value)))
    axis.set_minor_formatter(NullFormatter())


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The places, moved as little as it takes for neighbours to be ``gap`` apart, within the bounds where
    there is room."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    groups: list[list[int]] = []
    middles: list[float] = []

    def reach(group: list[int]) -> float:
        wanted = [places[i] - k * gap for k, i in enumerate(group)]
        first = sum(wanted) / len(wanted)
        return min(max(first, low), max(low, high - gap * (len(group) - 1)))

    for i in order:
        groups.append([i])
        middles.append(reach([i]))
        while len(groups) > 1 and middles[-1] < middles[-2] + gap * len(groups[-2]):
            last = groups.pop()
            middles.pop()
            groups[-1] += last
            middles[-1] = reach(groups[-1])
    found = [0.0] * len(places)
    for first, group in zip(middles, groups, strict=True):
        for k, i in enumerate(group):
            found[i] = first + k * gap
    return found


def end_labels(axis: Any, ends: Mapping[str, tuple[float, float]], colours: Mapping[str, Any]) -> None:
    """Names of lines at their right ends, apart from each other; a thin line leads to one that was moved.

    Call it when the axis has its limits.

    Args:
        axis: where the lines are.
        ends: name → (x, y) of the line's last point.
        colours: of the names, as matplotlib takes them.
    """
    if not ends:
        return
    to_axis = axis.transAxes.inverted()
    spots = {name: to_axis.transform(axis.transData.transform(end)) for name, end in ends.items()}
    height = axis.get_window_extent().height * 72 / axis.figure.dpi
    gap = 10.5 / max(height, 1.0)
    placed = spread([float(spot[1]) for spot in spots.values()], gap, 0.0, 1.0)
    for (name, spot), y in zip(spots.items(), placed, strict=True):
        axis.annotate(
            name,
            xy=(float(spot[0]), float(spot[1])),
            xycoords="axes fraction",
            xytext=(1.035, y),
            textcoords="axes fraction",
            va="center",
            ha="left",
            fontsize=8,
            color=colours[name],
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colours[name], "linewidth": 0.6, "alpha": 0.55,
                        "shrinkA": 1, "shrinkB": 2, "relpos": (0, 0.5)},
        )  # fmt: skip


def line(
    axis: Any,
    xs: Sequence[float],
    ys: Sequence[float],
    bounds: tuple[Sequence[float], Sequence[float]] | None,
    look: Mapping[str, Any],
    *,
    band: bool,
    aside: float = 0.0,
    **more: Any,
) -> None:
    """A line with its intervals: a band where that hides nothing, else a thin bar at its last point.

    Args:
        axis: where.
        xs, ys: of the line.
        bounds: lower and upper ends of the intervals; None for none.
        look: of :func:`looks`.
        band: whether there are few enough lines for bands.
        aside: how far to the right of its point the bar stands, points: so that bars do not hide each other.
        more: as ``plot`` takes it.
    """
    axis.plot(xs, ys, linewidth=1.5, **{**look, **more})
    if bounds is None or not len(xs):
        return
    if band and len(xs) > 1:
        axis.fill_between(xs, *bounds, color=look["color"], alpha=0.14, linewidth=0)
    else:
        from matplotlib.transforms import ScaledTranslation

        moved = axis.transData + ScaledTranslation(aside / 72, 0, axis.figure.dpi_scale_trans)
        ends = [bounds[0][-1], bounds[1][-1]]
        axis.update_datalim([(xs[-1], end) for end in ends])
        axis.plot([xs[-1]] * 2, ends, transform=moved, color=look["color"], linewidth=1.1, alpha=0.8)


def dashes(ys: Sequence[float], drawn: Sequence[Sequence[float]], reach: float) -> Any:
    """Style of a line: of those that coincide all but the first are dashed, so that each shows.

    Args:
        ys: of the line.
        drawn: those of the lines before it, over the same xs.
        reach: values that are nearer than this coincide.
    """

    def alike(other: Sequence[float]) -> bool:
        return len(ys) == len(other) and all(abs(a - b) <= reach for a, b in zip(ys, other, strict=True))

    return DASHES[min(sum(map(alike, drawn)), len(DASHES) - 1)]


def line_styles(curves: Sequence[Sequence[float]], values: Iterable[float]) -> list[Any]:
    """Style of each line of a panel, by :func:`dashes`; ``values`` are all that it shows, whose range says
    which lines coincide."""
    shown = list(values)
    reach = ALIKE * (max(shown) - min(shown)) if shown else 0.0
    return [dashes(ys, curves[:i], reach) for i, ys in enumerate(curves)]


def dots(
    axis: Any,
    rows: Sequence[tuple[str, float, float, float]],
    look: Callable[[str], Mapping[str, Any]],
    *,
    labels: bool = True,
) -> None:
    """A row each, from top to bottom: a dot and its interval.

    Args:
        axis: where.
        rows: (name, value, low, high).
        look: of a name.
        labels: write the names.
    """
    for place, (name, value, low, high) in enumerate(rows):
        own = look(name)
        axis.plot([low, high], [place, place], color=own["color"], linewidth=2.0, alpha=0.55)
        axis.plot([value], [place], linestyle="none", **{**own, "markersize": 6})
    axis.set_yticks(range(len(rows)), [row[0] for row in rows] if labels else [""] * len(rows), fontsize=8)
    if labels:
        for tick, row in zip(axis.get_yticklabels(), rows, strict=True):
            tick.set_color(look(row[0])["color"] if look(row[0])["color"] != GREY else "#3d3d3d")
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0)
