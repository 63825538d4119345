"""Cost accounting (SPEC section 13): model calls, tokens, FLOPs, seconds and peak memory by phase.

A model call is one sequential decoding step or one parallel pass, counted for the problem that asked
for it as if it had run alone; forward and backward are apart. Phase "method" is the arithmetic between
the requests (optimiser steps, proposals): seconds without model calls. A pass is counted before it runs,
so that a failing one is counted too; one that is run again after a fault is counted once. A pass whose graph
was kept and then lost to a fault is run again beside all sums: it is repeated work, not the problem's.

Latency is in none of these sums, so the critical path is counted beside them: the longest chain of calls of
which each waits for the one before. What a problem asks for together (the responses of a pool, texts to be
scored) are branches that wait for nothing of each other: such a request is as long as its longest branch.
Within a branch, and from one request to the next, every call waits for the one before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from nabla.core import html
from nabla.core.errors import ConfigError
from nabla.core.values import changed

PHASES = ("rollout", "gradient", "reward", "selection", "method")


@dataclass(frozen=True)
class Usage:
    """What one phase used. Tokens are real ones, padding is apart; seconds are this problem's share of
    its batches' wall-clock; bytes are the largest extra memory of one batch (CUDA only, else 0).

    Of a remote rollout: a decoding step and a token for each token written (what a server computes for a
    prompt depends on its caches and is not counted), FLOPs only if it knows the server's model, else 0, and
    the seconds from asking to the last answer, which problems that wait at the same time count each.

    ``beside`` are the calls that are not on the critical path: they run beside a longer branch."""

    decode_steps: int = 0
    forward_passes: int = 0
    backward_passes: int = 0
    tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    peak_bytes: int = 0
    beside: int = 0

    @property
    def calls(self) -> int:
        """Model calls in all."""
        return self.decode_steps + self.forward_passes + self.backward_passes

    @property
    def critical_steps(self) -> int:
        """Length of the critical path: decoding steps and passes that wait for one another."""
        return self.calls - self.beside

    def __add__(self, other: Usage) -> Usage:
        return Usage(  # written out: a solve adds thousands
            self.decode_steps + other.decode_steps,
            self.forward_passes + other.forward_passes,
            self.backward_passes + other.backward_passes,
            self.tokens + other.tokens,
            self.flops + other.flops,
            self.seconds + other.seconds,
            max(self.peak_bytes, other.peak_bytes),
            self.beside + other.beside,
        )

    def cells(self) -> tuple[str, ...]:
        """Calls, decoding steps, passes forward and backward, tokens, FLOPs and seconds, for people."""
        counts = (self.calls, self.decode_steps, self.forward_passes, self.backward_passes, self.tokens)
        return (*(f"{count:,}" for count in counts), f"{self.flops:.2e}", f"{self.seconds:.2f}")

    def to_dict(self) -> dict[str, int | float]:
        """JSON-ready, calls and the critical path included."""
        known = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "beside"}
        return {"calls": self.calls, **known, "critical_steps": self.critical_steps}


@dataclass(frozen=True)
class Cost:
    """Usage by phase, with counts of work that the caches saved.

    ``repeated`` is what was run once more because a fault had cost its result: in no phase and in no total,
    which are those of a run without the fault."""

    phases: Mapping[str, Usage] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    repeated: Usage = field(default_factory=Usage)

    @property
    def total(self) -> Usage:
        """All phases together."""
        return sum(self.phases.values(), Usage())

    def _repr_html_(self) -> str:
        head = ("phase", "calls", "decoding", "forward", "backward", "tokens", "FLOPs", "seconds")
        rows = [(name, *usage.cells()) for name, usage in self.phases.items()]
        return html.table(head, [*rows, ("total", *self.total.cells())], "Cost")

    def __add__(self, other: Cost) -> Cost:
        phases = dict(self.phases)
        for phase, usage in other.phases.items():
            phases[phase] = phases.get(phase, Usage()) + usage
        counts = dict(self.counts)
        for name, count in other.counts.items():
            counts[name] = counts.get(name, 0) + count
        return Cost(phases, counts, self.repeated + other.repeated)

    @staticmethod
    def sum(costs: Iterable[Cost]) -> Cost:
        """Of many problems."""
        return sum(costs, Cost())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; repeated work where there was any."""
        repeated = {"repeated": self.repeated.to_dict()} if self.repeated.calls else {}
        return {
            "phases": {phase: usage.to_dict() for phase, usage in self.phases.items()},
            "total": self.total.to_dict(),
            "counts": dict(self.counts),
            **repeated,
        }


