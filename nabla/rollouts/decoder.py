"""Continuous decoding: rows of many problems step by step, and new ones in the places of those that end."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.costs import Account, CostMeter
from nabla.core.errors import NablaError, NumericalError
from nabla.core.trajectory import States
from nabla.models.body import Chunk, Prefix
from nabla.models.causal_lm import CausalLM
from nabla.models.faults import exhausted, free_memory, may_pass, told
from nabla.models.keys import Keys
from nabla.models.runner import Runner
from nabla.rollouts.base import Continuation, Opening, Writer
from nabla.rollouts.draws import Draws
from nabla.rollouts.rows import Row, groups
from nabla.rollouts.slots import CacheSlots, Notes

#: Share of rows on their way at which the places of the others are given up.
DENSE = 0.75
#: New rows wait until so many can join at once (a share of all places), unless they are all that wait.
JOIN = 0.125
#: Steps without a fault after which places that were given up begin to come back; twice as many after each
#: further fault, up to LONGEST times as many.
RECOVERY, LONGEST = 512, 64
#: Share of the free memory that keys and values may take by default.
SHARE = 0.25


class Decoder(Writer):
    """Rows of one language model.

    A row draws from its own key and position, so that it writes the same wherever it joins. If a step fails,
    all rows on their way begin again from their openings, in two batches that nobody joins; where memory has
    run out, half as many rows at most are decoded together from then on, and a quarter more after each
    RECOVERY steps in which nothing fails.

    Args:
        lm: the language model.
        runner: batches prefills, counts, and holds the prefixes.
        rows: decoded together at the most.
        rollout_bytes: of their keys and values, at the length that they may reach; None: a quarter of what is
            free on the device.
        joins: rows join while others are on their way; False writes so many at a time to their end.
    """

    def __init__(
        self,
        lm: CausalLM,
        runner: Runner,
        rows: int = 64,
        rollout_bytes: float | None = None,
        *,
        joins: bool = True,
    ) -> None:
        self.lm, self.runner, self.joins = lm, runner, joins
        self.places = self.most = rows
        #: Steps since the last fault or return of places, and how many it takes.
        self._calm, self._wait = 0, RECOVERY / 2
        free = SHARE * _free(lm.body.device) if rollout_bytes is None else rollout_bytes
        #: Tokens of all rows together, padding included.
        self.columns = free / lm.body.cache_bytes(1)
        self._queue: deque[Row] = deque()
        #: Batches of rows that begin again apart from all others, the next one last.
        self._apart: list[list[Row]] = []
        self._alone = False
        #: Rows that are taken in just now, and rows that have ended.
        self._joining: list[Row] = []
        self._ended: list[Row] = []
        self._count = 0
        self._clear()

    def _clear(self) -> None:
        #: Whose row each place is, or nobody's.
        self.rows: list[Row | None] = []
        self.cached = True
        self.slots, self.notes = CacheSlots(self.lm.body), Notes()
        self.draws: Draws | None = None
        self.hidden: Tensor | None = None
        self.step = 0

    # -- what the engine asks ------------------------------------------------------------------------

    def submit(self, openings: Sequence[Opening]) -> list[int]:
        first, self._count = self._count, self._count + len(openings)
        for group in groups(openings, self.lm, first):
            self._queue.extend(group.rows)
        return list(range(first, self._count))

    @property
    def live(self) -> int:
        """Rows that are being decoded."""
        return sum(row is not None for row in self.rows)

    @property
    def busy(self) -> bool:
        return bool(self._queue or self._apart) or self.live > 0

    @torch.no_grad()
    def advance(self, steps: int, enough: int) -> dict[int, Continuation | NablaError]:
        ready: dict[int, Continuation | NablaError] = {}
        done = 0
        try:
            for _ in range(steps):
                self._admit()
                self._step()
                self._recover()
                if self._ended:
                    done += self._settle(ready)
                if done >= enough or not self.busy:
                    break
            return ready
        except Exception as error:
            out, passing = exhausted(error), may_pass(error)
            failure: NablaError | None = told(error, "A rollout request")
        victims = [row for row in self.rows if row is not None]
        victims += [row for row in self._joining if row not in victims]
        if len(victims) == 1 and (victims[0].failures or not passing):
            victims[0].answer = failure
            self._ended += victims
            victims = []
        del failure  # its frames hold the tensors of the failed attempt
        self._begin_again(victims, out)
        self._settle(ready)
        return ready

    def _begin_again(self, rows: list[Row], out: bool) -> None:
        self._clear()
        self._joining, self._alone = [], False
        if out:
            free_memory()
            self.places = max(1, min(self.places, (len(rows) + 1) // 2))
            self._calm, self._wait = 0, min(2 * self._wait, LONGEST * RECOVERY)
        for row in rows:
            row.restart()
        if len(rows) == 1:
            rows[0].failures += 1
        middle = (len(rows) + 1) // 2
        self._apart += [part for part in (rows[middle:], rows[:middle]) if part]

    def _recover(self) -> None:
        """What had no room may have it now: other work on the device ends, and rows differ in length."""
        self._calm += 1
        if self.places < self.most and self._calm >= self._wait:
            self._calm, self.places = 0, min(self.most, self.places + max(1, self.places // 4))

    def _settle(self, ready: dict[int, Continuation | NablaError]) -> int:
        """Takes leave of rows that have ended; adds the answers of problems whose rows have all ended, and
        says how many these are."""
        done = 0
        while self._ended:  # one that fails here is not settled a second time
            row = self._ended.pop(0)
            row.count(self.lm, cached=self.lm.body.reuse_prefix)
            row.group.end(self.runner)
            if row.group.done:
                ready |= {r.number: r.answer for r in row.group.rows if r.answer is not None}
                row.group.settle(self.lm.body, self.runner)
                done += 1
        return done

    # -- rows come in --------------------------------------------------------------------------------

    def _admit(self) -> None:
        joining = self._joining = self._next()
        if not joining:
            return
        self._prefill(joining)
        kept = [place for place, row in enumerate(self.rows) if row is not None]
        free = [place for place, row in enumerate(self.rows) if row is None]
        outputs = [row.prefill.output for row in joining]
        keys = [output.keys for output in outputs if output is not None and output.keys is not None]
        hidden = torch.stack([output.hidden[-1] for output in outputs if output is not None])
        self.cached = len(keys) == len(joining)
        room = len(joining) <= len(free) and len(kept) + len(joining) > DENSE * len(self.rows)
        if kept and room and all(self.slots.fits(k) for k in keys):
            places = free[: len(joining)]
            for place, own in zip(places, keys, strict=self.cached):
                self.slots.replace(place, own)
        else:
            self._arrange(kept, keys, len(joining))
            places = list(range(len(kept), len(self.rows)))
        self._begin(places, joining, hidden)
        for row in joining:
            row.begin()
        self._joining = []

    def _begin(self, places: Sequence[int], joining: Sequence[Row], hidden: Tensor) -> None:
        samplings = [row.opening.sampling for row in joining]
        keys = [row.opening.key for row in joining]
        first = [len(row.opening.response) - self.step for row in joining]
        if self.draws is None or self.hidden is None:
            device = self.lm.head.device
            where = torch.tensor(keys, device=device), torch.tensor(first, device=device)
            self.draws, self.hidden = Draws(samplings, *where, self.lm.head.usable), hidden
        else:
            self.draws.replace(places, samplings, keys, first)
            self.hidden[torch.tensor(places, device=self.hidden.device)] = hidden
        for place, row in zip(places, joining, strict=True):
            self.rows[place] = row
            self.notes.replace(place)

    def _next(self) -> list[Row]:
        """The rows that join now."""
        live = [row for row in self.rows if row is not None]
        if not live:
            self._clear()
            self._alone = bool(self._apart)
            if self._apart:
                return self._apart.pop()
        if self._alone or not self._queue or (live and not self.joins):
            return []
        count, longest = 0, max((row.longest for row in live), default=0)
        for row in self._queue:
            longest = max(longest, row.longest)
            rows = len(live) + count + 1
            if rows > 1 and (rows > self.places or rows * longest > self.columns):
                break
            count += 1
        few = count < len(self._queue) and count < JOIN * self.places
        if not count or (live and few):
            return []
        return [self._queue.popleft() for _ in range(count)]

    def _prefill(self, rows: Sequence[Row]) -> None:
        """Runs each context that is not there yet: the N rows of best-of-N share their prompt."""
        first = {id(row.prefill): row for row in rows if row.prefill.output is None}
        todo = list(first.values())
        if not todo:
            return
        meters = [CostMeter() for _ in todo]
        accounts = [
            Account(row.opening.account.problem, meter, row.opening.account.phase)
            for row, meter in zip(todo, meters, strict=True)
        ]
        for row, meter in zip(todo, meters, strict=True):
            row.prefill.begin(meter)
        chunks = self.runner.suffixes(self.lm.body, [row.context for row in todo], accounts)
        outputs = self.runner.forward(self.lm.body, chunks, accounts, keep=True)
        for row, output in zip(todo, outputs, strict=True):
            row.prefill.end(output)

    def _arrange(self, kept: Sequence[int], joined: Sequence[Keys], count: int) -> None:
        """Keeps some places, and makes new ones behind them."""
        if self.cached and (kept or joined):
            self.slots.arrange(kept, joined)
        self.notes.arrange(kept, count)
        if kept and self.draws is not None and self.hidden is not None:
            places = [*kept, *(list(kept[:1]) * count)]  # new ones are written over
            self.draws.select(places)
            self.hidden = self.hidden[torch.tensor(places, device=self.hidden.device)]
        else:
            self.draws = self.hidden = None
        self.rows = [*(self.rows[place] for place in kept), *([None] * count)]

    # -- a step --------------------------------------------------------------------------------------

    def _step(self) -> None:
        """One token for every row, and the states behind it."""
        begin = time.perf_counter()
        live = [row for row in self.rows if row is not None]
        try:
            chosen = self._write()
            for place, row in enumerate(self.rows):
                if row is not None and not row.going(self.lm):
                    self._close(place, row)
            if self.live:
                self._go_on(chosen)
        finally:
            spent = time.perf_counter() - begin
            self.runner.busy += spent
            for row in live:
                row.seconds += spent / len(live)

    def _write(self) -> Int[Tensor, " rows"]:
        """Draws the next token of each row and notes what is known of it."""
        assert self.hidden is not None
        assert self.draws is not None
        head = self.lm.head
        logits = head.logits(self.hidden)
        probs = logits.softmax(-1)
        top = probs.amax(-1)
        normaliser = logits.amax(-1) - top.log()  # the largest probability is 1/Σexp(z - max)
        finite = logits if head.blocked is None else logits.masked_fill(head.blocked, 0.0)
        entropy = (normaliser - (probs * finite).sum(-1)).clamp_min(0)
        chosen = self.draws.draw(logits, self.step)
        picked = logits.gather(-1, chosen.unsqueeze(-1))[:, 0] - normaliser
        self.notes.add(self.hidden, torch.stack([picked, entropy, top], -1))
        for row, token in zip(self.rows, chosen.tolist(), strict=True):
            if row is not None:
                row.tokens.append(token)
                row.finished = token in self.lm.eos_ids
        self.step += 1
        return chosen

    def _close(self, place: int, row: Row) -> None:
        """Takes a row that is at its end out of its place."""
        hidden, stats = self.notes.take(place, len(row.tokens))
        log_probs, entropy, top1 = stats.cpu().mT.contiguous()
        if self.cached:
            row.keys = self.slots.take(place)
        if torch.isfinite(log_probs).all():
            states = States(hidden, entropy, top1)
            row.answer = Continuation(torch.tensor(row.tokens), row.finished, log_probs, states)
        else:
            row.answer = NumericalError(
                "The language model's logits are NaN or infinite",
                got=f"at token {int((~torch.isfinite(log_probs)).nonzero()[0])}",
                fix="The checkpoint is broken, or its dtype overflows: try dtype='float32'.",
            )
        self.rows[place] = None
        self._ended.append(row)

    def _go_on(self, chosen: Int[Tensor, " rows"]) -> None:
        kept = [place for place, row in enumerate(self.rows) if row is not None]
        # Copying the caches pays only now and then.
        few = len(kept) <= DENSE * len(self.rows) and (self._alone or not self.joins or not self._queue)
        if len(kept) < len(self.rows) and (few or not self.cached):
            self._arrange(kept, [], 0)
            chosen = chosen[torch.tensor(kept, device=chosen.device)]
        self.runner.occupancy.steps += 1
        self.runner.occupancy.rows += len(self.rows)
        self.runner.occupancy.idle += len(self.rows) - len(kept)
        self.hidden = self.slots.step(chosen.to(self.lm.body.device)) if self.cached else self._rerun()

    def _rerun(self) -> Float[Tensor, "rows hidden"]:
        """The states behind each row's last token, from the whole text: for models whose cache cannot be
        reused."""
        chunks, accounts = [], []
        for row in self.rows:
            assert row is not None
            sequence = torch.cat([row.context, torch.tensor(row.tokens, dtype=torch.long)])
            chunks.append(Chunk(Prefix(sequence[:-1], None), self.lm.body.embed(sequence[-1:])))
            paying = row.opening.account
            accounts.append(Account(paying.problem, row.meter, paying.phase))
        outputs = self.runner.forward(self.lm.body, chunks, accounts)
        return torch.stack([output.hidden[-1] for output in outputs])


def _free(device: torch.device) -> float:
    """Bytes that are free on a device; infinite where the system does not tell."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return float("inf")
