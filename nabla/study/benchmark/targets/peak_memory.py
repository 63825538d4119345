"""Target 4: peak memory over the loaded models, nabla's and the dense reference's."""

from __future__ import annotations

from nabla.study.benchmark.bench import Stand
from nabla.study.benchmark.dense import WHY_NOT, load_dense
from nabla.study.benchmark.measurement import Measurement
from nabla.study.benchmark.memory import memory_over_models
from nabla.study.benchmark.timing import Interval

#: Share of the dense reference's peak.
GOAL = 0.07


def measure(bench: Stand) -> list[Measurement]:
    """Each in a fresh process: a response is read, scored and refined at its first row."""
    name = "peak memory, nabla / dense"
    goal = GOAL if bench.setting.name in ("A", "small", "gpu") else None
    bench.tell("memory of nabla")
    with bench.set_aside():
        ours = memory_over_models(bench.setting, "first row", threads=bench.threads)
    bench.keep("peak bytes of nabla", [ours["peak"]])
    shown = (
        f"nabla {ours['peak'] / 1e6:.0f} MB ({ours['refine'] / 1e6:.0f} MB while it refines) over "
        f"{ours['models'] / 1e6:.0f} MB with the models loaded"
    )
    if load_dense() is None or bench.dense_repeats == 0:
        why = WHY_NOT if load_dense() is None else "the dense reference is left out (--dense-repeats 0)"
        return [Measurement(4, name, None, "", goal, detail=f"{shown}; {why}", parts={"nabla": ours["peak"]})]
    bench.tell("memory of the dense reference")
    with bench.set_aside():
        dense = memory_over_models(bench.setting, "dense", threads=bench.threads)
    bench.keep("peak bytes of dense", [dense["peak"]])
    share = ours["peak"] / dense["peak"]
    return [
        Measurement(
            4,
            name,
            Interval(share, share, share),
            "",
            goal,
            detail=f"{shown}; dense {dense['peak'] / 1e6:.0f} MB",
            parts={
                "nabla": ours["peak"],
                "refine": ours["refine"],
                "dense": dense["peak"],
                "models": ours["models"],
            },
        )
    ]
