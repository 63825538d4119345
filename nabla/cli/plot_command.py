"""``nabla plot``: the figures of a study again, from what it has stored."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from nabla.cli.parsing import Call
from nabla.core.errors import ConfigError, NablaError
from nabla.core.files import MISSHAPEN, decode, parse_json, read_bytes, stored_in

if TYPE_CHECKING:
    from nabla.launch.figures import Canvas

Names = list[str] | None


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "run",
        help="Folder of an evaluation, an ablation, 'nabla theory', 'nabla estimators', 'nabla diagnose' or "
        "'nabla bench'.",
    )
    parser.add_argument(
        "--methods",
        type=str | list[str] | None,
        default=None,
        help="Methods (or estimators) that lines are drawn of, with commas between them; by default at most "
        "eight: the reference, the best, baselines and controls.",
    )
    parser.add_argument("--format", type=str, default="png", help="png, svg or pdf.")
    parser.add_argument(
        "--output", type=str | None, default=None, help="Folder of the figures (default: the run's own)."
    )


def run(call: Call) -> int:
    """Draws all figures. Raises ConfigError."""
    from nabla.cli.storage import make_folder, require_named
    from nabla.launch.figures import Canvas

    options = call.options
    folder = Path(options.run)
    draw = _drawer(folder)
    require_named(options.output, "Name a folder for the figures.")
    place = folder if options.output is None else Path(options.output)
    canvas = Canvas(place, options.format, own=options.output is None or _same(place, folder))
    given = options.methods
    labels = given.split(",") if isinstance(given, str) else given
    names = None if labels is None else [label.strip() for label in labels if label.strip()]
    make_folder(place, "folder of the figures", "Choose another --output.")
    with stored_in(place, "figures", "Make room, or choose another --output."):
        try:
            paths = draw(folder, canvas, names)
        except NablaError:
            raise
        # A figure finds out what a reader did not.
        except (*MISSHAPEN, RuntimeError, AssertionError) as error:
            raise ConfigError(
                f"What is stored here cannot be drawn: {type(error).__name__}: {error}",
                got=str(folder),
                fix="Is it as nabla has written it? Then this is a bug, and --debug says where.",
            ) from error
    for path in paths:
        print(path)
    return 0


def _same(place: Path, folder: Path) -> bool:
    try:
        return place.samefile(folder)
    except (OSError, ValueError):  # it is not there, or no path at all
        return False


def _drawer(folder: Path) -> Callable[[Path, Canvas, Names], list[Path]]:
    """What draws a folder's figures, by what is in there. Raises ConfigError for any other folder."""
    known: dict[str, Callable[[Path, Canvas, Names], list[Path]]] = {
        "design.json": _ablation,
        "evaluation.json": _evaluation,
        "figures.json": _theory,
        "estimators.csv": _estimators,
        "results.json": _bench,
    }
    try:
        found = [draw for name, draw in known.items() if (folder / name).is_file()]
        if not found and _diagnoses(folder):
            found = [_diagnosis]
    except (OSError, ValueError) as error:
        raise ConfigError(f"The run cannot be read: {error}", got=str(folder)) from error
    if not found:
        raise ConfigError(
            "There is nothing here that figures are drawn of",
            got=str(folder),
            fix="Name the folder of an evaluation, an ablation, 'nabla theory', 'nabla estimators', "
            "'nabla diagnose' or 'nabla bench'.",
        )
    return found[0]


def _evaluation(folder: Path, canvas: Canvas, names: Names) -> list[Path]:
    from nabla.study.evaluation.plots import write_plots
    from nabla.study.evaluation.stored import read_results

    results, summary = read_results(folder)
    found = write_plots(results, summary, canvas, names)
    if results is not None and not any(path.stem == "reward_hacking" for path in found):
        print("nabla: no reward_hacking figure: too few proposals were accepted and graded", file=sys.stderr)
    return found


def _ablation(folder: Path, canvas: Canvas, names: Names) -> list[Path]:
    from nabla.study.ablation.effects import summarise
    from nabla.study.ablation.plots import write_plots
    from nabla.study.ablation.results import Study

    _no_methods(names, "an ablation")
    return write_plots(summarise(Study.load(folder)), canvas)


def _theory(folder: Path, canvas: Canvas, names: Names) -> list[Path]:
    from nabla.theory.plots import FIGURES, read, save

    _no_methods(names, "the theory")
    return save(read(folder / FIGURES), canvas)


def _estimators(folder: Path, canvas: Canvas, names: Names) -> list[Path]:
    from nabla.core.extras import require_extra

    require_extra("eval", "scipy", "matplotlib", purpose="Figures of estimators")
    from nabla.study.laboratory.plots import write_plots
    from nabla.study.laboratory.report import read_csv

    return write_plots(read_csv(folder / "estimators.csv"), canvas, names)


def _bench(folder: Path, canvas: Canvas, names: Names) -> list[Path]:
    from nabla.study.benchmark.plots import write_plots

    _no_methods(names, "a benchmark")
    told = _told(folder / "results.json")
    if told is None or not {"measurements", "growth"} <= set(told):
        raise ConfigError("This is no result of 'nabla bench'", got=str(folder / "results.json"))
    return write_plots(told, canvas)


def _diagnosis(folder: Path, canvas: Canvas, names: Names) -> list[Path]:
    from nabla.study.diagnosis.plots import write_figure

    _no_methods(names, "a diagnosis")
    return [write_figure(told, canvas, path.stem) for path, told in _diagnoses(folder).items()]


def _diagnoses(folder: Path) -> dict[Path, dict[str, Any]]:
    """What 'nabla diagnose' has stored there, a file for each task."""
    found = {path: _told(path) for path in sorted(folder.glob("*.json"))}
    keys = {"task", "findings", "verdicts"}
    return {path: told for path, told in found.items() if told is not None and keys <= set(told)}


def _told(path: Path) -> dict[str, Any] | None:
    """A file's mapping; None where it holds none."""
    try:
        told = parse_json(decode(read_bytes(path)))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None


def _no_methods(names: Any, what: str) -> None:
    if names is not None:
        raise ConfigError(f"Figures of {what} have no methods to choose from", got=names)
