"""``nabla bench``: the cost of refinement beside its floor, the dense reference and generate, at fixed shapes
with random weights or for a pair of given models."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser

from nabla.cli.parsing import Call, numbers, require_left_out
from nabla.core.errors import ConfigError, require_count, require_threads
from nabla.core.extras import require_extra

if TYPE_CHECKING:
    from nabla.models.causal_lm import CausalLM
    from nabla.rewards.transformer import TransformerReward
    from nabla.study.benchmark.bench import Stand
    from nabla.study.benchmark.measurement import Measurement
    from nabla.study.benchmark.settings import Setting
    from nabla.study.benchmark.speedups import Speedup


#: Options of a run that name a pair of models.
RUN_OPTIONS = ("lm", "rm", "lm_arguments", "rm_arguments")
#: What a pair is measured at, unless told otherwise.
PAIR = {"prompt_tokens": 128, "response_tokens": 64, "problems": 8}


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--setting",
        type=Literal["A", "B", "small", "gpu"] | None,
        default=None,
        help="A (default): V 151,936; B: V 32,768, a long prefix; small: seconds; gpu: 7B and 4B shapes.",
    )
    parser.add_argument(
        "--prompt-tokens",
        type=int | None,
        default=None,
        help=f"Of a pair (--lm and --rm): about so many (default {PAIR['prompt_tokens']}).",
    )
    parser.add_argument(
        "--response-tokens",
        type=int | None,
        default=None,
        help=f"Of a pair: of each response (default {PAIR['response_tokens']}).",
    )
    parser.add_argument(
        "--problems",
        type=int | None,
        default=None,
        help=f"Of a pair: so many together (default {PAIR['problems']}).",
    )
    parser.add_argument(
        "--targets", type=str | int | None, default=None, help="Numbers, separated by commas (default: all)."
    )
    parser.add_argument("--repeats", type=int, default=7, help="Samples per figure.")
    parser.add_argument(
        "--dense-repeats",
        type=int | None,
        default=None,
        help="Samples of the dense reference (default 1); 0 leaves it out. A pair has none.",
    )
    parser.add_argument(
        "--output",
        type=str | None,
        default=None,
        help="Folder of CSV, JSON and plots (default runs/TIME-bench; 'none' keeps nothing).",
    )
    parser.add_argument(
        "--device",
        type=Literal["cpu", "cuda"] | None,
        default=None,
        help="Default: the setting's own; of a pair, where it is loaded.",
    )
    parser.add_argument("--ablate", action="store_true", help="Switch each speed-up off in turn.")
    parser.add_argument("--profile", action="store_true", help="Write traces of a refinement and a solve.")
    parser.add_argument("--threads", type=int, default=2, help="Of torch on the CPU.")


def run(call: Call) -> int:
    """Measures, prints and stores. Raises ConfigError."""
    import torch

    from nabla.cli.storage import held, output_path
    from nabla.study.benchmark.bench import Stand

    options = call.options
    require_threads(options.threads, "--threads")
    require_count("--repeats", options.repeats, minimum=1)
    for name in PAIR:
        if options[name] is not None:
            require_count(_option(name), options[name], minimum=1)
    if options.dense_repeats is not None:
        require_count("--dense-repeats", options.dense_repeats, note=" (which leaves the reference out)")
    targets = _numbers(options.targets, options.ablate or options.profile)
    folder = output_path(options.output, "bench")
    if folder is not None:
        require_extra("eval", "matplotlib", purpose="The figures of nabla bench (none with --output none)")
    elif options.profile:
        raise ConfigError("--profile writes traces and needs a folder", fix="Pass --output DIR.")
    setting, models = _subject(call)
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        with held(folder):
            dense = 1 if options.dense_repeats is None else options.dense_repeats
            bench = Stand(setting, options.repeats, dense, _teller(), options.threads, models)
            _measure(bench, targets, folder, call)
    finally:
        torch.set_num_threads(before)
    if folder is not None:
        print(f"stored in {folder}", file=sys.stderr)
    return 0


def _measure(bench: Stand, targets: list[int], folder: Path | None, call: Call) -> None:
    from nabla.core.files import stored_in
    from nabla.study.benchmark.report import write_results

    options = call.options
    found: list[Measurement] = []
    ablations: list[Speedup] = []
    traces: list[Path] = []

    def store(measured: list[Measurement]) -> None:  # a stopped run leaves what it has
        found[:] = measured
        if folder is not None:
            with stored_in(folder, "results", "Make room and run it again; what was measured is above."):
                write_results(bench, found, ablations, folder, list(call.arguments))

    try:
        store(_measured(bench, targets, store))
        if options.ablate:
            from nabla.study.benchmark.speedups import ablate

            ablations += ablate(bench)
            store(found)
        if options.profile and folder is not None:
            from nabla.study.benchmark.profiling import write_traces

            traces += write_traces(bench, folder)
    finally:  # what was measured before an end, whichever it is
        if found or ablations or traces:
            _show(bench, found, ablations, traces)


def _show(bench: Stand, found: list[Measurement], ablations: list[Speedup], traces: list[Path]) -> None:
    from nabla.core.console import make_console
    from nabla.study.benchmark.report import measurement_table, show_machine

    console = make_console()
    console.print(show_machine(bench))
    if found:
        console.print(measurement_table(found, bench.setting))
    if ablations:
        from nabla.study.benchmark.speedups import ablation_table

        console.print(ablation_table(ablations))
    for path in traces:
        console.print(f"trace {path}", markup=False)


def _measured(
    bench: Stand, targets: list[int], store: Callable[[list[Measurement]], None]
) -> list[Measurement]:
    if bench.models is None:
        from nabla.study.benchmark.run import run_targets

        return run_targets(bench, targets, store)
    from nabla.study.benchmark.pair import measure_pair

    bench.dense_repeats = 0
    return measure_pair(bench, store)


def _subject(call: Call) -> tuple[Setting, tuple[CausalLM, TransformerReward] | None]:
    """What is measured: a setting, whose models are made, or a pair of given models. Raises ConfigError."""
    options, values = call.options, call.values
    if not values:
        names = [name.replace("_", "-") for name in PAIR]
        require_left_out(options, names, "a pair of models", "--lm and --rm")
        return _setting(options.setting or "A", options.device), None
    for name in ("setting", "targets", "dense_repeats"):
        if options[name] is not None:
            raise ConfigError(
                f"{_option(name)} is of models of fixed shapes, --lm and --rm name others",
                fix=f"Leave out {_option(name)}, or --lm and --rm.",
            )
    for name in ("ablate", "profile"):
        if options[name]:
            raise ConfigError(f"--{name} works with --setting only", fix=f"Leave out --{name}.")
    for name in ("lm", "rm"):
        if not values.get(name):
            raise ConfigError(
                "The benchmark of a pair needs a language model and a reward model",
                got=f"no --{name}",
                fix="Pass --lm PATH_OR_ID and --rm PATH_OR_ID, or --setting NAME.",
            )
    from nabla.launch.config.run import RunConfig, model_paths
    from nabla.launch.readiness import require_models
    from nabla.study.benchmark.pair import pair_setting

    place = {} if options.device is None else {"device": options.device}
    arguments = {
        name: {**place, **(values.get(name) or {})} for name in ("lm_arguments", "rm_arguments")
    }
    _require_device(options.device, chosen=True)
    config = RunConfig.of({**values, **arguments})
    require_models(config.lm, config.lm_arguments, config.rm, config.rm_arguments)
    lm, reward = config.load_models()
    name = " + ".join(Path(path).name for path in (*model_paths(config.lm), *model_paths(config.rm)))
    at = {name: usual if options[name] is None else options[name] for name, usual in PAIR.items()}
    setting = pair_setting(
        name,
        lm,
        reward,
        prefix=at["prompt_tokens"],
        response=at["response_tokens"],
        problems=at["problems"],
    )
    return setting, (lm, reward)  # type: ignore[return-value]


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _setting(name: str, device: str | None) -> Setting:
    from nabla.study.benchmark.settings import setting

    found = setting(name)
    chosen = device is not None and device != found.device
    if chosen:
        found = replace(found, device=device)  # type: ignore[arg-type]
    _require_device(found.device, chosen=chosen)
    return found


def _require_device(device: str | None, *, chosen: bool) -> None:
    """Raises ConfigError for a GPU that is not there; ``chosen``: by --device, else by --setting gpu."""
    if device != "cuda":
        return
    import torch

    if not torch.cuda.is_available():
        instead = "leave out --device cuda" if chosen else "choose --setting A or B on the CPU"
        raise ConfigError(
            "This benchmark needs a CUDA GPU, and there is none",
            got="--device cuda" if chosen else "--setting gpu",
            fix=f"Run it on a machine with a GPU, or {instead}.",
        )


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
