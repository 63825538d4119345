"""``nabla bench``: the cost of refinement beside its floor, the dense reference and generate."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser

from nabla.cli.parsing import Call, numbers
from nabla.core.errors import ConfigError
from nabla.core.extras import require_extra

if TYPE_CHECKING:
    from nabla.study.benchmark.measurement import Measurement
    from nabla.study.benchmark.settings import Setting
    from nabla.study.benchmark.speedups import Speedup


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--setting",
        type=Literal["A", "B", "small", "gpu"],
        default="A",
        help="A: V 151,936; B: V 32,768 with a long prefix; small: seconds; gpu: 7B and 4B shapes.",
    )
    parser.add_argument(
        "--targets", type=str | int | None, default=None, help="Numbers, separated by commas (default: all)."
    )
    parser.add_argument("--repeats", type=int, default=7, help="Samples per figure.")
    parser.add_argument(
        "--dense-repeats", type=int, default=1, help="Samples of the dense reference; 0 leaves it out."
    )
    parser.add_argument(
        "--output",
        type=str | None,
        default=None,
        help="Folder of CSV, JSON and plots (default runs/TIME-bench; 'none' keeps nothing).",
    )
    parser.add_argument(
        "--device", type=Literal["cpu", "cuda"] | None, default=None, help="Default: the setting's own."
    )
    parser.add_argument("--ablate", action="store_true", help="Switch each speed-up off in turn.")
    parser.add_argument("--profile", action="store_true", help="Write traces of a refinement and a solve.")
    parser.add_argument("--threads", type=int, default=2, help="Of torch on the CPU.")


def run(call: Call) -> int:
    """Measures, prints and stores. Raises ConfigError."""
    import torch

    from nabla.cli.storage import make_folder, output_path
    from nabla.core.console import make_console
    from nabla.study.benchmark.bench import Stand
    from nabla.study.benchmark.report import measurement_table, show_machine, write_results
    from nabla.study.benchmark.run import run_targets

    options = call.options
    setting = _setting(options.setting, options.device)
    targets = _numbers(options.targets, options.ablate or options.profile)
    for name in ("repeats", "threads"):
        if options[name] < 1:
            raise ConfigError(f"--{name} must be at least 1", got=options[name])
    console = make_console()
    folder = output_path(options.output, "bench")
    if folder is not None:
        require_extra("eval", "matplotlib", purpose="The figures of nabla bench (none with --output none)")
        make_folder(folder)
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        bench = Stand(
            setting, options.repeats, max(options.dense_repeats, 0), _teller(), options.threads
        )
        found: list[Measurement] = []
        ablations: list[Speedup] = []

        def store(measured: list[Measurement]) -> None:  # a stopped run leaves what it has
            if folder is not None:
                write_results(bench, measured, ablations, folder, list(call.arguments))

        found = run_targets(bench, targets, store)
        if options.ablate:
            from nabla.study.benchmark.speedups import ablate, ablation_table

            ablations = ablate(bench)
            store(found)
        if options.profile:
            if folder is None:
                raise ConfigError("--profile writes traces and needs a folder", fix="Pass --output DIR.")
            from nabla.study.benchmark.profiling import write_traces

            traces = write_traces(bench, folder)
    finally:
        torch.set_num_threads(before)
    console.print(show_machine(bench))
    if found:
        console.print(measurement_table(found, setting))
    if ablations:
        console.print(ablation_table(ablations))
    if options.profile:
        for path in traces:
            console.print(f"trace {path}", markup=False)
    if folder is not None:
        store(found)
        print(f"stored in {folder}", file=sys.stderr)
    return 0


def _setting(name: str, device: str | None) -> Setting:
    from nabla.study.benchmark.settings import setting

    found = setting(name)
    if device is not None and device != found.device:
        found = replace(found, device=device)  # type: ignore[arg-type]
    if found.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ConfigError(
                "This benchmark needs a CUDA GPU, and there is none",
                got=f"--setting {name}",
                fix="Run it on a machine with a GPU, or choose --setting A or B on the CPU.",
            )
    return found


def _numbers(given: str | int | None, otherwise: bool) -> list[int]:
    """Targets asked for; all, or none where only ablations or traces are wanted."""
    from nabla.study.benchmark.targets import TARGETS, target

    if given is None:
        return [] if otherwise else list(TARGETS)
    chosen = numbers("--targets", given, int)
    for number in chosen:
        target(number)
    return chosen


def _teller() -> Callable[[str], None]:
    """Says on standard error what is being measured, and since when."""
    begin = time.perf_counter()

    def tell(what: str) -> None:
        print(f"{time.perf_counter() - begin:7.1f} s  {what}", file=sys.stderr, flush=True)

    return tell
