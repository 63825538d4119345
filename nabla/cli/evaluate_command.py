"""``nabla evaluate``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from nabla.cli.parsing import Call, numbers
from nabla.cli.studies import add_study_arguments, reported, results_folder
from nabla.core.display import Display, rate
from nabla.core.errors import ConfigError
from nabla.core.extras import require_extra
from nabla.core.quiet import main_process

if TYPE_CHECKING:
    from nabla.study.evaluation.config import EvaluationConfig
    from nabla.study.evaluation.plan import Unit


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("file", type=str | None, nargs="?", default=None, help="The evaluation (YAML).")
    parser.add_argument("--config", type=str | None, default=None, help="The same, as an option.")
    add_study_arguments(parser, "evaluation")
    parser.add_argument(
        "--budget",
        action="append",
        default=None,
        help="A unit and its values, in place of the configuration's: --budget flops=1e8,1e9. "
        "Several units: several times.",
    )
    parser.add_argument(
        "--methods",
        type=str | list[str] | None,
        default=None,
        help="Labels of the configuration's methods, or registered names, with commas between them.",
    )
    parser.add_argument(
        "--tasks",
        type=str | list[str] | None,
        default=None,
        help="Labels of the configuration's tasks, with commas between them.",
    )
    parser.add_argument(
        "--seeds", type=str | int | list[int] | None, default=None, help="Seeds: --seeds 0,1,2."
    )
    parser.add_argument(
        "--reference",
        type=str | None,
        default=None,
        help="Label of the method that the others are compared with, in place of the configuration's.",
    )


def run(call: Call) -> int:
    """Runs, or goes on, and reports. Raises NablaError; finished units are kept."""
    from nabla.study.evaluation.config import EvaluationConfig, unreached
    from nabla.study.evaluation.runner import Evaluation

    options = call.options
    folder = reported(call, "reference")
    if folder is not None:
        return _report(folder, options.reference, options.metric)
    file = options.file or options.config
    if file is None:
        raise ConfigError("There is nothing to evaluate", fix="Pass --config FILE, or --report FOLDER.")
    if options.file and options.config:
        raise ConfigError("Two evaluations are given", got=(options.file, options.config), fix="Pass one.")
    # Now, and not after hours of work, when the report needs them.
    require_extra("eval", "scipy", "statsmodels", "matplotlib", purpose="nabla evaluate")
    config = changed(EvaluationConfig.load(file), options)
    if options.reference is not None:
        replace(config, reference=options.reference)  # refuses an unknown one now, not after the run
    folder = results_folder(options, file, "evaluation")
    evaluation = Evaluation(config, folder, workers=options.workers, progress=_tell)
    for line in unreached(config.resolved()) if main_process() else ():
        print(f"nabla: {line}", file=sys.stderr)
    with Display(evaluation.monitor().lines, on=main_process()):
        evaluation.run()
    return _report(folder, options.reference, None) if main_process() else 0


def changed(config: EvaluationConfig, options: Any) -> EvaluationConfig:
    """The configuration with the command line's options laid over it. Raises ConfigError."""
    if options.quick:
        config = config.quickened()
    if options.budget:
        config = replace(config, budgets=parse_budgets(options.budget))
    if options.problems is not None:
        config = replace(config, problems=options.problems)
    if options.metric is not None:
        config = replace(config, metric=options.metric)
    if options.seeds is not None:
        config = replace(config, seeds=numbers("--seeds", options.seeds, int))
    if options.methods is not None:
        config = config.only(_labels(options.methods))
    if options.tasks is not None:
        config = config.on(_labels(options.tasks))
    return config


def _labels(given: str | Sequence[str]) -> list[str]:
    return [label.strip() for label in (given.split(",") if isinstance(given, str) else given)]


def parse_budgets(texts: Sequence[str]) -> dict[str, list[float]]:
    """``["flops=1e8,1e9"]`` → unit and values. Raises ConfigError."""
    found: dict[str, list[float]] = {}
    for text in texts:
        unit, equals, values = text.partition("=")
        if not equals or unit in found:
            raise ConfigError("--budget takes a unit and its values, each unit once", got=text,
                              fix="For example --budget flops=1e8,1e9 --budget calls=100,400.")  # fmt: skip
        found[unit] = numbers(f"--budget {unit}", values, float)
    return found


def _tell(finished: int, units: int, unit: Unit, seconds: float) -> None:
    if main_process():
        pace = f", {rate(len(unit.problems), seconds)}" if unit.problems else ""
        print(
            f"{finished}/{units} {unit.task} {unit.method} seed {unit.seed} shard {unit.shard}: "
            f"{seconds:.1f} s{pace}",
            file=sys.stderr,
        )


def _report(folder: Path, reference: str | None, metric: str | None) -> int:
    from nabla.core.console import make_console
    from nabla.study.evaluation.report import write_report
    from nabla.study.evaluation.summary import require_met
    from nabla.study.evaluation.tables import comparison_table, console_tables

    results, summary = write_report(folder, reference, metric)
    console = make_console()
    for shown in console_tables(summary):
        console.print(shown)
    if summary["comparisons"]:
        console.print(comparison_table(summary))
    counted = "counted as wrong" if results.metric.rate else "left out"
    for run in summary["runs"]:
        if run["failed"]:
            kinds = ", ".join(f"{count} {name}" for name, count in run["errors"].items())
            console.print(f"{run['task']}, {run['method']}: {kinds}, {counted}", markup=False)
    print(f"stored in {folder}", file=sys.stderr)
    require_met(results)
    return 0
