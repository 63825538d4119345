"""Target 6: problems solved together, beside one after another."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from nabla.core.errors import NumericalError
from nabla.models.runner import Occupancy
from nabla.study.benchmark.bench import Stand
from nabla.study.benchmark.measurement import Measurement
from nabla.study.benchmark.solves import FAMILIES, Sandbox, Spread
from nabla.study.benchmark.timing import median, ratio

GOAL = 8.0
#: Samples: one after another takes long, and sums over many problems already.
REPEATS = 3
#: Times as many problems as are solved together, where new ones come in for those that are done.
REFILLED = 4


def measure(bench: Stand) -> list[Measurement]:
    """Throughput ratios per family; the answers must be the same."""
    return [m for family in FAMILIES for m in _measure(bench, family)]


def _measure(bench: Stand, family: str) -> list[Measurement]:
    """From the first problem to the end of the last, with ever fewer at the end; and with new problems in
    the places of those that are done."""
    count = bench.setting.problems
    several = bench.setting.device == "cpu"
    first = Sandbox(family, count, bench.setting.device)
    many = Sandbox(family, REFILLED * count, bench.setting.device)
    for sandbox in (first, many):  # warm up
        sandbox.solve(live=count)
    spreads: dict[str, Spread] = {}
    times: dict[str, list[float]] = {}
    fill: dict[str, Occupancy] = {}
    with ExitStack() as stack:
        if several:
            for name, problems in (("first", count), ("many", REFILLED * count)):
                spreads[name] = stack.enter_context(Spread(family, problems, bench.threads, count))
        replay = spreads["first"].replay if several else partial(first.replay, count)
        replay()  # the first one records, and warms up
        for _ in range(min(bench.repeats, REPEATS)):
            bench.tell(f"{family} one after another")
            blocks = many.in_turn(count)
            expected = [answer for block in blocks for answer in block.answers]
            times.setdefault("first in turn", []).append(blocks[0].seconds)
            times.setdefault("many in turn", []).append(sum(block.seconds for block in blocks))
            for name, sandbox in (("first", first), ("many", many)):
                bench.tell(f"{len(sandbox.prompts)} {family} problems, {count} at a time")
                together = sandbox.solve(live=count)
                times.setdefault(name, []).append(together.seconds)
                fill[name] = together.occupancy
                _require_same(family, together.answers, expected)
                if name in spreads:
                    bench.tell(f"the same in {bench.threads} processes")
                    answers, seconds = spreads[name].solve()
                    times.setdefault(f"{name} spread", []).append(seconds)
                    _require_same(family, answers, expected)
            bench.tell("their models' work in full batches")
            times.setdefault("full", []).append(replay())
    found = []
    for name, what in (
        ("first", f"{count} {family} problems"),
        ("many", f"{REFILLED * count} {family} problems, {count} at a time"),
    ):
        apart = times[f"{name} in turn"]
        bench.keep(f"{what}, one after another", apart)
        goal = None if several else GOAL
        label = f"{what}, one process"
        found.append(_row(bench, label, times[name], apart, goal, f"; {fill[name]}"))
        if several:
            label = f"{what}, {bench.threads} processes of one thread"
            found.append(_row(bench, label, times[f"{name} spread"], apart, GOAL))
    found.append(_bound(bench, f"{count} {family} problems", times["full"], times["first in turn"]))
    return found


def _bound(bench: Stand, what: str, full: list[float], apart: list[float]) -> Measurement:
    """What throughput could be at the most: the same passes and steps of the models, every batch full, with
    nothing between them."""
    bench.keep(f"{what}, the models' work in full batches", full)
    each = median(full).value
    return Measurement(
        6,
        f"the same of {what}, all batches full and no bookkeeping",
        ratio(apart, full),
        "×",
        detail=f"{each:.2f} s for the models' passes and decoding steps alone, in as many processes",
        parts={"full batches": each},
    )


def _row(
    bench: Stand, what: str, together: list[float], apart: list[float], goal: float | None, more: str = ""
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
        detail=f"{both[0]:.2f} s together, {both[1]:.2f} s one after another; same answers{more}",
        parts={"together": both[0], "in turn": both[1]},
    )


def _require_same(family: str, answers: list[tuple[int, ...]], expected: list[tuple[int, ...]]) -> None:
    differing = sum(a != b for a, b in zip(answers, expected[: len(answers)], strict=True))
    if differing:
        raise NumericalError(
            f"{differing} of {len(answers)} {family} answers depend on what else runs",
            fix="A batch's rounding has moved a draw; this is a defect of the engine.",
        )
