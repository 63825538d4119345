"""The page that shows solved problems: one HTML file without a server, a network or a build step."""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from nabla.core import pages
from nabla.core.errors import ConfigError
from nabla.core.files import parse_json, read_text, reading
from nabla.core.solution import Solution
from nabla.core.version import __version__
from nabla.launch.callbacks.trace import SCHEMA
from nabla.launch.view.lines import read_trace
from nabla.launch.view.problems import Problem, of_row, of_solution, of_trace
from nabla.launch.view.steps import REFINED, UNITS

TRACE, SOLUTIONS = "trace.jsonl", "solutions.jsonl"
Run = dict[str, Any]


def of_solutions(solutions: Sequence[Solution]) -> str:
    """The page of solutions in memory."""
    title = ", ".join(dict.fromkeys(solution.method for solution in solutions))
    return render([{"name": title, "problems": [of_solution(s) for s in solutions], "traced": False}])


def of_runs(places: Sequence[Path]) -> str:
    """The page of runs: folders of ``nabla solve``, or trace files. Raises ConfigError."""
    return render([run for place in places for run in read_run(place)])


def read_run(place: Path) -> list[Run]:
    """What a run holds, by method. Without a trace its solutions and their proposals, tokens unknown.

    Raises ConfigError where there is neither, and for a damaged file.
    """
    with reading("The run", got=place):
        whole = place.is_dir()
    if not whole:
        return _by_method(place, [of_trace(traced) for traced in read_trace(place)], True)
    rows = _rows(place / SOLUTIONS)
    if (place / TRACE).is_file():
        own = [of_trace(t, rows.get(t.about["problem"])) for t in read_trace(place / TRACE)]
        return _by_method(place, own, True)
    if not rows:
        raise ConfigError(
            f"There is neither {TRACE} nor {SOLUTIONS} with a solution in this folder",
            got=str(place),
            fix="Name the folder of a finished 'nabla solve --trace', or a trace file.",
        )
    return _by_method(place, [of_row(row) for row in rows.values()], False)


def _by_method(place: Path, problems: Sequence[Problem], traced: bool) -> list[Run]:
    if not problems:
        raise ConfigError("The trace has no problem", got=str(place))
    found: dict[str, list[Problem]] = {}
    for problem in problems:
        found.setdefault(str(problem["method"]), []).append(problem)
    name = place.name or str(place)
    return [
        {"name": f"{name}: {method}" if method else name, "problems": own, "traced": traced}
        for method, own in found.items()
    ]


def _rows(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    lines = read_text(path, SOLUTIONS).split("\n")[:-1]  # a kill may have left a part of the last one
    with reading(path.name, got=path, fix="Solve again."):
        rows = [parse_json(line) for line in lines]
        return {row["id"]: row for row in rows}


def render(runs: Sequence[Run]) -> str:
    """The page of some runs."""
    data = {
        "schema": SCHEMA,
        "units": UNITS,
        "refined": REFINED,
        "runs": runs,
    }
    page = _template().render(
        title=" | ".join(str(run["name"]) for run in runs),
        version=__version__,
        data=packed(data),
        style=_text("page.css"),
        scripts=[_text(name) for name in ("data.js", "text.js", "glossary.js", "steps.js", "page.js")],
    )
    return f"{pages.MARK}\n{page}"


def packed(data: Any) -> str:
    """Data as JSON, gzip and base64: small, and no part of it can end the element it stands in, or begin
    another one. The same data give the same characters."""
    compact: dict[str, Any] = {"separators": (",", ":"), "allow_nan": False}
    try:
        text = json.dumps(data, **compact)
    except ValueError:  # JSON has neither NaN nor infinity
        text = json.dumps(_finite(data), **compact)
    return base64.b64encode(gzip.compress(text.encode("ascii"), mtime=0)).decode("ascii")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    strict = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return strict.from_string(_text("page.html.j2"))
