"""A summary as a table for the terminal, CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

Row = Mapping[str, Any]

#: Columns of the CSV of rows, then of comparisons.
ROWS = (
    *("task", "unit", "value", "method", "problems", "accuracy", "low", "high", "best", "answered"),
    *("exhausted", "failed", "calls", "tokens", "flops", "seconds"),
    *("reward", "reward_low", "reward_high", "critical_steps"),
)
COMPARISONS = (
    *("task", "unit", "value", "reference", "method", "difference", "low", "high"),
    *("p", "p_holm", "first_only", "second_only", "p_mcnemar", "detectable"),
)
#: What stands in cells beside accuracies.
LEGEND = (
    "In brackets Wilson's 95 % interval. *: more accurate than every other (paired, Holm over all pairs).\n"
    "-: no answer within the budget, ~: in less than half of the runs. "
    "<: most runs ended before they had spent it."
)
#: Of the smallest detectable difference.
MDE = "MDE: smallest difference that one test at 5 % finds with a power of 80 %, before Holm's correction."
_UNIT = {"calls": "calls", "tokens": "tokens", "flops": "FLOPs", "seconds": "seconds"}


def groups(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by (task, unit): one table each."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["task"], row["unit"]), []).append(row)
    return found


def to_csv(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """With a header; floats with all their digits."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def console_tables(summary: Mapping[str, Any]) -> list[RenderableType]:
    """Accuracies in percent with intervals: a line per method, a column per budget."""
    shown: list[RenderableType] = []
    for (task, unit), rows in groups(summary["rows"]).items():
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        values, lines = _grid(rows)
        table.add_column("method")
        for value in values:
            table.add_column(f"{value:g}", justify="right", no_wrap=True)
        for method, cells in lines.items():
            table.add_row(method, *(Text(_plain(c), style="bold" if c["best"] else "") for c in cells))
        shown += [Text(_title(summary, task, unit), style="bold"), table]
    return [*shown, Text(LEGEND, style="dim")]


def comparison_table(summary: Mapping[str, Any]) -> Table:
    """The reference against every other method at each unit's largest budget."""
    table = Table(
        title=f"{summary['reference']} minus the others, at the largest budgets",
        caption="Points of accuracy with paired bootstrap 95 % intervals; p: McNemar for one seed, else "
        f"paired t, Holm-corrected within a budget.\n{MDE}",
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for name in ("task", "budget", "method", "difference", "95 %", "p", "MDE"):
        table.add_column(name, justify="left" if name in ("task", "budget", "method") else "right")
    for row in largest(summary["comparisons"]):
        table.add_row(
            row["task"],
            f"{row['value']:g} {_UNIT[row['unit']]}",
            row["method"],
            f"{100 * row['difference']:+.1f}" + ("*" if row["p_holm"] < 1 - summary["level"] else ""),
            f"{100 * row['low']:+.1f} to {100 * row['high']:+.1f}",
            f"{row['p_holm']:.2g}",
            "-" if row["detectable"] is None else f"{100 * row['detectable']:.1f}",
        )
    return table


def largest(rows: Sequence[Row]) -> list[Row]:
    """Rows of the largest budget of each task and unit."""
    top: dict[tuple[str, str], float] = {}
    for row in rows:
        key = (row["task"], row["unit"])
        top[key] = max(top.get(key, 0.0), row["value"])
    return [row for row in rows if row["value"] == top[row["task"], row["unit"]]]


def to_markdown(summary: Mapping[str, Any]) -> str:
    """All tables, with comparisons behind them."""
    parts = [LEGEND.replace("*", r"\*"), ""]
    for (task, unit), rows in groups(summary["rows"]).items():
        values, lines = _grid(rows)
        table = [["method", *(f"{value:g}" for value in values)]]
        table += [
            [_escaped(method), *(f"**{_plain(c)}**" if c["best"] else _plain(c) for c in cells)]
            for method, cells in lines.items()
        ]
        parts += [f"### {_title(summary, task, unit)}", "", *markdown(table), ""]
    chosen = largest(summary["comparisons"])
    if chosen:
        table = [["task", "budget", "method", "difference", "95 %", "only ours / theirs", "p (Holm)", "MDE"]]
        table += [
            [
                row["task"],
                f"{row['value']:g} {_UNIT[row['unit']]}",
                _escaped(row["method"]),
                f"{100 * row['difference']:+.1f}",
                f"{100 * row['low']:+.1f} to {100 * row['high']:+.1f}",
                f"{row['first_only']} / {row['second_only']}",
                f"{row['p_holm']:.2g}",
                "-" if row["detectable"] is None else f"{100 * row['detectable']:.1f}",
            ]
            for row in chosen
        ]
        parts += [f"### {summary['reference']} minus the others", "", *markdown(table), ""]
    return "\n".join(parts)


def to_latex(summary: Mapping[str, Any]) -> str:
    """The accuracy tables, for the packages booktabs and amsmath."""
    parts = []
    for (task, unit), rows in groups(summary["rows"]).items():
        values, lines = _grid(rows)
        head = " & ".join(["method", *(f"{value:g}" for value in values)])
        body = [
            " & ".join([latex(method), *(_latex_cell(c) for c in cells)]) + r" \\"
            for method, cells in lines.items()
        ]
        parts += [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex(_title(summary, task, unit))}}}",
            rf"\begin{{tabular}}{{l{'r' * len(values)}}}",
            r"\toprule",
            head + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    return "\n".join(parts)


def _grid(rows: Sequence[Row]) -> tuple[list[float], dict[str, list[Row]]]:
    values = sorted({row["value"] for row in rows})
    lines: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: float(row["value"])):
        lines.setdefault(row["method"], []).append(row)
    order = list(dict.fromkeys(row["method"] for row in rows))
    return values, {method: lines[method] for method in order}


def _title(summary: Mapping[str, Any], task: str, unit: str) -> str:
    seeds = len(summary["seeds"])
    return (
        f"{task}: accuracy in % by budget in {_UNIT[unit]}, {summary['problems'][task]} problems, "
        f"{seeds} seed{'s' if seeds > 1 else ''}" + ("" if summary["complete"] else " (unfinished run)")
    )


def _plain(row: Row) -> str:
    if not row["answered"]:
        return "-"
    early = "<" if row["exhausted"] < 0.5 else "~" if row["answered"] < 0.5 else ""
    star = "*" if row["best"] else ""
    return f"{early}{100 * row['accuracy']:.1f}{star} [{100 * row['low']:.0f}, {100 * row['high']:.0f}]"


def _latex_cell(row: Row) -> str:
    if not row["answered"]:
        return "--"
    text = f"{100 * row['accuracy']:.1f}"
    text = rf"\textbf{{{text}}}" if row["best"] else text
    early = "$<$" if row["exhausted"] < 0.5 else r"$\sim$" if row["answered"] < 0.5 else ""
    return rf"{early}{text} {{\scriptsize [{100 * row['low']:.0f}, {100 * row['high']:.0f}]}}"


def markdown(table: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(cells) + " |" for cells in table]
    return [lines[0], "|" + "---|" * len(table[0]), *lines[1:]]


def _escaped(text: str) -> str:
    return text.replace("|", r"\|").replace("*", r"\*")


def latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {c: rf"\{c}" for c in "&%$#_{}"}
    special |= {"∇": r"$\nabla$"}
    return "".join(special.get(c, c) for c in text)
