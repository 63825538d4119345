"""The tables, and the files: NAME.json and NAME.png of each task, NAME-REWARD.gate.json of each gate."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nabla.core.files import write_new
from nabla.launch.figures import Canvas
from nabla.study.diagnosis.findings import plain
from nabla.study.diagnosis.plots import write_figure
from nabla.study.diagnosis.study import Diagnosis
from nabla.study.diagnosis.verdict import Thresholds, Verdict

if TYPE_CHECKING:
    from rich.table import Table


def tables(found: Diagnosis) -> list[Table]:
    """What is shown on a terminal; a table without a row is left out."""
    shown = [_choosers(found), _locators(found), _predictors(found), _gradients(found), _verdicts(found)]
    return [table for table in shown if table.row_count]


def headline(found: Diagnosis) -> str:
    """What was drawn, in a line."""
    seen, settings = found.findings, found.subject.settings
    return (
        f"{found.subject.task.name}: {seen.problems} problems, {settings.samples} responses each; "
        f"{seen.accuracy} of them right, a right one for {seen.any_right} of the problems; "
        f"{seen.success} of {settings.swaps} swaps in a wrong one turn it right"
    )


def advice(verdict: Verdict) -> str:
    """What is worth trying, as an option of nabla solve."""
    method = f"--method.name {verdict.method}{f' {verdict.settings}' if verdict.settings else ''}"
    given = "" if verdict.reward is None else f"{verdict.reward}: "
    return f"{given}{method} ({verdict.why})"


def _table(title: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def _choosers(found: Diagnosis) -> Table:
    table = _table("Right texts against wrong ones", "by", "AUC", "AUC within a problem", "calibration error")
    for c in found.findings.choosers:
        error = "-" if c.error is None else f"{c.error:.2f}"
        table.add_row(c.name, str(c.pooled), str(c.within), error)
    return table


def _locators(found: Diagnosis) -> Table:
    table = _table(
        "The first mistake", "by", "AUC: one has been made", "AUC: it, not before", "found", "F1 (labelled)"
    )
    for x in found.findings.locators:
        labelled = "-" if x.f1 is None else f"{x.f1.value:.2f}"
        table.add_row(x.name, str(x.prefix), str(x.first), str(x.hit), labelled)
    return table


def _predictors(found: Diagnosis) -> Table:
    table = _table(
        "Which swap turns a wrong text right, after writing on", "by", "of", "AUC", "beside the best free"
    )
    for p in found.findings.predictors:
        margin = "" if p.margin is None else p.margin.shown("+")
        table.add_row(p.name, p.reward or "language model", str(p.auc), margin)
    return table


def _gradients(found: Diagnosis) -> Table:
    table = _table(
        "The gradient",
        "of",
        "FLOPs",
        "scored proposals",
        "in seconds",
        "ranks: the swap alone",
        "ranks: the prefix",
    )
    for g in found.findings.gradients:
        table.add_row(
            g.reward, f"{g.flops:.2e}", f"{g.proposals:.1f}", f"{g.seconds:.1f}", str(g.change), str(g.prefix)
        )
    return table


def _verdicts(found: Diagnosis) -> Table:
    from rich.text import Text

    table = _table("What speaks for what", "question", "", "number")
    table.columns[2].justify = "left"
    for number, verdict in enumerate(found.verdicts):
        if number:
            table.add_section()
        for answer in verdict.answers:
            name = "" if verdict.reward is None else f"{verdict.reward}: "
            yes = Text("yes", style="green") if answer.yes else Text("no", style="dim")
            table.add_row(Text(f"{name}{answer.question}"), yes, Text(answer.because))
    return table


def write(found: Diagnosis, folder: Path) -> list[Path]:
    """``NAME.json``, ``NAME-REWARD.gate.json`` of each gate and ``NAME.png``, in a folder that is there.
    Raises OSError."""
    name, told = _file_name(found.subject.task.name), to_dict(found)
    texts = {f"{name}.json": told}
    texts |= {file: told["gates"][reward] for reward, file in gate_files(found).items()}
    for file, content in texts.items():
        write_new(folder / file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return [*(folder / file for file in texts), write_figure(told, Canvas(folder), name)]


def gate_files(found: Diagnosis) -> dict[str, str]:
    """Reward → name of the file of its gate, which ``--method.gate.file`` reads."""
    files: dict[str, str] = {}
    for reward in found.gates:
        stem, number = _file_name(f"{found.subject.task.name}-{reward}"), 1
        while (file := f"{stem}{'' if number == 1 else f'-{number}'}.gate.json") in files.values():
            number += 1
        files[reward] = file
    return files


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text)


def to_dict(found: Diagnosis) -> dict[str, Any]:
    """JSON-ready: None for what could not be measured."""
    return {
        "task": found.subject.task.name,
        "rewards": plain(found.subject.rewards),
        "settings": asdict(found.subject.settings),
        "seed": found.subject.config.seed,
        "findings": plain(found.findings),
        "thresholds": asdict(Thresholds()),
        "verdicts": plain(found.verdicts),
        "cost": found.cost.to_dict(),
        "seconds": found.seconds,
        "failures": dict(found.failures),
        "gates": {reward: gate.to_dict() for reward, gate in found.gates.items()},
    }


def failures(found: Diagnosis) -> Sequence[str]:
    """A line for each problem that is left out."""
    return [f"problem {key!r} failed: {error}" for key, error in found.failures.items()]
