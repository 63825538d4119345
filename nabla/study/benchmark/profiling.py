"""Traces for torch's profiler (chrome://tracing, Perfetto)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

from nabla.engine.session import Session
from nabla.study.benchmark.bench import Stand, drive
from nabla.study.benchmark.solves import FAMILIES, Sandbox
from nabla.study.benchmark.targets.first_row import fresh

#: Problems in the trace of a solve: a trace of one has a million events.
PROBLEMS = 1


def write_traces(bench: Stand, folder: Path) -> list[Path]:
    """``refine.trace.json`` and ``solve.trace.json``, each after a warm-up."""
    workbench = bench.workbench
    dto, prompt, paths = workbench.dto(), workbench.prompt(), []

    async def work(session: Session) -> None:
        await dto.refine(await fresh(session, bench, 0), session)
        trajectory = await fresh(session, bench, 1)
        with _profiler(bench, memory=True) as trace:
            await dto.refine(trajectory, session)
        paths.append(_write(trace, folder / "refine.trace.json"))

    bench.tell("trace of a refinement")
    drive(workbench.engine(), [prompt], work)
    bench.tell("trace of a solve")
    sandbox = Sandbox(FAMILIES[0], PROBLEMS, bench.setting.device)
    sandbox.solve()
    paths.append(_traced(bench, sandbox.solve, folder / "solve.trace.json"))
    return paths


def _profiler(bench: Stand, *, memory: bool = False) -> Any:
    activities = [ProfilerActivity.CPU]
    if bench.setting.device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    return profile(activities=activities, profile_memory=memory)


def _traced(bench: Stand, call: Callable[[], object], path: Path) -> Path:
    with _profiler(bench) as trace:
        call()
    return _write(trace, path)


def _write(trace: Any, path: Path) -> Path:
    trace.export_chrome_trace(str(path))
    return path
