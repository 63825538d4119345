"""Tables for people, CSV for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from nabla.core.errors import ConfigError
from nabla.core.files import read_text, reading, replace_whole
from nabla.study.laboratory.measure import Interval, Measurement
from nabla.study.laboratory.study import FULL, Row, Study
from nabla.study.laboratory.truths import Verdict

INTERVALS = ("bias", "variance", "cosine", "mean_cosine", "norm")


def summary_tables(study: Study) -> Iterator[Table]:
    """Per family, every estimator at temperature 1, the middle entropy and the study's length."""
    settings = study.settings
    for family in study.families:
        table = Table(
            title=f"{family}: K={settings.width}, L={settings.length}, τ=1, "
            f"entropy {settings.middle:g} log K; value [95 % interval]",
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        for name in ("estimator", "relative bias", "worst |z|", "relative variance", "cosine"):
            table.add_column(name, no_wrap=True)
        for row in sorted(_middle(study, family), key=lambda row: row.result.bias.value):
            result = row.result
            exact = result.draws == 1
            score = "exact" if exact else f"{result.worst_z:.1f}"
            table.add_row(
                row.estimator, _show(result.bias), score, _show(result.variance), _show(result.cosine)
            )
        yield table


def _middle(study: Study, family: str) -> list[Row]:
    settings = study.settings
    return study.select(family=family, length=settings.length, temperature=1.0, share=settings.middle)


def _show(interval: Interval) -> str:
    if max(abs(interval.low), abs(interval.high)) < 1e-9:  # a cosine may be below 0
        return "0"
    if interval.low == interval.value == interval.high:
        return f"{interval.value:.3g}"
    return str(interval).replace("[", "\\[")


def cost_table(study: Study) -> Table:
    """Reward-model passes and seconds of one estimate."""
    table = Table(
        title="One estimate through the engine (arithmetic reward): passes of the reward model, milliseconds",
        title_justify="left",
    )
    for name in ("estimator", "forward", "backward", "ms [95 % interval]"):
        table.add_column(name, no_wrap=True)
    for name, cost in study.costs.items():
        ms = _show(cost.seconds / 1e-3)
        table.add_row(name, f"{cost.forward_passes:g}", f"{cost.backward_passes:g}", ms)
    return table


def truths_table(found: Sequence[Verdict]) -> Table:
    """The known truths with their figures."""
    table = Table(title="Known truths", title_justify="left", show_lines=True)
    table.add_column("claim", ratio=5)
    table.add_column("measured", ratio=6)
    table.add_column("verdict", no_wrap=True)
    for verdict in found:
        mark = "[green]holds[/green]" if verdict.holds else "[red]not everywhere[/red]"
        table.add_row(verdict.claim, verdict.measured.replace("[", "\\["), mark)
    return table


def write_csv(study: Study, path: Path) -> None:
    """One line per estimator and problem; ``x``, ``x_low`` and ``x_high`` for every figure."""
    names = list(_record(study.rows[0]))
    _write(path, [names, *(list(_record(row).values()) for row in study.rows)])


def _write(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    replace_whole(path, text.getvalue())


def _record(row: Row) -> dict[str, Any]:
    result = row.result
    record: dict[str, Any] = {
        "estimator": row.estimator,
        "family": row.family,
        "length": row.length,
        "candidates": row.width,
        "temperature": row.temperature,
        "entropy_nats": f"{row.entropy:.5g}",
        "draws": result.draws,
        "evaluations": result.evaluations,
        "exact_norm": f"{result.exact:.5g}",
    }
    for name in INTERVALS:
        interval: Interval = getattr(result, name)
        record[name] = f"{interval.value:.4g}"
        record[f"{name}_low"] = f"{interval.low:.4g}"
        record[f"{name}_high"] = f"{interval.high:.4g}"
    return {**record, "worst_z": f"{result.worst_z:.3g}", "p_value": f"{result.p_value:.3g}"}


def read_csv(path: Path) -> Study:
    """What :func:`write_csv` has written, without costs and problems: all that figures need.

    Raises ConfigError for a file that is damaged.
    """
    rows = []
    text = read_text(path, "table of estimators")
    with reading("The table of estimators", got=path, fix="Run 'nabla estimators' again."):
        for record in csv.DictReader(io.StringIO(text, newline="")):
            found: dict[str, Any] = {
                name: Interval(*(float(record[f"{name}{end}"]) for end in ("", "_low", "_high")))
                for name in INTERVALS
            }
            found |= {name: float(record[name]) for name in ("worst_z", "p_value")}
            found |= {name: int(record[name]) for name in ("draws", "evaluations")}
            result = Measurement(exact=float(record["exact_norm"]), **found)
            sizes = int(record["length"]), int(record["candidates"])
            numbers = float(record["temperature"]), float(record["entropy_nats"])
            rows.append(Row(record["estimator"], record["family"], *sizes, *numbers, result))
    if not rows:
        raise ConfigError("The table of estimators is empty", got=str(path))
    return Study(FULL, 0, tuple(rows), {}, {}, {})


def write_truths(found: Sequence[Verdict], path: Path) -> None:
    """Claims, figures and verdicts as CSV."""
    _write(path, [("claim", "measured", "holds"), *((v.claim, v.measured, v.holds) for v in found)])


def write_costs(study: Study, path: Path) -> None:
    """Passes and seconds per estimate as CSV."""
    rows: list[Sequence[Any]] = [
        ("estimator", "forward_passes", "backward_passes", "seconds", "seconds_low", "seconds_high")
    ]
    for name, cost in study.costs.items():
        s = cost.seconds
        times = [f"{x:.4g}" for x in (s.value, s.low, s.high)]
        rows.append([name, cost.forward_passes, cost.backward_passes, *times])
    _write(path, rows)
