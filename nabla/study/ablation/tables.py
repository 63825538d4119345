"""A summary as tables for the terminal, Markdown, LaTeX and CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from nabla.study.ablation.effects import FOUND, POINT, Effect, Interaction, level_column
from nabla.study.evaluation.metric import Metric
from nabla.study.evaluation.summary import metric_of
from nabla.study.evaluation.tables import MDE, latex, markdown

Row = Mapping[str, Any]

EFFECTS = tuple(f.name for f in fields(Effect))
INTERACTIONS = tuple(f.name for f in fields(Interaction))
LEGEND = (
    "Points of accuracy with paired bootstrap 95 % intervals over problems; *: p < 0.05 after Holm's "
    "correction over all lines of a task (McNemar where each side ran once per problem, else paired t).\n"
    "wins / losses: problems that the level alone, or the reference alone, solves in most of its runs.\n"
    f"{MDE} Costs are multiples of the reference's."
)

#: The same for a number.
NUMBERS = (
    "Differences of {noun} with paired bootstrap 95 % intervals over the problems where both sides have a "
    "number; *: p < 0.05 after Holm's correction over all lines of a task (paired t).\n"
    "wins / losses: problems on which the level, or the reference, has the higher mean.\n"
    f"{MDE} Costs are multiples of the reference's."
)

_SYMBOLS = {"×": "times", "δ": "delta", "η": "eta", "λ": "lambda", "τ": "tau"}


def points_columns(summary: Row) -> tuple[str, ...]:
    """Of the CSV of points."""
    return (*POINT, *map(level_column, summary["factors"]), metric_of(summary).key, *FOUND)


def effects_columns(summary: Row) -> tuple[str, ...]:
    """Of the CSV of effects."""
    key = metric_of(summary).key
    return tuple(key if name == "accuracy" else name for name in EFFECTS)


def legend(summary: Row) -> str:
    """What stands in the tables."""
    metric = metric_of(summary)
    return LEGEND if metric.rate else NUMBERS.replace("{noun}", metric.noun)


@dataclass(frozen=True)
class Sheet:
    """A table as text: the first ``names`` columns are labels, the others numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1


def sheets(summary: Row) -> list[Sheet]:
    """Points, main effects and interactions, one table each for every task and measure."""
    found, metric = [], metric_of(summary)
    for task in summary["tasks"]:
        budgets = dict.fromkeys((r["unit"], r["value"]) for r in summary["points"] if r["task"] == task)
        for key in budgets:
            chosen = {
                part: [r for r in summary[part] if (r["task"], r["unit"], r["value"]) == (task, *key)]
                for part in ("points", "effects", "interactions")
            }
            title = _title(summary, task, *key)
            found.append(_points(f"{title}: points", chosen["points"], metric))
            if chosen["effects"]:
                found.append(_effects(f"{title}: effects", chosen["effects"], metric))
            if chosen["interactions"]:
                found.append(
                    _interactions(
                        f"{title}: interactions (differences of differences)", chosen["interactions"], metric
                    )
                )
    return found


def console_tables(summary: Row) -> list[RenderableType]:
    """All tables."""
    shown: list[RenderableType] = []
    for sheet in sheets(summary):
        table = Table(
            title=Text(sheet.title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0), pad_edge=False,
        )  # fmt: skip
        for index, column in enumerate(sheet.columns):
            number = index >= sheet.names
            table.add_column(column, justify="right" if number else "left", no_wrap=number)
        for row in sheet.rows:
            table.add_row(*(Text(cell) for cell in row))
        shown.append(table)
    return [*shown, Text(legend(summary), style="dim")]


def to_markdown(summary: Row) -> str:
    """All tables."""
    parts = [legend(summary).replace("*", r"\*"), ""]
    for sheet in sheets(summary):
        cells = [[cell.replace("|", r"\|").replace("*", r"\*") for cell in row] for row in sheet.rows]
        parts += [f"### {sheet.title}", "", *markdown([list(sheet.columns), *cells]), ""]
    return "\n".join(parts)


