"""The lines of a trace, problem by problem."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nabla.core.errors import ConfigError
from nabla.core.files import parse_json, read_text
from nabla.launch.callbacks.trace import SCHEMA

Line = dict[str, Any]


@dataclass
class Traced:
    """One problem as one method solved it.

    Args:
        about: its ``problem`` line.
        lines: all others, in order.
    """

    about: Line
    lines: list[Line] = field(default_factory=list)


def read_trace(path: Path) -> list[Traced]:
    """The problems of a trace, in the order of their beginnings; where one was begun anew by the same method,
    as it went the last time.

    Raises ConfigError for a file that cannot be read, is no trace, or one of a later schema.
    """
    data = read_text(path, "trace")
    found: dict[tuple[str, str], Traced] = {}
    now: dict[str, Traced] = {}
    for line in _lines(data, path):
        problem, event = line["problem"], line["event"]
        if event == "problem":
            if not (isinstance(line.get("schema"), int) and line["schema"] <= SCHEMA):
                raise ConfigError(
                    f"The trace has another schema than this version of nabla reads ({SCHEMA})",
                    got=line.get("schema"),
                    fix="Use the version of nabla that wrote it, or a later one.",
                )
            now[problem] = Traced(line)
            found.pop((str(line.get("method")), problem), None)
            found[str(line.get("method")), problem] = now[problem]
        elif problem in now:
            now[problem].lines.append(line)
        else:
            raise ConfigError(
                "The trace has no schema: an earlier version of nabla wrote it",
                got=str(path),
                fix="Solve again with --trace.",
            )
    return list(found.values())


def _lines(data: str, path: Path) -> Iterator[Line]:
    rows = data.split("\n")
    whole, torn = rows[:-1], rows[-1]  # a kill may have left a part of the last line
    for number, text in enumerate(whole, 1):
        try:
            line = parse_json(text)
        except ValueError as error:
            raise _damaged(path, number) from error
        named = isinstance(line, dict) and all(isinstance(line.get(k), str) for k in ("event", "problem"))
        if not named:
            raise _damaged(path, number)
        yield line
    if torn and not whole:
        raise _damaged(path, 1)


def _damaged(path: Path, number: int) -> ConfigError:
    return ConfigError(f"Line {number} of the trace is none that nabla has written", got=str(path))
