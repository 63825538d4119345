"""Target 6: problems solved together, beside one after another."""

from __future__ import annotations

from nabla.benchmark.measurement import Measurement
from nabla.benchmark.run import Bench
from nabla.benchmark.sandbox import FAMILIES, Sandbox, Spread
from nabla.benchmark.timing import median, ratio
from nabla.errors import NumericalError

GOAL = 8.0
#: Samples: one after another takes long, and sums over many problems already.
REPEATS = 3


def measure(bench: Bench) -> list[Measurement]:
    """Throughput ratios per family; the answers must be the same."""
    return [m for family in FAMILIES for m in _measure(bench, family)]


def _measure(bench: Bench, family: str) -> list[Measurement]:
    count = bench.setting.problems
    sandbox = Sandbox(family, count, bench.setting.device)
    sandbox.solve()  # warm up
    spread = Spread(family, count, bench.threads) if bench.setting.device == "cpu" else None
    together: list[float] = []
    apart: list[float] = []
    processes: list[float] = []
    try:
        for _ in range(min(bench.repeats, REPEATS)):
            bench.tell(f"{family} together")
            all_at_once = sandbox.solve(live=count)
            together.append(all_at_once.seconds)
            if spread is not None:
                bench.tell(f"{family} together in {bench.threads} processes")
                answers, seconds = spread.solve()
                processes.append(seconds)
                _require_same(family, answers, all_at_once.answers)
            bench.tell(f"{family} one after another")
            in_turn = sandbox.solve(live=1)
            apart.append(in_turn.seconds)
            _require_same(family, in_turn.answers, all_at_once.answers)
    finally:
        if spread is not None:
            spread.close()
    bench.keep(f"{family} one after another", apart)
    what = f"{count} {family} problems"
    found = [_row(bench, f"{what}, one process", together, apart, None if processes else GOAL)]
    if processes:
        label = f"{what}, {bench.threads} processes of one thread"
        found.append(_row(bench, label, processes, apart, GOAL))
    return found


def _row(
    bench: Bench, what: str, together: list[float], apart: list[float], goal: float | None
) -> Measurement:
    bench.keep(what, together)
    both = median(together).value, median(apart).value
    return Measurement(
        6,
        f"throughput together / in turn: {what}",
        ratio(apart, together),
        "×",
        goal,
        at_most=False,
        detail=f"{both[0]:.2f} s together, {both[1]:.2f} s one after another; same answers",
        parts={"together": both[0], "in turn": both[1]},
    )


def _require_same(family: str, answers: list[tuple[int, ...]], expected: list[tuple[int, ...]]) -> None:
    differing = sum(a != b for a, b in zip(answers, expected, strict=True))
    if differing:
        raise NumericalError(
            f"{differing} of {len(expected)} {family} answers depend on what else runs",
            fix="A batch's rounding has moved a draw; this is a defect of the engine.",
        )
