"""Peak memory over the loaded models, each case in a fresh process.

On Linux the peak resident size is reset after loading (``/proc/self/clear_refs``); elsewhere the
process's peak so far is the baseline. On CUDA the allocator's own peak is read.
"""

from __future__ import annotations

import ctypes
import gc
import json
import resource
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from nabla.core.errors import ConfigError, NablaError
from nabla.study.benchmark.settings import Setting, Shape

#: Steps in these processes: the peak of every step from the second on is the same.
STEPS = 2


def memory_over_models(
    setting: Setting,
    case: str,
    *,
    objective: str = "likelihood",
    threads: int = 2,
    engine: dict[str, Any] | None = None,
    dto: dict[str, Any] | None = None,
) -> dict[str, float]:
    """Bytes over the loaded models: ``peak``, of which ``refine`` after the response was read and scored, and
    ``models``, what the process held after loading.

    Args:
        setting: which models.
        case: ``first row``, ``all rows`` or ``dense``.
        objective: a key of :data:`nabla.study.benchmark.models.OBJECTIVES`.
        threads: of torch.
        engine, dto: further arguments (for ablations).

    Raises NablaError if the process fails.
    """
    request = {
        "setting": {**asdict(setting), "growth": ()},
        "case": case,
        "objective": objective,
        "threads": threads,
        "engine": engine or {},
        "dto": dto or {},
    }
    done = subprocess.run(
        [sys.executable, "-m", "nabla.study.benchmark.memory", json.dumps(request)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise NablaError(f"The process that measures memory failed: {lines[-1]}", got=case)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def resident(field: str) -> int:
    """``VmRSS`` or ``VmHWM`` of this process, bytes; its peak where there is no /proc."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def settled() -> None:
    """Gives freed memory back, so that loading's own leftovers do not hide what follows."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _measure(request: dict[str, Any]) -> dict[str, float]:
    from nabla.engine.session import Session
    from nabla.study.benchmark.bench import drive
    from nabla.study.benchmark.dense import WHY_NOT, dense_problem, load_dense
    from nabla.study.benchmark.models import Workbench

    torch.set_num_threads(request["threads"])
    raw = request["setting"]
    shapes = {name: Shape(**raw[name]) for name in ("lm", "rm")}
    workbench = Workbench(Setting(**{**raw, **shapes}))
    engine = workbench.engine(**request["engine"])
    prompt, text, objective = workbench.prompt(), workbench.text(0), request["objective"]
    cuda = workbench.setting.device == "cuda"
    opening: list[int] = []
    settled()
    models = torch.cuda.memory_allocated() if cuda else resident("VmRSS")
    if request["case"] == "dense":
        dense = load_dense()
        if dense is None:
            raise ConfigError(WHY_NOT)
        dense.refine(dense_problem(dense, workbench, prompt, text, objective), steps=STEPS)
    else:
        rows = {"name": "all", "support": 64} if request["case"] == "all rows" else "first"
        dto = workbench.dto(objective, **{"rows": rows, "steps": STEPS, **request["dto"]})

        async def work(session: Session) -> None:
            (trajectory,) = await session.read([text], workbench.sampling)
            (trajectory,) = await session.score([trajectory])
            opening.append(peak(cuda))
            settled()
            await dto.refine(trajectory, session)

        drive(engine, [prompt], work)
    last = peak(cuda)
    found = {"peak": max([last, *opening]), "refine": last}
    return {"models": float(models), **{name: float(max(v - models, 1)) for name, v in found.items()}}


def peak(cuda: bool) -> int:
    return torch.cuda.max_memory_allocated() if cuda else resident("VmHWM")


if __name__ == "__main__":
    print(json.dumps(_measure(json.loads(sys.argv[1]))))
