"""Target 3: all rows over a support of 64 candidates."""

from __future__ import annotations

from dataclasses import replace

from nabla.engine.session import Session
from nabla.study.benchmark.bench import Stand, drive
from nabla.study.benchmark.floor import Floor
from nabla.study.benchmark.measurement import Measurement
from nabla.study.benchmark.memory import memory_over_models
from nabla.study.benchmark.targets.first_row import fresh
from nabla.study.benchmark.timing import Interval, median, now, ratio

GOAL = 1.5
#: Largest growth of memory over the models for a vocabulary four times as large.
MEMORY_GOAL = 1.1
SUPPORT = 64


def measure(bench: Stand) -> list[Measurement]:
    """Seconds per recomputed gradient; dropped mass; memory at two vocabularies."""
    workbench = bench.workbench
    dto, prompt = workbench.dto(rows={"name": "all", "support": SUPPORT}), workbench.prompt()
    floor = Floor(workbench.lm, workbench.reward, prompt, workbench.text(0))
    per_gradient: list[float] = []
    floors: list[float] = []
    gradients: list[float] = []
    dropped: list[float] = []

    async def work(session: Session) -> None:
        for turn in range(bench.repeats + 1):
            trajectory = await fresh(session, bench, turn)
            before = session.cost.counts.get("gradients_computed", 0)
            begin = now()
            refinement = await dto.refine(trajectory, session)
            spent = now() - begin
            computed = session.cost.counts["gradients_computed"] - before
            base = sum(floor.parts().values())
            if turn:
                per_gradient.append(spent / computed)
                floors.append(base)
                gradients.append(computed)
                dropped.append(refinement.dropped_mass)

    bench.tell("all rows")
    drive(workbench.engine(), [prompt], work)
    bench.keep("all rows per gradient", per_gradient)
    bench.keep("floor beside all rows", floors)
    found, base = median(per_gradient), median(floors)
    return [
        Measurement(
            3,
            "refine all rows, per gradient / floor",
            ratio(per_gradient, floors),
            "×",
            GOAL,
            detail=f"{1e3 * found.value:.1f} ms per gradient, {median(gradients).value:.0f} gradients in "
            f"{workbench.setting.steps} steps; floor {1e3 * base.value:.1f} ms",
            parts={
                "per gradient": found.value,
                "floor": base.value,
                "gradients": median(gradients).value,
            },
        ),
        Measurement(
            3,
            f"mass outside the support of {SUPPORT}",
            median(dropped),
            "probability",
            detail="bound on the tail's share of the softmax gradient, largest row",
        ),
        _memory(bench),
    ]


def _memory(bench: Stand) -> Measurement:
    large = bench.setting
    vocab = large.lm.vocab // 4
    small = replace(large, lm=replace(large.lm, vocab=vocab), rm=replace(large.rm, vocab=vocab))
    bench.tell("memory of all rows at two vocabularies")
    with bench.set_aside():
        more = memory_over_models(large, "all rows", threads=bench.threads)["peak"]
        less = memory_over_models(small, "all rows", threads=bench.threads)["peak"]
    share = more / less
    return Measurement(
        3,
        "memory over the models, V / (V/4)",
        Interval(share, share, share),
        "×",
        MEMORY_GOAL,
        detail=f"{more / 1e6:.0f} MB at V = {large.lm.vocab:,}, {less / 1e6:.0f} MB at V = {vocab:,}",
        parts={"large": more, "small": less},
    )
