"""``nabla ablate``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from nabla.cli.parsing import Call
from nabla.cli.studies import add_study_arguments, reported, results_folder
from nabla.core.display import Display
from nabla.core.errors import ConfigError
from nabla.core.extras import require_extra

if TYPE_CHECKING:
    from nabla.study.ablation.config import Point


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("config", type=str | None, nargs="?", default=None, help="The ablation (YAML).")
    add_study_arguments(parser, "ablation")


def run(call: Call) -> int:
    """Runs, or goes on, and reports. Raises NablaError; finished units are kept."""
    options = call.options
    folder = reported(call)
    if folder is not None:
        return _report(folder, options.metric)
    if options.config is None:
        raise ConfigError("There is nothing to ablate", fix="Pass a CONFIG, or --report FOLDER.")
    # Now, and not after hours of work, when the report needs them.
    require_extra("eval", "scipy", "statsmodels", "matplotlib", "optuna", purpose="nabla ablate")
    from nabla.study.ablation.config import AblationConfig
    from nabla.study.ablation.runner import Ablation

    config = AblationConfig.load(options.config)
    if options.quick:
        config = config.quickened()
    if options.problems is not None:
        config = replace(config, base=replace(config.base, problems=options.problems))
    if options.metric is not None:
        config = replace(config, base=replace(config.base, metric=options.metric))
    folder = results_folder(options, options.config, "ablation")
    ablation = Ablation(config, folder, workers=options.workers, progress=_tell)
    with Display(ablation.monitor().lines):
        ablation.run()
    return _report(folder, None)


def _tell(finished: int, points: int, point: Point, accuracy: Mapping[str, float], seconds: float) -> None:
    from nabla.study.evaluation.metric import Metric

    rate = Metric(point.config.metric).rate
    found = ", ".join(f"{task} {f'{100 * v:.1f} %' if rate else f'{v:.3g}'}" for task, v in accuracy.items())
    print(f"{finished}/{points} {point.label}: {found}; {seconds:.1f} s", file=sys.stderr)


def _report(folder: Path, metric: str | None) -> int:
    from nabla.core.console import make_console
    from nabla.study.ablation.report import write_report
    from nabla.study.ablation.tables import console_tables

    summary = write_report(folder, metric)
    console = make_console()
    for shown in console_tables(summary):
        console.print(shown)
    print(f"stored in {folder}", file=sys.stderr)
    return 0
