"""Batched decoding of a transformers model in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.costs import Usage
from nabla.core.errors import NablaError, NumericalError, require_positive
from nabla.core.random import gumbel
from nabla.core.sampling import Sampling
from nabla.core.trajectory import States
from nabla.models.body import BodyOutput, Chunk, KeyValues, Prefix, left_padded
from nabla.models.causal_lm import CausalLM, require_lm
from nabla.models.runner import Runner
from nabla.rollouts.base import Continuation, Opening, Resources, Rollout, rollouts

#: Share of live rows at which the finished ones are dropped from a batch.
DENSE = 0.75
#: Numbers of Gumbel noise formed at once, for steps to come.
NOISE_ELEMENTS = 1 << 16


@rollouts.register("huggingface")
class HuggingFaceRollout(Rollout):
    """Decodes rows of different prompts together, with key/value cache and per-row Gumbel noise.

    Args:
        batch_size: rows decoded together.
    """

    def __init__(self, batch_size: int = 64) -> None:
        require_positive(batch_size=batch_size)
        self.batch_size = batch_size

    async def generate(
        self, openings: Sequence[Opening], resources: Resources
    ) -> list[Continuation | NablaError]:
        lm = require_lm(resources.lm, "The rollout 'huggingface' decodes in this process")
        results: list[Continuation | NablaError] = []
        with torch.no_grad():
            for i in range(0, len(openings), self.batch_size):
                batch = _Batch(lm, openings[i : i + self.batch_size], resources.runner)
                results += batch.decode()
        return results


class Draws:
    """What the rows of a batch are drawn with: each its own settings, key and position in its response.

    Args:
        samplings: settings per row.
        keys: of the Gumbel field, per row.
        first: position in its response that each row starts at.
        vocabulary: number of ids drawn from.
    """

    def __init__(
        self,
        samplings: Sequence[Sampling],
        keys: Int[Tensor, " rows"],
        first: Int[Tensor, " rows"],
        vocabulary: int,
    ) -> None:
        self.samplings, self.keys, self.first = list(samplings), keys, first
        self._ids = torch.arange(vocabulary, device=keys.device)
        self._groups = self._grouped()
        self._noise: Tensor | None = None
        self._noise_from = 0

    def _grouped(self) -> dict[Sampling, Int[Tensor, " _"]]:
        """The rows of each setting."""
        rows: dict[Sampling, list[int]] = {}
        for row, sampling in enumerate(self.samplings):
            rows.setdefault(sampling, []).append(row)
        return {s: torch.tensor(own, device=self.keys.device) for s, own in rows.items()}

    def select(self, rows: Sequence[int]) -> None:
        """Keeps some rows of the batch, in this order."""
        kept = torch.tensor(rows, device=self.keys.device)
        self.keys, self.first = self.keys[kept], self.first[kept]
        self.samplings = [self.samplings[row] for row in rows]
        self._groups = self._grouped()
        if self._noise is not None:
            self._noise = self._noise[kept]

    def draw(self, logits: Float[Tensor, "rows v"], step: int) -> Int[Tensor, " rows"]:
        """One token per row, ``step`` tokens after its first. Steps are drawn in increasing order."""
        noise = None
        if any(sampling.temperature > 0 for sampling in self._groups):
            noise = self._field(step).to(logits.dtype)
        if len(self._groups) == 1:
            return self.samplings[0].draw(logits, noise)
        chosen = torch.empty(len(logits), dtype=torch.long, device=logits.device)
        for sampling, rows in self._groups.items():
            chosen[rows] = sampling.draw(logits[rows], None if noise is None else noise[rows])
        return chosen

    def _field(self, step: int) -> Float[Tensor, "rows v"]:
        """Gumbel noise of a step. It depends on key, position and id alone, so that several steps are formed
        at once: with few ids the calls take longer than the numbers."""
        if self._noise is None or step >= self._noise_from + self._noise.shape[1]:
            count = max(1, NOISE_ELEMENTS // (len(self.keys) * len(self._ids)))
            steps = torch.arange(step, step + count, device=self.keys.device)
            keys = self.keys.unsqueeze(1).expand(-1, count)
            self._noise = gumbel(keys, self.first.unsqueeze(1) + steps, self._ids)
            self._noise_from = step
        return self._noise[:, step - self._noise_from]


class _Batch:
    """One batch while it is decoded."""

    def __init__(self, lm: CausalLM, openings: Sequence[Opening], runner: Runner) -> None:
        self.lm, self.openings, self.runner = lm, openings, runner
        self.accounts = [o.account for o in openings]
        self.context = [torch.cat([o.prompt, o.response]) for o in openings]
        self.limits = [
            lm.vocabulary.room(len(o.prompt), o.sampling.max_new_tokens) - len(o.response) for o in openings
        ]
        device = lm.head.device
        self.draws = Draws(
            [o.sampling for o in openings],
            torch.tensor([o.key for o in openings], device=device),
            torch.tensor([len(o.response) for o in openings], device=device),
            lm.head.usable,
        )
        #: Whose row each row of the batch is, and tokens drawn so far.
        self.owners = torch.arange(len(openings), device=device)
        self.step = 0
        self.tokens: list[list[int]] = [[] for _ in openings]
        self.finished = [False] * len(openings)
        #: What is known of each row's tokens, written step by step ``[rows, steps, ...]``.
        self.hidden: Tensor | None = None
        self.stats: Tensor | None = None
        #: Decoding steps per row that are not yet on its account.
        self.steps = [0] * len(openings)

    def decode(self) -> list[Continuation | NablaError]:
        """Prefill, then one token per step for every live row."""
        outputs = self._prefill()
        hidden = torch.stack([output.hidden[-1] for output in outputs])
        live = list(range(len(self.openings)))
        keys = [output.keys for output in outputs if output.keys is not None]
        try:
            if len(keys) < len(outputs):
                self._decode_without_cache(live, hidden)
            else:
                self._decode_with_cache(live, hidden, keys)
        finally:
            self._count_steps()
        return self._collect()

    def _prefill(self) -> list[BodyOutput]:
        """Runs each distinct context once: the N rows of best-of-N share their prompt."""
        distinct: dict[tuple[str, tuple[int, ...]], int] = {}
        owner = [
            distinct.setdefault((account.problem, tuple(context.tolist())), len(distinct))
            for account, context in zip(self.accounts, self.context, strict=True)
        ]
        first = [owner.index(number) for number in range(len(distinct))]
        accounts = [self.accounts[i] for i in first]
        chunks = self.runner.suffixes(self.lm.body, [self.context[i] for i in first], accounts)
        outputs = self.runner.forward(self.lm.body, chunks, accounts, keep=True)
        return [outputs[number] for number in owner]

    def _write(self, live: list[int], hidden: Tensor) -> Tensor:
        """Draws the next token of each row of the batch and notes what is known of it; ``live`` names
        them, -1 for rows that are done and wait to be dropped."""
        head = self.lm.head
        logits = head.logits(hidden)
        probs = logits.softmax(-1)
        top = probs.amax(-1)
        normaliser = logits.amax(-1) - top.log()  # the largest probability is 1/Σexp(z - max)
        finite = logits if head.blocked is None else logits.masked_fill(head.blocked, 0.0)
        entropy = (normaliser - (probs * finite).sum(-1)).clamp_min(0)
        chosen = self.draws.draw(logits, self.step)
        picked = logits.gather(-1, chosen.unsqueeze(-1))[:, 0] - normaliser
        self._note(hidden, torch.stack([picked, entropy, top], -1))
        for i, token in zip(live, chosen.tolist(), strict=True):
            if i >= 0:
                self.tokens[i].append(token)
                self.finished[i] = token in self.lm.eos_ids
        self.step += 1
        return chosen

    def _note(self, hidden: Tensor, stats: Tensor) -> None:
        """Keeps states and statistics of the tokens of a step, in buffers that double. What a row that is
        done writes lies behind its end."""
        if self.hidden is None or self.stats is None:
            count, room = len(self.openings), min(max(self.limits), 64)
            self.hidden = hidden.new_zeros(count, room, hidden.shape[-1])
            self.stats = stats.new_zeros(count, room, stats.shape[-1])
        elif self.step >= self.hidden.shape[1]:
            self.hidden = torch.cat([self.hidden, torch.zeros_like(self.hidden)], 1)
            self.stats = torch.cat([self.stats, torch.zeros_like(self.stats)], 1)
        if len(hidden) == len(self.openings):
            self.hidden[:, self.step], self.stats[:, self.step] = hidden, stats
        else:
            self.hidden[self.owners.to(hidden.device), self.step] = hidden
            self.stats[self.owners, self.step] = stats

    def _keep(self, rows: Sequence[int]) -> None:
        """Drops the other rows of the batch."""
        self.draws.select(rows)
        self.owners = self.owners[torch.tensor(rows, device=self.owners.device)]

    def _going(self, row: int) -> bool:
        if self.finished[row] or len(self.tokens[row]) >= self.limits[row]:
            return False
        until = self.openings[row].until
        return until is None or not until.closed(self.tokens[row], self.lm.vocabulary)

    def _count_steps(self) -> None:
        """What each row's steps cost, the head of every token included. Counted at the end, or when the
        batch fails, since a thousand small additions would take longer than a small model's step."""
        body, head = self.lm.body, self.lm.head
        for i, (account, steps) in enumerate(zip(self.accounts, self.steps, strict=True)):
            flops = sum(body.flops(1, len(self.context[i]) + done) for done in range(steps))
            flops += head.flops(len(self.tokens[i]))
            account.meter.add(account.phase, Usage(decode_steps=steps, tokens=steps, flops=flops))

    def _decode_with_cache(self, live: list[int], hidden: Tensor, keys: list[KeyValues]) -> None:
        from transformers import Cache

        from nabla.models.layers import GrowingLayer

        body = self.lm.body
        deepest = max(k.length for k in keys)
        pad = [deepest - k.length for k in keys]
        layers = [GrowingLayer(*stacked) for stacked in left_padded(keys, deepest)]
        cache = Cache(layers=layers)
        offset = torch.tensor(pad, device=body.device)
        column = torch.arange(deepest + max(self.limits), device=body.device)
        mask = (column >= offset.unsqueeze(1)).long()
        length = deepest
        with self.runner.timed(self.accounts, [1.0] * len(self.accounts)):
            while True:
                chosen = self._write(live, hidden).to(body.device)
                for row, i in enumerate(live):
                    if i >= 0 and not self._going(i):
                        self._store(i, layers, row, pad[i], length)
                        live[row] = -1
                going = [row for row, i in enumerate(live) if i >= 0]
                if not going:
                    return
                if len(going) <= DENSE * len(live):  # copying the caches pays only now and then
                    kept = torch.tensor(going, device=body.device)
                    for layer in layers:
                        layer.select(kept.to(layer.keys.device))
                    chosen, offset, mask = chosen[kept], offset[kept], mask[kept]
                    live = [live[row] for row in going]
                    self._keep(going)
                for i in live:
                    if i >= 0:
                        self.steps[i] += 1
                length += 1
                hidden = body.step(chosen, mask[:, :length], length - 1 - offset, cache)

    def _store(self, row: int, layers: list[Any], at: int, first: int, last: int) -> None:
        """Hands a finished row's keys and values to the prefix store, which copies what it has not got yet:
        proposals start from them."""
        keys = KeyValues(tuple((x.keys[at, :, first:last], x.values[at, :, first:last]) for x in layers))
        tokens = torch.cat([self.context[row], torch.tensor(self.tokens[row], dtype=torch.long)])
        self.runner.store.put(self.accounts[row].problem, self.lm.body, tokens, keys)

    def _decode_without_cache(self, live: list[int], hidden: Tensor) -> None:
        """Every step runs the whole sequence: for models whose cache cannot be reused."""
        body = self.lm.body
        while True:
            self._write(live, hidden)
            going = [row for row, i in enumerate(live) if self._going(i)]
            if not going:
                return
            if len(going) < len(live):
                live = [live[row] for row in going]
                self._keep(going)
            chunks = []
            for i in live:
                new = torch.tensor(self.tokens[i], dtype=torch.long)
                sequence = torch.cat([self.context[i], new])
                chunks.append(Chunk(Prefix(sequence[:-1], None), body.embed(sequence[-1:])))
            accounts = [self.accounts[i] for i in live]
            hidden = torch.stack([o.hidden[-1] for o in self.runner.forward(body, chunks, accounts)])

    def _collect(self) -> list[Continuation | NablaError]:
        results: list[Continuation | NablaError] = []
        assert self.hidden is not None
        assert self.stats is not None
        every = self.stats.cpu()
        for i, tokens in enumerate(self.tokens):
            log_probs, entropy, top1 = every[i, : len(tokens)].mT.contiguous()
            if not torch.isfinite(log_probs).all():
                results.append(
                    NumericalError(
                        "The language model's logits are NaN or infinite",
                        got=f"at token {int((~torch.isfinite(log_probs)).nonzero()[0])}",
                        fix="The checkpoint is broken, or its dtype overflows: try dtype='float32'.",
                    )
                )
                continue
            hidden = self.hidden[i, : len(tokens)].clone()  # a view would keep the whole batch's alive
            results.append(
                Continuation(
                    torch.tensor(tokens), self.finished[i], log_probs, States(hidden, entropy, top1)
                )
            )
        return results
