"""Target 1: refine one position, beside the floor and the dense reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nabla.core.errors import NumericalError
from nabla.core.trajectory import Trajectory
from nabla.engine.session import Session
from nabla.study.benchmark.bench import Stand, drive
from nabla.study.benchmark.dense import WHY_NOT, dense_problem, load_dense
from nabla.study.benchmark.floor import Floor
from nabla.study.benchmark.measurement import Measurement
from nabla.study.benchmark.timing import Interval, median, now, ratio

#: Goals: times the floor at most; times faster than the dense reference at least.
FLOOR_GOAL = 1.2
DENSE_GOAL = {"likelihood": 40.0, "reward": 120.0}


async def fresh(session: Session, bench: Stand, seed: int) -> Trajectory:
    """A trajectory that nothing but its prefixes' caches is known of, as after a rollout: read, scored."""
    workbench = bench.workbench
    (trajectory,) = await session.read([workbench.text(seed)], workbench.sampling)
    (trajectory,) = await session.score([trajectory])
    return trajectory


def measure(bench: Stand) -> list[Measurement]:
    """With likelihood and without."""
    return [m for objective in ("likelihood", "reward") for m in _measure(bench, objective)]


def _measure(bench: Stand, objective: str) -> list[Measurement]:
    workbench, repeats = bench.workbench, bench.repeats
    dto, engine = workbench.dto(objective), workbench.engine()
    prompt = workbench.prompt()
    floor = Floor(
        workbench.lm, workbench.reward, prompt, workbench.text(0), likelihood=objective == "likelihood"
    )
    times: list[float] = []
    parts: dict[str, list[float]] = {}
    kept: dict[int, Tensor] = {}
    flops: list[float] = []

    async def work(session: Session) -> None:
        for turn in range(repeats + 1):  # the first to warm up
            trajectory = await fresh(session, bench, turn)
            before = session.cost.total.flops
            begin = now()
            refinement = await dto.refine(trajectory, session, range(1, len(trajectory)))
            spent = now() - begin
            if refinement.recomputed != 1:
                raise NumericalError(
                    "An argmax flipped where the benchmark wants none", got=refinement.recomputed
                )
            found = floor.parts()
            if turn:
                times.append(spent)
                flops.append(session.cost.total.flops - before)
                for name, value in found.items():
                    parts.setdefault(name, []).append(value)
            kept[turn] = refinement.logits[0].cpu()

    bench.tell(f"refine one position ({objective})")
    drive(engine, [prompt], work)
    floors = [sum(row) for row in zip(*parts.values(), strict=True)]
    label = "with likelihood" if objective == "likelihood" else "without likelihood"
    bench.keep(f"refine {label}", times)
    bench.keep(f"floor {label}", floors)
    goal = FLOOR_GOAL if objective == "likelihood" else None
    medians = {name: median(values).value for name, values in parts.items()}
    results = _against_floor(bench, label, goal, times, floors, median(flops).value, medians)
    return results + _dense(bench, objective, label, prompt, times, kept)


def _against_floor(
    bench: Stand,
    label: str,
    goal: float | None,
    times: Sequence[float],
    floors: Sequence[float],
    flops: float,
    medians: dict[str, float],
) -> list[Measurement]:
    """A refinement's time against its floor's, and its FLOPs per second against the machine's.

    Args:
        bench: keeps the peak.
        label: of the objective.
        goal: of the ratio.
        times: seconds of each refinement.
        floors: seconds of each floor.
        flops: of one refinement.
        medians: seconds of the floor's parts.
    """
    shown = " + ".join(f"{name} {1e3 * value:.1f}" for name, value in medians.items())
    whole = median(times)
    rate = flops / whole.value
    return [
        Measurement(
            1,
            f"refine {label} / floor",
            ratio(times, floors),
            "×",
            goal,
            detail=f"refine {1e3 * whole.value:.1f} ms; floor {1e3 * median(floors).value:.1f} ms = {shown}",
            parts={"refine": whole.value, "floor": median(floors).value, **medians},
        ),
        Measurement(
            1,
            f"FLOPs of refine {label} / peak",
            Interval(*(x / bench.peak for x in (rate, rate, rate))),
            "",
            detail=f"{rate / 1e9:.0f} of {bench.peak / 1e9:.0f} GFLOP/s",
            parts={"rate": rate, "peak": bench.peak},
        ),
    ]


def _dense(
    bench: Stand, objective: str, label: str, prompt: Any, times: list[float], kept: dict[int, Tensor]
) -> list[Measurement]:
    name = f"dense / refine {label}"
    goal = DENSE_GOAL[objective] if bench.setting.name in ("A", "gpu") else None
    dense = load_dense()
    if dense is None or bench.dense_repeats == 0:
        why = WHY_NOT if dense is None else "left out (--dense-repeats 0)"
        return [Measurement(1, name, None, "×", goal, at_most=False, detail=why)]
    workbench = bench.workbench
    bench.tell(f"dense reference ({objective})")
    found, selections, errors = [], [], []
    for turn in range(1, bench.dense_repeats + 1):
        seed = min(turn, bench.repeats)
        problem = dense_problem(dense, workbench, prompt, workbench.text(seed), objective)
        try:
            begin = now()
            refined = dense.refine(problem, steps=workbench.setting.steps)
            found.append(now() - begin)
            errors.append(float((refined.logits[0].cpu() - kept[seed]).abs().max()))
            del refined
            begin = now()
            dense.select(problem)
            selections.append(now() - begin)
        except torch.OutOfMemoryError:
            why = "the dense reference does not fit on this GPU"
            return [Measurement(1, name, None, "×", goal, at_most=False, detail=why)]
    bench.keep(f"dense {label}", found)
    bench.keep(f"dense selector {label}", selections)
    whole, selector = median(found), median(selections)
    return [
        Measurement(
            1,
            name,
            ratio(found, times),
            "×",
            goal,
            at_most=False,
            detail=f"dense {whole.value:.2f} s (its selector {selector.value:.2f} s more); refined logits "
            f"differ by {max(errors):.1e} at most",
            parts={
                "dense": whole.value,
                "selector": selector.value,
                "refine": median(times).value,
                "difference": max(errors),
            },
        )
    ]
