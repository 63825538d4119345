"""Runs bodies in batches and counts what they cost; keeps each problem's prefixes.

The engine gives every request an :class:`Account`; whatever runs for it is added there before the next
statement, so that nothing is uncounted (SPEC section 13).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from nabla.core.costs import Account, Usage
from nabla.models.body import EMPTY, Body, BodyOutput, Chunk, Prefix
from nabla.models.deferred import DeferredStore
from nabla.models.prefixes import PrefixStore


@dataclass
class Occupancy:
    """How full the batches of decoding were.

    Args:
        steps: decoding steps.
        rows: of all steps, those that waited to be dropped or replaced included.
        idle: of these, the ones that waited.
    """

    steps: int = 0
    rows: int = 0
    idle: int = 0

    def __str__(self) -> str:
        rows, idle = self.rows / max(self.steps, 1), self.idle / max(self.rows, 1)
        return f"{rows:.1f} rows a decoding step, {100 * idle:.1f} % of them idle"


class Runner:
    """Runs chunks for many accounts.

    Args:
        batch_size: rows per padded batch.
        store: prefixes of the live problems.
        split: tokens of padding that are worth another batch.
    """

    def __init__(
        self, batch_size: int = 64, store: PrefixStore | None = None, split: float = 128.0
    ) -> None:
        self.batch_size, self.split = batch_size, split
        self.store = PrefixStore() if store is None else store
        #: Seconds spent in timed blocks so far.
        self.busy = 0.0
        self.occupancy = Occupancy()

    @contextmanager
    def frozen(self, keep: bool = True) -> Iterator[None]:
        """Lookups find what is stored now; what is put meanwhile is stored at the end, or never if the block
        fails, or without ``keep``."""
        inner, aside = self.store, DeferredStore(self.store)
        self.store = aside
        try:
            yield
        finally:
            self.store = inner
        if keep:
            aside.commit()

    @contextmanager
    def timed(self, accounts: Sequence[Account], shares: Sequence[float]) -> Iterator[None]:
        """Adds the wall-clock and peak memory of a block to the accounts, time by share."""
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        begin = time.perf_counter()
        try:
            yield
        finally:
            peak = 0
            if cuda:
                torch.cuda.synchronize()
                peak = torch.cuda.max_memory_allocated() - before
            seconds = time.perf_counter() - begin
            self.busy += seconds
            total = sum(shares) or 1.0
            for account, share in zip(accounts, shares, strict=True):
                usage = Usage(seconds=seconds * share / total, peak_bytes=peak)
                account.meter.add(account.phase, usage)

    def forward(
        self,
        body: Body,
        chunks: Sequence[Chunk],
        accounts: Sequence[Account],
        *,
        keep: bool = False,
    ) -> list[BodyOutput]:
        """Outputs of all chunks, in their order; one forward pass is counted for each."""
        for chunk, account in zip(chunks, accounts, strict=True):
            tokens, context = body.computed(chunk)
            account.add(Usage(forward_passes=1, tokens=tokens, flops=body.flops(tokens, context)))
        outputs: dict[int, BodyOutput] = {}
        for rows in self.batches([len(chunk) for chunk in chunks]):
            part = [chunks[i] for i in rows]
            with self.timed([accounts[i] for i in rows], [float(len(c)) for c in part]):
                outputs.update(zip(rows, body.run(part, keep=keep), strict=True))
        return [outputs[i] for i in range(len(chunks))]

    def batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Rows that run together: at most ``batch_size``, longest first, cut such that padding and passes
        cost least, where a pass costs as much as ``split`` tokens."""
        order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        if math.isinf(self.split):
            return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        # Of the first so many rows: the least cost, and where their last batch begins. Equally long rows are
        # never told apart but by a full batch: it is enough to look at where a length begins.
        cost, begin = [0.0], [0]
        starts: list[int] = []
        for end in range(1, len(order) + 1):
            if end == 1 or lengths[order[end - 1]] != lengths[order[end - 2]]:
                starts.append(end - 1)
            first = max(end - self.batch_size, 0)
            least, at = min(
                (cost[i] + lengths[order[i]] * (end - i) + self.split, i)
                for i in {first, *starts}
                if i >= first
            )
            cost.append(least)
            begin.append(at)
        groups: list[list[int]] = []
        end = len(order)
        while end:
            groups.append(order[begin[end] : end])
            end = begin[end]
        return groups[::-1]

    def count_backward(self, body: Body, chunk: Chunk, account: Account) -> None:
        """Counts one input-only backward pass of a chunk."""
        tokens, context = body.computed(chunk)
        account.add(Usage(backward_passes=1, tokens=tokens, flops=body.backward_flops(tokens, context)))

    def known(self, body: Body, tokens: Int[Tensor, " _"], account: Account) -> Prefix:
        """What is stored of ``tokens``. What gave way to others is counted as ``prefix_tokens_lost``."""
        prefix = self.store.get(account.problem, body, tokens)
        if prefix.lost:
            account.meter.count("prefix_tokens_lost", prefix.lost)
        return prefix

    @torch.no_grad()
    def prefixes(
        self, body: Body, tokens: Sequence[Int[Tensor, " _"]], accounts: Sequence[Account]
    ) -> list[Prefix]:
        """All of ``tokens`` as prefixes: what is stored is reused, the rest is run and stored."""
        if not body.reuse_prefix:
            return [Prefix(row, None) for row in tokens]
        found = [self.known(body, row, account) for row, account in zip(tokens, accounts, strict=True)]
        todo = [i for i, prefix in enumerate(found) if len(prefix) < len(tokens[i])]
        if todo:
            chunks = [Chunk(found[i], body.embed(tokens[i][len(found[i]) :])) for i in todo]
            outputs = self.forward(body, chunks, [accounts[i] for i in todo], keep=True)
            for i, output in zip(todo, outputs, strict=True):
                kept = self.store.put(accounts[i].problem, body, tokens[i], output.keys)
                found[i] = Prefix(tokens[i], output.keys if kept is None else kept)
        return found

    def suffixes(
        self, body: Body, tokens: Sequence[Int[Tensor, " _"]], accounts: Sequence[Account]
    ) -> list[Chunk]:
        """Chunks of all that is not stored of ``tokens``, at least the last token of each."""
        chunks = []
        for row, account in zip(tokens, accounts, strict=True):
            prefix = self.known(body, row[:-1], account) if body.reuse_prefix else EMPTY
            chunks.append(Chunk(prefix, body.embed(row[len(prefix) :])))
        return chunks