class CostMeter:
    """Collects the cost of one problem while it runs."""

    def __init__(self) -> None:
        self._phases: dict[str, Usage] = {}
        self._counts: dict[str, int] = {}
        self._repeated = Usage()
        #: Of the last request with several branches: its name, and the length of each.
        self._together: object = None
        self._lengths: dict[int, int] = {}

    def add(self, phase: str, usage: Usage) -> None:
        """Adds usage to one of PHASES."""
        if phase not in PHASES:
            raise ConfigError("Unknown cost phase", got=phase, fix=f"Use {', '.join(PHASES)}.")
        self._phases[phase] = self._phases.get(phase, Usage()) + usage

    def lengthen(self, branches: Sequence[Branch], calls: int) -> int:
        """By how much the critical path grows when all these branches of a request grow by so many calls."""
        if self._together is not branches[0].together:
            self._together, self._lengths = branches[0].together, {}
        before = max(self._lengths.values(), default=0)
        for branch in branches:
            self._lengths[branch.number] = self._lengths.get(branch.number, 0) + calls
        return max(self._lengths.values()) - before

    def count(self, name: str, number: int = 1) -> None:
        """Adds to a named counter (cache hits, skipped positions, ...)."""
        self._counts[name] = self._counts.get(name, 0) + number

    def repeat(self, usage: Usage) -> None:
        """Adds work that was done before and lost to a fault; no roll-back takes it away again."""
        self._repeated += usage

    def snapshot(self) -> Cost:
        """The cost so far."""
        return Cost(dict(self._phases), dict(self._counts), self._repeated)

    def checkpoint(self) -> Callable[[], None]:
        """Takes note of the cost so far; the function that is returned rolls back to it."""
        cost, together, lengths = self.snapshot(), self._together, dict(self._lengths)

        def restore() -> None:
            self.roll_back(cost)
            self._together, self._lengths = together, dict(lengths)

        return restore

    def roll_back(self, cost: Cost) -> None:
        """Takes back what was added since a snapshot, for work that has failed and is done again; seconds
        and bytes were spent and stay."""
        for phase, usage in self._phases.items():
            before = cost.phases.get(phase, Usage())
            self._phases[phase] = replace(before, seconds=usage.seconds, peak_bytes=usage.peak_bytes)
        self._counts = dict(cost.counts)


@dataclass(frozen=True, eq=False)
class Branch:
    """One of the parts of a request that wait for nothing of each other.

    Args:
        together: the same object for all parts of the request.
        number: of this part.
    """

    together: object
    number: int


@dataclass(frozen=True, eq=False)
class Account:
    """Who pays for a request: the problem, its meter, and the phase; and of a request with several branches,
    which of them this is. Calls without a branch wait for one another."""

    problem: str
    meter: CostMeter
    phase: str
    branch: Branch | None = None

    def add(self, usage: Usage, others: Sequence[Account] = ()) -> None:
        """Adds what was used, on the critical path as far as this branch is on it.

        Args:
            usage: paid once, by this account.
            others: accounts of branches of the same request that have waited for these calls too.
        """
        if self.branch is not None and usage.calls:
            branches = [self.branch, *(o.branch for o in others if o.branch is not None)]
            grown = self.meter.lengthen(branches, usage.calls)
            usage = changed(usage, beside=usage.calls - grown)
        self.meter.add(self.phase, usage)

    def branches(self, count: int) -> list[Account]:
        """Accounts of so many parts of one request that wait for nothing of each other."""
        together = object()
        return [changed(self, branch=Branch(together, number)) for number in range(count)]
