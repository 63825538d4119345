"""``nabla estimators``: bias, variance, direction and cost of the gradient estimators."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from nabla.cli.parsing import Call

if TYPE_CHECKING:
    from nabla.study.laboratory.study import Study
    from nabla.study.laboratory.truths import Verdict


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--quick", action="store_true", help="Fewer cells and draws: within two minutes.")
    parser.add_argument(
        "--estimators",
        type=str | None,
        default=None,
        help="Names, separated by commas (default: every registered one).",
    )
    parser.add_argument(
        "--output",
        type=str | None,
        default=None,
        help="Folder of CSV and plots (default runs/TIME-estimators; 'none' keeps nothing).",
    )
    parser.add_argument("--seed", type=int, default=0, help="Of problems, responses and draws.")


def run(call: Call) -> int:
    """Prints the tables and writes CSV and PNG. Raises ConfigError for an unknown estimator."""
    from nabla.cli.storage import held, output_path
    from nabla.core.console import make_console
    from nabla.study.laboratory.report import cost_table, summary_tables, truths_table
    from nabla.study.laboratory.study import FULL, QUICK, run_study
    from nabla.study.laboratory.truths import verdicts

    options = call.options
    folder = output_path(options.output, "estimators")
    names = None
    if options.estimators is not None:
        names = [name.strip() for name in options.estimators.split(",") if name.strip()]
    with held(folder):
        study = run_study(QUICK if options.quick else FULL, options.seed, names, progress=_progress)
        if sys.stderr.isatty():
            print(file=sys.stderr)
        truths = verdicts(study)
        console = make_console()
        for table in (*summary_tables(study), cost_table(study), truths_table(truths)):
            console.print(table, soft_wrap=False)
        for name, reason in study.skipped.items():
            console.print(f"not measured: {name} ({reason})", markup=False)
        if folder is not None:
            _store(study, truths, folder)
    return 0


def _store(study: Study, truths: Sequence[Verdict], folder: Path) -> None:
    from nabla.core.files import stored_in
    from nabla.study.laboratory.plots import write_plots
    from nabla.study.laboratory.report import write_costs, write_csv, write_truths

    with stored_in(folder, "study", "Make room and run it again; the tables are above."):
        write_csv(study, folder / "estimators.csv")
        write_truths(truths, folder / "truths.csv")
        write_costs(study, folder / "costs.csv")
        write_plots(study, folder)
    print(f"stored in {folder}", file=sys.stderr)


def _progress(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{done}/{total} {what}", end="", file=sys.stderr, flush=True)
