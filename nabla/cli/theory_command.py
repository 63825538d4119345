"""``nabla theory``: the duality of DTO and PPO, checked numerically."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from nabla.cli.parsing import Call

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from nabla.theory.report import Findings, Report
    from nabla.theory.suite import Outcome


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("checks", nargs="*", default=[], help="Names of checks; all by default (see --list).")
    parser.add_argument("--quick", action="store_true", help="Smaller grids and fewer particles.")
    parser.add_argument(
        "--seeds", type=int, default=1, help="Runs per check; more than one reports the spread."
    )
    parser.add_argument(
        "--output",
        type=str | None,
        default=None,
        help="Folder of plots and reports.json ('none', and no such option, keep nothing).",
    )
    parser.add_argument("--jobs", type=int | None, default=None, help="Processes; at most 2 by default.")
    parser.add_argument("--list", action="store_true", help="List the checks and what they claim.")


def run(call: Call) -> int:
    """Prints the table of reports; exit status 1 if a verdict fails. Raises NablaError."""
    from nabla.cli.storage import held, output_path
    from nabla.core.console import make_console
    from nabla.theory.duality.base import checks
    from nabla.theory.report import Verdict
    from nabla.theory.suite import merged, names, run_checks

    options, console = call.options, make_console()
    if options.list:
        width = max(len(name) for name in names())
        for name in names():
            console.print(f"{name:{width}}  {checks[name].claim}", markup=False)
        return 0
    folder = None if options.output is None else output_path(options.output, "theory")
    jobs = min(2, os.cpu_count() or 1) if options.jobs is None else options.jobs
    begin = time.perf_counter()
    finished: set[str] = set()

    def tell(report: Report) -> None:
        if report.check not in finished:
            finished.add(report.check)
            console.print(f"{report.check} done after {time.perf_counter() - begin:.0f} s", style="dim")

    found: dict[tuple[str, int], Findings] = {}
    with held(folder):
        try:
            run_checks(
                options.checks,
                quick=options.quick,
                seeds=options.seeds,
                jobs=jobs,
                progress=tell,
                found=found,
            )
        finally:  # what was finished before an end, whichever it is
            outcome = merged(found, list(dict.fromkeys(options.checks)))
            if outcome.reports:
                _show(outcome, options.seeds, time.perf_counter() - begin, console)
                if folder is not None:
                    _store(outcome, folder, console)
    return 1 if outcome.verdict is Verdict.FAIL else 0


def _show(outcome: Outcome, seeds: int, seconds: float, console: Console) -> None:
    from nabla.theory.report import Verdict

    console.print(report_table(outcome.reports, seeds))
    counts = {v: sum(r.verdict is v for r in outcome.reports) for v in Verdict}
    console.print(", ".join(f"{n} {v.value}" for v, n in counts.items()) + f", in {seconds:.0f} s")


def _store(outcome: Outcome, folder: Path, console: Console) -> None:
    from nabla.core.files import replace_whole, stored_in
    from nabla.theory.plots import FIGURES, save, write

    with stored_in(folder, "reports", "Make room and run the checks again; the table is above."):
        rows = [_plain(asdict(report)) for report in outcome.reports]
        replace_whole(folder / "reports.json", json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
        write(outcome.figures, folder / FIGURES)
        paths = save(outcome.figures, folder)
    console.print(f"{len(paths)} plots and reports.json in {folder}", markup=False)


def report_table(reports: tuple[Report, ...], seeds: int = 1) -> Table:
    """One row per report."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    colours = {"pass": "green", "fail": "bold red", "inconclusive": "yellow"}
    table = Table(
        title="DTO/PPO duality",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption="order: fitted slope [95 % interval] (expected). floor: the value if nothing were wrong.",
        caption_justify="left",
        show_lines=False,
    )
    table.add_column("report", ratio=1)
    for name in ("value", *(("±",) if seeds > 1 else ()), "floor", "tolerance"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("unit")
    table.add_column("order")
    table.add_column("s", justify="right")
    table.add_column("verdict", no_wrap=True)
    check = None
    for report in reports:
        if report.check != check:
            check = report.check
            table.add_section()
            table.add_row(Text(check, style="bold"))
        name = Text(report.name)
        if report.detail:
            name.append(f"\n  {report.detail}", style="dim")
        spread = (f"{report.spread:.0e}",) if seeds > 1 else ()
        table.add_row(
            name,
            f"{report.value:.2e}",
            *spread,
            f"{report.noise_floor:.0e}",
            f"{report.tolerance:.0e}",
            Text(report.unit),
            Text("" if report.order is None else str(report.order)),
            f"{report.seconds:.1f}",
            Text(report.verdict.value, style=colours[report.verdict.value]),
        )
    return table


def _plain(value: Any) -> Any:
    """Without NaN and infinity, which JSON has not."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and value not in (float("inf"), float("-inf")) and value == value:
        return float(f"{value:.6g}")
    return None if isinstance(value, float) else value
