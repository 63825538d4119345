"""Rows on their way, and what they share with the other rows of their problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from nabla.core.costs import Account, CostMeter, Usage
from nabla.core.errors import NablaError
from nabla.core.values import changed
from nabla.models.body import Body, BodyOutput
from nabla.models.causal_lm import CausalLM
from nabla.models.keys import Keys
from nabla.models.runner import Runner
from nabla.rollouts.base import Continuation, Opening


@dataclass(eq=False)
class Prefill:
    """A text that rows of a problem begin with: it is run once for all of them.

    Args:
        context: prompt and given response.
        waiting: rows that still need it.
        output: states and keys, while rows need them.
        meter: what it cost, the first time.
    """

    context: Int[Tensor, " context"]
    waiting: int = 0
    output: BodyOutput | None = None
    meter: CostMeter = field(default_factory=CostMeter)
    counted: bool = False

    def begin(self, meter: CostMeter) -> None:
        """It is run, at the cost of a meter; counted once, however often rows begin again."""
        if not self.counted:
            self.meter = meter

    def end(self, output: BodyOutput) -> None:
        """It has been run."""
        self.output, self.counted = output, True


@dataclass(eq=False)
class Row:
    """One continuation.

    Args:
        opening: where it begins.
        number: in the order in which all were handed in.
        limit: tokens that it may write.
        prefill: what it begins with.
        meter: what it has cost since it was begun; given to its account when all is done.
    """

    opening: Opening
    number: int
    limit: int
    prefill: Prefill
    group: Group
    meter: CostMeter = field(default_factory=CostMeter)
    seconds: float = 0.0
    tokens: list[int] = field(default_factory=list)
    finished: bool = False
    answer: Continuation | NablaError | None = None
    keys: Keys | None = None
    begun: bool = False
    failures: int = 0

    @property
    def context(self) -> Int[Tensor, " context"]:
        """Prompt and given response."""
        return self.prefill.context

    @property
    def longest(self) -> int:
        """Tokens of the whole text at the most."""
        return len(self.context) + self.limit

    def going(self, lm: CausalLM) -> bool:
        """Whether it goes on behind its last token."""
        if self.finished or len(self.tokens) >= self.limit:
            return False
        until = self.opening.until
        return until is None or not until.closed(self.tokens, lm.vocabulary)

    def begin(self) -> None:
        """It has a place, and needs nothing more of its prefill."""
        self.begun = True
        self.prefill.waiting -= 1
        if not self.prefill.waiting:
            self.prefill.output = None

    def restart(self) -> None:
        """From its opening, as if it had not been begun; what is spent are the seconds."""
        self.seconds += self.meter.snapshot().total.seconds
        self.tokens, self.finished, self.meter = [], False, CostMeter()
        if self.begun:
            self.prefill.waiting, self.begun = self.prefill.waiting + 1, False
        self.prefill.output = None

    def count(self, lm: CausalLM, *, cached: bool) -> None:
        """What its steps cost, the head of every token included: at its end, since a thousand small additions
        would take longer than a small model's step. So many steps cost what one pass over the tokens does."""
        steps = max(len(self.tokens) - 1, 0) if cached else 0  # the prefill's state gives the first
        flops = lm.body.flops(steps, len(self.context)) + lm.head.flops(len(self.tokens))
        usage = Usage(decode_steps=steps, tokens=steps, flops=flops, seconds=self.seconds)
        self.meter.add(self.opening.account.phase, usage)


class Group:
    """The rows that one problem has handed in together. Their costs and prefixes become known when all are
    done, so that neither depends on who else is decoded, nor on faults on the way."""

    def __init__(self, openings: Sequence[Opening], numbers: Sequence[int], lm: CausalLM) -> None:
        self.prefills: dict[tuple[int, ...], Prefill] = {}
        self.rows: list[Row] = []
        for opening, number in zip(openings, numbers, strict=True):
            context = torch.cat([opening.prompt, opening.response])
            prefill = self.prefills.setdefault(tuple(context.tolist()), Prefill(context))
            prefill.waiting += 1
            room = lm.vocabulary.room(len(opening.prompt), opening.sampling.max_new_tokens)
            self.rows.append(Row(opening, number, room - len(opening.response), prefill, self))
        self.problem = openings[0].account.problem
        self._left = len(self.rows)

    def end(self, runner: Runner) -> None:
        """Takes note of a row's end; keys that the store would not keep are dropped."""
        self._left -= 1
        written = self._by_length()
        for other in written[: max(len(written) - runner.store.entries, 0)]:
            other.keys = None

    def _by_length(self) -> list[Row]:
        """Rows with keys in the order in which they end where all are begun together."""
        return sorted((r for r in self.rows if r.keys is not None), key=lambda r: (len(r.tokens), r.number))

    @property
    def done(self) -> bool:
        """Whether all rows have ended."""
        return self._left == 0

    def settle(self, body: Body, runner: Runner) -> None:
        """Costs go to the accounts, keys and values to the store: proposals start from them."""
        for prefill in self.prefills.values():
            payer, *others = (r.opening.account for r in self.rows if r.prefill is prefill)
            _give(prefill.meter, payer, others)
        for row in self.rows:
            _give(row.meter, row.opening.account)
        for row in self._by_length():
            tokens = torch.cat([row.context, torch.tensor(row.tokens, dtype=torch.long)])
            runner.store.offer(self.problem, body, tokens, row.keys)
            row.keys = None


def _give(meter: CostMeter, account: Account, others: Sequence[Account] = ()) -> None:
    cost = meter.snapshot()
    for phase, usage in cost.phases.items():
        changed(account, phase=phase).add(usage, others)
    for name, count in cost.counts.items():
        account.meter.count(name, count)


def groups(openings: Sequence[Opening], lm: CausalLM, first: int) -> list[Group]:
    """One a problem; rows are numbered from ``first`` on."""
    parts: dict[tuple[str, int], list[int]] = {}
    for index, opening in enumerate(openings):
        parts.setdefault((opening.account.problem, id(opening.account.meter)), []).append(index)
    return [Group([openings[i] for i in own], [first + i for i in own], lm) for own in parts.values()]