def to_latex(summary: Row) -> str:
    """All tables, for the booktabs package."""
    parts: list[str] = []
    for sheet in sheets(summary):
        numbers = len(sheet.columns) - sheet.names
        lines = [" & ".join(map(_latex, row)) + r" \\" for row in (sheet.columns, *sheet.rows)]
        parts += [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex(sheet.title)}}}",
            rf"\begin{{tabular}}{{{'l' * sheet.names}{'r' * numbers}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    return "\n".join(parts)


def _latex(text: str) -> str:
    text = latex(text)
    for character, name in _SYMBOLS.items():
        text = text.replace(character, rf"$\{name}$")
    return text


def _points(title: str, rows: Sequence[Row], metric: Metric) -> Sheet:
    failed = any(row["failed"] for row in rows)
    columns = ["point", metric.axis, "95 %", "calls", "tokens", "MFLOPs", "ms", "same answers, %"]
    cells = [
        [
            row["point"],
            *_average(row, metric),
            _number(row["calls"]),
            _number(row["tokens"]),
            _number(row["flops"], 1e6),
            _number(row["seconds"], 1e-3),
            f"{100 * row['same_answers']:.1f}",
            *([str(row["failed"])] if failed else []),
        ]
        for row in rows
    ]
    return Sheet(title, [*columns, *(["failed"] if failed else [])], cells)


def _average(row: Row, metric: Metric) -> list[str]:
    if row[metric.key] is None:
        return ["-", "-"]
    return [metric.text(row[metric.key]), f"{metric.text(row['low'])} to {metric.text(row['high'])}"]


def _effects(title: str, rows: Sequence[Row], metric: Metric) -> Sheet:
    references = {short(row["factor"]): row["reference"] for row in rows}
    against = ", ".join(f"{factor}: {level}" for factor, level in references.items())
    many = len(references) > 1
    columns = ["level", "difference", "95 %", "wins / losses", "p", "MDE", "calls", "FLOPs", "seconds"]
    cells = [
        [
            f"{short(row['factor'])}: {row['level']}" if many else row["level"],
            *_difference(row, metric),
            f"{row['level_only']} / {row['reference_only']}",
            f"{row['p_holm']:.2g}",
            _mde(row, metric),
            *("-" if row[unit] is None else f"{row[unit]:.2f}×" for unit in ("calls", "flops", "seconds")),
        ]
        for row in rows
    ]
    return Sheet(f"{title} against {against}", columns, cells)


def _interactions(title: str, rows: Sequence[Row], metric: Metric) -> Sheet:
    columns = ["level", "with", "difference", "95 %", "p", "MDE"]
    cells = [
        [
            f"{short(row['factor'])}: {row['level']}",
            f"{short(row['other_factor'])}: {row['other_level']}",
            *_difference(row, metric),
            f"{row['p_holm']:.2g}",
            _mde(row, metric),
        ]
        for row in rows
    ]
    return Sheet(title, columns, cells, names=2)


def short(factor: str) -> str:
    """A path without what all have in common."""
    return factor.removeprefix("method.").removeprefix("dto.")


def _difference(row: Row, metric: Metric) -> list[str]:
    star = "*" if row["p_holm"] < 0.05 else ""
    interval = f"{metric.signed(row['low'])} to {metric.signed(row['high'])}"
    return [f"{metric.signed(row['difference'])}{star}", interval]


def _mde(row: Row, metric: Metric) -> str:
    return "-" if row["detectable"] is None else metric.text(row["detectable"])


def _number(value: float | None, unit: float = 1.0) -> str:
    return "-" if value is None else f"{value / unit:.4g}"


def _title(summary: Row, task: str, unit: str | None, value: float | None) -> str:
    seeds = summary["seeds"][task]
    within = "" if unit is None else f", within {value:g} {unit}"
    return f"{task}{within}, {summary['problems'][task]} problems, {seeds} seed{'s' if seeds > 1 else ''}" + (
        "" if summary["complete"] else " (unfinished run)"
    )
