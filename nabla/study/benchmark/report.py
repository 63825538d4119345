"""The table, and the files: results.json, measurements.csv, samples.csv, growth.csv, plots."""

from __future__ import annotations

import csv
import io
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nabla.core.files import replace_whole
from nabla.launch.figures import Canvas
from nabla.launch.folder import git_commit, versions
from nabla.study.benchmark.bench import Stand
from nabla.study.benchmark.measurement import Measurement
from nabla.study.benchmark.settings import Setting

if TYPE_CHECKING:
    from rich.table import Table

    from nabla.study.benchmark.speedups import Speedup

COLOURS = {"met": "green", "missed": "bold red"}


def machine(bench: Stand) -> dict[str, Any]:
    """Processor, device and measured peak."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if "model name" in line]
        name = lines[0].split(":", 1)[1].strip() if lines else name
    cuda = bench.setting.device == "cuda"
    return {
        "cpu": name,
        "threads": bench.threads,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "peak_flops_per_second": bench.peak,
    }


def show_machine(bench: Stand) -> str:
    """One line."""
    about = machine(bench)
    cuda = bench.setting.device == "cuda"
    where = about["device"] if cuda else f"{about['cpu']}, {about['threads']} threads"
    return (
        f"setting {bench.setting.name}, {bench.setting.dtype}, {where}; torch {torch.__version__}; "
        f"measured peak {bench.peak / 1e9:.0f} GFLOP/s"
    )


def measurement_table(found: Sequence[Measurement], setting: Setting) -> Table:
    """One row per figure."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=f"Cost of refinement, setting {setting.name}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption="[95 % bootstrap interval of the median]; the verdict is the median's.",
        caption_justify="left",
    )
    table.add_column("target", justify="right")
    table.add_column("figure", ratio=1)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("goal", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    last = None
    for m in found:
        if last not in (None, m.target):
            table.add_section()
        last = m.target
        name = Text(m.name)
        if m.detail:
            name.append(f"\n  {m.detail}", style="dim")
        value = "–"
        if m.value is not None:
            value = f"{m.value.value:.3g}{m.unit if m.unit in ('×', '%') else ''}"
            if (m.value.low, m.value.high) != (m.value.value, m.value.value):
                value += f"\n[{m.value.low:.3g}, {m.value.high:.3g}]"
        goal = "" if m.goal is None else f"{'≤' if m.at_most else '≥'} {m.goal:g}"
        table.add_row(
            str(m.target), name, Text(value), goal, Text(m.verdict, style=COLOURS.get(m.verdict, "dim"))
        )
    return table


def write_results(
    bench: Stand,
    found: Sequence[Measurement],
    ablations: Sequence[Speedup],
    folder: Path,
    arguments: list[str],
) -> None:
    """All files of a run."""
    from nabla.study.benchmark.plots import write_plots

    about = {
        "arguments": arguments,
        "setting": bench.setting.name,
        "given": bench.setting.given,
        "machine": machine(bench),
        "versions": versions(),
        "git_commit": git_commit(),
        "measurements": [m.to_dict() for m in found],
        "ablations": [a.to_dict() for a in ablations],
        "samples": bench.samples,
        "growth": bench.growth,
    }
    replace_whole(folder / "results.json", json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    rows = [m.to_dict() for m in found]
    for row in rows:
        row["parts"] = "; ".join(f"{name}={value:.6g}" for name, value in row["parts"].items())
    _csv(folder / "measurements.csv", rows)
    samples = [
        {"name": name, "sample": i, "value": value}
        for name, values in bench.samples.items()
        for i, value in enumerate(values)
    ]
    _csv(folder / "samples.csv", samples)
    _csv(folder / "growth.csv", bench.growth)
    _csv(folder / "ablations.csv", [a.to_dict() for a in ablations])
    write_plots(about, Canvas(folder, dpi=90))


def _csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    replace_whole(path, text.getvalue())
