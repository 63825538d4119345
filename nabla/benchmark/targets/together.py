"""Target 6: problems solved together, beside one after another."""

from __future__ import annotations

from nabla.benchmark.measurement import Measurement
from nabla.benchmark.run import Bench
from nabla.benchmark.sandbox import FAMILIES, Sandbox
from nabla.benchmark.timing import median, ratio
from nabla.errors import NumericalError

GOAL = 8.0
#: Samples: one after another takes long, and sums over many problems already.
REPEATS = 3


def measure(bench: Bench) -> list[Measurement]:
    """Throughput ratio per family; the answers must be the same."""
    return [_measure(bench, family) for family in FAMILIES]


def _measure(bench: Bench, family: str) -> Measurement:
    sandbox = Sandbox(family, bench.setting.problems, bench.setting.device)
    sandbox.solve()  # warm up
    together, apart = [], []
    for _ in range(min(bench.repeats, REPEATS)):
        bench.tell(f"{family} together")
        all_at_once = sandbox.solve(live=len(sandbox.prompts))
        bench.tell(f"{family} one after another")
        in_turn = sandbox.solve(live=1)
        differing = sum(a != b for a, b in zip(all_at_once.answers, in_turn.answers, strict=True))
        if differing:
            raise NumericalError(
                f"{differing} of {len(sandbox.prompts)} {family} answers depend on what else runs",
                fix="A batch's rounding has moved a draw; this is a defect of the engine.",
            )
        together.append(all_at_once.seconds)
        apart.append(in_turn.seconds)
    bench.keep(f"{family} together", together)
    bench.keep(f"{family} one after another", apart)
    count = len(sandbox.prompts)
    both = median(together).value, median(apart).value
    return Measurement(
        6,
        f"throughput of {count} {family} problems, together / in turn",
        ratio(apart, together),
        "×",
        GOAL,
        at_most=False,
        detail=f"{both[0]:.2f} s together, {both[1]:.2f} s one after another; same answers",
        parts={"together": both[0], "in turn": both[1], "problems": float(count)},
    )
