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

from nabla.study.evaluation.metric import Metric
from nabla.study.evaluation.summary import metric_of

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
#: The same for a number.
NUMBERS = (
    "{noun}: means of the answers that have one, in brackets their bootstrap 95 % interval over problems. "
    "*: higher than every\nother (paired t over problems where both have one, Holm over all pairs). "
    "-: no answer within the budget, ~: in less than\nhalf of the runs. "
    "<: most runs ended before they had spent it."
)
#: What a whole run costs, which goes on to the largest budget of every unit.
SPENT = ("method", "calls", "critical path", "tokens", "FLOPs", "seconds", "problems/s")
SPENT_LEGEND = (
    "Critical path: calls that wait for one another. Seconds: a problem's share of its batches, so that\n"
    "problems/s is the throughput of one process with many problems under way."
)
#: Of the smallest detectable difference.
MDE = "MDE: smallest difference that one test at 5 % finds with a power of 80 %, before Holm's correction."
_UNIT = {"calls": "calls", "tokens": "tokens", "flops": "FLOPs", "seconds": "seconds"}


def columns(summary: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Columns of the CSV of rows, then of comparisons, by the summary's metric; with partial scores where a
    task gives them."""
    partial = ("score",) if any("score" in row for row in summary["rows"]) else ()
    if metric_of(summary).rate:
        return (*ROWS, *partial), COMPARISONS
    own = ("mean", "low", "high", "measured", "accuracy", "best")
    rows = [*ROWS[:5], *own, *(c for c in ROWS[5:] if c not in own), *partial]
    return tuple(rows), (*(c for c in COMPARISONS if c != "p_mcnemar"), "pairs")


def legend(summary: Mapping[str, Any]) -> str:
    """What stands in the cells."""
    metric = metric_of(summary)
    return LEGEND if metric.rate else NUMBERS.format(noun=metric.noun[:1].upper() + metric.noun[1:])


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
    """Accuracies in percent, or means, with intervals: a line per method, a column per budget."""
    shown: list[RenderableType] = []
    metric = metric_of(summary)
    for (task, unit), rows in groups(summary["rows"]).items():
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        values, lines = _grid(rows)
        table.add_column("method")
        for value in values:
            table.add_column(f"{value:g}", justify="right", no_wrap=True)
        for method, cells in lines.items():
            texts = ((_plain(c, metric), "bold" if c["best"] else "") for c in cells)
            table.add_row(method, *(Text(text, style=style) for text, style in texts))
        shown += [Text(_title(summary, task, unit), style="bold"), table]
    notes = [legend(summary), *before(summary)]
    return [*shown, Text("\n".join(notes), style="dim"), *_cost_tables(summary)]


def _costs(summary: Mapping[str, Any]) -> list[tuple[str, list[list[str]]]]:
    """Of each task what whole runs cost, per problem: a title, and cells with a head."""
    runs: dict[str, list[Row]] = {}
    for run in summary["runs"]:
        runs.setdefault(run["task"], []).append(run)
    return [
        (f"{task}: whole runs, per problem", [[*SPENT], *([run["method"], *_spent(run)] for run in own)])
        for task, own in runs.items()
    ]


def _spent(run: Row) -> list[str]:
    """In the order of :data:`SPENT`; - of what no run has."""
    told = {"calls": ".0f", "critical_steps": ".0f", "tokens": ".0f", "flops": ".3g", "seconds": ".3g"}
    found = [format(run[key], kind) if run[key] is not None else "-" for key, kind in told.items()]
    return [*found, format(1 / run["seconds"], ".3g") if run["seconds"] else "-"]


def _cost_tables(summary: Mapping[str, Any]) -> list[RenderableType]:
    shown: list[RenderableType] = []
    for title, cells in _costs(summary):
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for i, name in enumerate(cells[0]):
            table.add_column(name, justify="right" if i else "left")
        for row in cells[1:]:
            table.add_row(*map(Text, row))
        shown += [Text(title, style="bold"), table]
    return [*shown, Text(SPENT_LEGEND, style="dim")] if shown else []


def before(summary: Mapping[str, Any]) -> list[str]:
    """What methods spent before their first problem, which no budget has: a line each."""
    return [
        f"{run['method']} on {run['task']}: {run['prepared_flops']:.3g} FLOPs once before the run, in no "
        f"budget ({run['prepared_flops'] / summary['problems'][run['task']]:.3g} per problem)."
        for run in summary["runs"]
        if "prepared_flops" in run
    ]


def comparison_table(summary: Mapping[str, Any]) -> Table:
    """The reference against every other method at each unit's largest budget."""
    metric = metric_of(summary)
    test = "McNemar for one seed, else paired t" if metric.rate else "paired t"
    what = metric.difference[:1].upper() + metric.difference[1:]
    table = Table(
        title=f"{summary['reference']} minus the others, at the largest budgets",
        caption=f"{what} with paired bootstrap 95 % intervals; p: {test}, Holm-corrected within a budget."
        f"\n{MDE}",
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
            metric.signed(row["difference"]) + ("*" if row["p_holm"] < 1 - summary["level"] else ""),
            f"{metric.signed(row['low'])} to {metric.signed(row['high'])}",
            f"{row['p_holm']:.2g}",
            "-" if row["detectable"] is None else metric.text(row["detectable"]),
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
    metric = metric_of(summary)
    parts = [legend(summary).replace("*", r"\*"), ""]
    for (task, unit), rows in groups(summary["rows"]).items():
        values, lines = _grid(rows)
        table = [["method", *(f"{value:g}" for value in values)]]
        table += [
            [_escaped(method), *(_bold(_escaped(_plain(c, metric)), c["best"]) for c in cells)]
            for method, cells in lines.items()
        ]
        parts += [f"### {_title(summary, task, unit)}", "", *markdown(table), ""]
    for title, cells in _costs(summary):
        table = [cells[0], *([_escaped(method), *rest] for method, *rest in cells[1:])]
        parts += [f"### {title}", "", *markdown(table), "", SPENT_LEGEND, ""]
    chosen = largest(summary["comparisons"])
    if chosen:
        wins = "only ours / theirs" if metric.rate else "higher ours / theirs"
        table = [["task", "budget", "method", "difference", "95 %", wins, "p (Holm)", "MDE"]]
        table += [
            [
                row["task"],
                f"{row['value']:g} {_UNIT[row['unit']]}",
                _escaped(row["method"]),
                metric.signed(row["difference"]),
                f"{metric.signed(row['low'])} to {metric.signed(row['high'])}",
                f"{row['first_only']} / {row['second_only']}",
                f"{row['p_holm']:.2g}",
                "-" if row["detectable"] is None else metric.text(row["detectable"]),
            ]
            for row in chosen
        ]
        parts += [f"### {summary['reference']} minus the others", "", *markdown(table), ""]
    parts += [line for note in summary.get("unreached", ()) for line in (_escaped(note), "")]
    parts += [line for note in before(summary) for line in (_escaped(note), "")]
    return "\n".join(parts)


def to_latex(summary: Mapping[str, Any]) -> str:
    """The tables of accuracies or means, for the packages booktabs and amsmath."""
    parts = []
    metric = metric_of(summary)
    for (task, unit), rows in groups(summary["rows"]).items():
        values, lines = _grid(rows)
        head = " & ".join(["method", *(f"{value:g}" for value in values)])
        body = [
            " & ".join([latex(method), *(_latex_cell(c, metric) for c in cells)]) + r" \\"
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
    seeds, metric = len(summary["seeds"]), metric_of(summary)
    what = "accuracy in %" if metric.rate else f"mean {metric.noun}"
    return (
        f"{task}: {what} by budget in {_UNIT[unit]}, {summary['problems'][task]} problems, "
        f"{seeds} seed{'s' if seeds > 1 else ''}" + ("" if summary["complete"] else " (unfinished run)")
    )


def _bold(text: str, best: bool) -> str:
    return f"**{text}**" if best else text


def _plain(row: Row, metric: Metric) -> str:
    if not row["answered"] or row[metric.key] is None:
        return "-"
    early = "<" if row["exhausted"] < 0.5 else "~" if row["answered"] < 0.5 else ""
    star = "*" if row["best"] else ""
    ends = f"[{metric.bound(row['low'])}, {metric.bound(row['high'])}]"
    return f"{early}{metric.text(row[metric.key])}{star} {ends}"


def _latex_cell(row: Row, metric: Metric) -> str:
    if not row["answered"] or row[metric.key] is None:
        return "--"
    text = metric.text(row[metric.key])
    text = rf"\textbf{{{text}}}" if row["best"] else text
    early = "$<$" if row["exhausted"] < 0.5 else r"$\sim$" if row["answered"] < 0.5 else ""
    return rf"{early}{text} {{\scriptsize [{metric.bound(row['low'])}, {metric.bound(row['high'])}]}}"


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
