"""Target 2: the next position on the same trajectory reuses the gradient."""

from __future__ import annotations

from nabla.core.errors import NumericalError
from nabla.engine.session import Session
from nabla.study.benchmark.bench import Stand, drive
from nabla.study.benchmark.floor import Floor
from nabla.study.benchmark.measurement import Measurement
from nabla.study.benchmark.targets.first_row import fresh
from nabla.study.benchmark.timing import median, now, ratio

GOAL = 0.02
#: Positions timed, at most.
POSITIONS = 64


def measure(bench: Stand) -> list[Measurement]:
    """Over the positions whose argmax no refinement can flip."""
    workbench = bench.workbench
    dto, prompt = workbench.dto(), workbench.prompt()
    floor = Floor(workbench.lm, workbench.reward, prompt, workbench.text(0))
    each: list[float] = []
    floors: list[float] = []

    async def work(session: Session) -> None:
        trajectory = await fresh(session, bench, 0)
        safe = workbench.safe(trajectory.hidden).nonzero()[:, 0].tolist()
        later = [p for p in safe if p > 0][:POSITIONS]
        await dto.refine(trajectory, session, later)
        computed = session.cost.counts["gradients_computed"]
        for turn, position in enumerate(later):
            trajectory = trajectory.commit(position - trajectory.committed)
            begin = now()
            refinement = await dto.refine(trajectory, session, later[turn + 1 :])
            each.append(now() - begin)
            if refinement.recomputed != 1 or session.cost.counts["gradients_computed"] != computed:
                raise NumericalError("The gradient was not reused", got=f"position {position}")
            if turn < bench.repeats:
                floors.append(sum(floor.parts().values()))

    bench.tell("next positions")
    drive(workbench.engine(), [prompt], work)
    # Rows are formed for a block of positions at once: a mean over a block holds its share.
    block = workbench.engine().workspace.rows_ahead
    blocks = [each[i : i + block] for i in range(0, len(each), block)]
    times = [sum(part) / len(part) for part in blocks]
    bench.keep("next position", each)
    bench.keep("floor beside the next positions", floors)
    found, base = median(times), median(floors)
    return [
        Measurement(
            2,
            "refine the next position / floor",
            ratio(times, floors),
            "×",
            GOAL,
            detail=f"{1e3 * found.value:.2f} ms, means of {block} of {len(each)} positions; "
            f"floor {1e3 * base.value:.1f} ms",
            parts={"next": found.value, "floor": base.value, "positions": float(len(each))},
        )
    ]
