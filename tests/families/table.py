"""The table in ``docs/models.md``: its rows, as text and back. Nothing of nabla is imported here: pytest has
to begin first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """Of the table.

    Args:
        table: which of the parts.
        name: of the family.
        off: largest deviation; None where it is refused.
        cached: whether keys and values of prefixes are reused.
        why: what the error says.
    """

    table: str
    name: str
    off: float | None = None
    cached: bool | None = None
    why: str | None = None


BEGIN = "<!-- families: made by make families -->"
END = "<!-- families: end -->"
_TITLES = {
    "language": "Language models",
    "outcome": "Outcome reward models",
    "process": "Process reward models",
    "shape": "Shapes of chat templates",
    "format": "Formats of step rewards",
}


def table(rows: Sequence[Row]) -> str:
    """Markdown of all rows, in their order."""
    exact = [row for row in rows if row.off is not None]
    largest = max(row.off for row in exact if row.table != "format" and row.off is not None)
    parts = [
        f"{len(rows)} rows: {len(exact)} exact, {len(rows) - len(exact)} refused. Largest deviation "
        f"(relative, in float64; formats of step rewards apart): {decade(largest)}.",
    ]
    for key, title in _TITLES.items():
        own = [row for row in rows if row.table == key]
        parts.append(f"#### {title}\n")
        parts[-1] += "\n| | | largest deviation | prefixes |\n|---|---|---|---|\n"
        parts[-1] += "\n".join(_line(row) for row in own)
    return "\n\n".join(parts)


def decade(value: float) -> str:
    """The next power of ten, from 1e-15 up: digits below that differ from machine to machine."""
    exponent = next(e for e in range(-14, 1) if value <= 10.0**e)
    return f"1e{exponent}"


def _line(row: Row) -> str:
    name = row.name.replace("\n", "\\n").replace("|", "\\|")
    if row.off is None:
        why = (row.why or "").replace("|", "\\|").replace("\n", " ")
        return f"| {name} | refused: {why} | | |"
    prefixes = {True: "cached", False: "run in full", None: ""}[row.cached]
    return f"| {name} | exact | {decade(row.off)} | {prefixes} |"


def put(document: str, block: str) -> str:
    """The document with the block between its marks."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{block}\n\n{END}{after}"


def listed(document: str) -> dict[tuple[str, str], str]:
    """Of a document: part and name → what is said of it."""
    block = document.partition(BEGIN)[2].partition(END)[0]
    titles = {title: key for key, title in _TITLES.items()}
    found, part = {}, ""
    for line in block.splitlines():
        if line.startswith("#### "):
            part = titles[line.removeprefix("#### ")]
        elif line.startswith("| ") and not line.startswith("| |"):
            name, said = line.replace("\\|", "\0").split(" | ")[:2]
            found[part, name.removeprefix("| ").replace("\0", "|")] = said.replace("\0", "|")
    return found
