"""Batched decoding of a transformers model in this process."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import Cache, DynamicLayer, LogitsProcessor

from nabla.costs import Usage
from nabla.errors import ConfigError, NablaError, NumericalError
from nabla.models.body import BodyOutput, Chunk, KeyValues, Prefix, left_padded
from nabla.models.causal_lm import CausalLM
from nabla.models.runner import Runner
from nabla.random import gumbel
from nabla.rollouts.base import Continuation, Opening, Rollout, rollouts
from nabla.types import Sampling


@rollouts.register("huggingface")
class HuggingFaceRollout(Rollout):
    """Decodes rows of different prompts together, with key/value cache and per-row Gumbel noise.

    Args:
        batch_size: rows decoded together.
    """

    def __init__(self, batch_size: int = 64) -> None:
        if batch_size < 1:
            raise ConfigError("batch_size must be at least 1", got=batch_size)
        self.batch_size = batch_size

    @torch.no_grad()
    def generate(
        self, lm: CausalLM, openings: Sequence[Opening], runner: Runner
    ) -> list[Continuation | NablaError]:
        results: list[Continuation | NablaError] = []
        for i in range(0, len(openings), self.batch_size):
            batch = _Batch(lm, openings[i : i + self.batch_size], runner)
            results += batch.decode()
        return results


def draw(
    logits: Float[Tensor, "rows v"],
    samplings: Sequence[Sampling],
    keys: Int[Tensor, " rows"],
    positions: Int[Tensor, " rows"],
) -> Int[Tensor, " rows"]:
    """One token per row, each row with its own settings, key and position in the response."""
    chosen = torch.empty(len(logits), dtype=torch.long, device=logits.device)
    ids = torch.arange(logits.shape[-1], device=logits.device)
    for sampling in dict.fromkeys(samplings):
        rows = torch.tensor([s == sampling for s in samplings], device=logits.device)
        noise = None
        if sampling.temperature > 0:
            noise = gumbel(keys[rows], positions[rows], ids).to(logits.dtype)
        chosen[rows] = sampling.draw(logits[rows], noise)
    return chosen


class GumbelProcessor(LogitsProcessor):  # type: ignore[misc]
    """Makes any batched ``model.generate(do_sample=False)`` a reproducible sample, row by row.

    Args:
        keys: of the Gumbel field, per row.
        prompt_length: padded length of the prompts.
        sampling: how to draw.
    """

    def __init__(self, keys: Int[Tensor, " rows"], prompt_length: int, sampling: Sampling) -> None:
        self.keys, self.prompt_length, self.sampling = keys, prompt_length, sampling

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self.sampling.temperature == 0:
            return scores
        position = torch.full_like(self.keys, input_ids.shape[1] - self.prompt_length)
        ids = torch.arange(scores.shape[-1], device=scores.device)
        noise = gumbel(self.keys, position, ids).to(scores.dtype)
        return self.sampling.filter(scores) + noise


class _GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values in a buffer that doubles, instead of a concatenation at every step."""

    def __init__(self, keys: Tensor, values: Tensor, room: int) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        length = keys.shape[-2]
        self._keys = keys.new_empty((*keys.shape[:2], length + room, keys.shape[-1]))
        self._values = values.new_empty((*values.shape[:2], length + room, values.shape[-1]))
        self._keys[:, :, :length] = keys
        self._values[:, :, :length] = values
        self._expose(length)

    def _expose(self, length: int) -> None:
        self.keys = self._keys[:, :, :length]
        self.values = self._values[:, :, :length]

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        old = self.keys.shape[-2]
        new = old + key_states.shape[-2]
        if new > self._keys.shape[-2]:
            spare = self._keys.new_empty((*self._keys.shape[:2], new, self._keys.shape[-1]))
            self._keys = torch.cat([self._keys, spare], -2)
            spare = self._values.new_empty((*self._values.shape[:2], new, self._values.shape[-1]))
            self._values = torch.cat([self._values, spare], -2)
        self._keys[:, :, old:new] = key_states
        self._values[:, :, old:new] = value_states
        self._expose(new)
        return self.keys, self.values

    def select(self, rows: Tensor) -> None:
        """Keeps some rows of the batch."""
        length = self.keys.shape[-2]
        self._keys, self._values = self._keys[rows], self._values[rows]
        self._expose(length)


class _Batch:
    """One batch while it is decoded."""

    def __init__(self, lm: CausalLM, openings: Sequence[Opening], runner: Runner) -> None:
        self.lm, self.openings, self.runner = lm, openings, runner
        self.accounts = [o.account for o in openings]
        self.context = [torch.cat([o.prompt, o.response]) for o in openings]
        self.limits = [lm.room(len(o.prompt), o.sampling.max_new_tokens) - len(o.response) for o in openings]
        self.keys = torch.tensor([o.key for o in openings], device=lm.head.device)
        self.first = torch.tensor([len(o.response) for o in openings], device=lm.head.device)
        self.tokens: list[list[int]] = [[] for _ in openings]
        self.finished = [False] * len(openings)
        self.records: list[tuple[list[int], Tensor, Tensor]] = []

    def decode(self) -> list[Continuation | NablaError]:
        """Prefill, then one token per step for every live row."""
        outputs = self._prefill()
        hidden = torch.stack([output.hidden[-1] for output in outputs])
        live = list(range(len(self.openings)))
        keys = [output.keys for output in outputs if output.keys is not None]
        if len(keys) < len(outputs):
            self._decode_without_cache(live, hidden)
        else:
            self._decode_with_cache(live, hidden, keys)
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
        """Draws the next token of each live row and notes what is known of it."""
        head = self.lm.head
        logits = head.logits(hidden)
        normaliser = logits.logsumexp(-1)
        finite = logits if head.blocked is None else logits.masked_fill(head.blocked, 0.0)
        probs = (logits - normaliser.unsqueeze(-1)).exp()
        entropy = normaliser - (probs * finite).sum(-1)
        step = len(self.records)
        chosen = draw(
            logits,
            [self.openings[i].sampling for i in live],
            self.keys[live],
            self.first[live] + step,
        )
        picked = logits.gather(-1, chosen.unsqueeze(-1))[:, 0] - normaliser
        stats = torch.stack([picked, entropy.clamp_min(0), probs.amax(-1)])
        self.records.append((list(live), hidden, stats))
        for i, token in zip(live, chosen.tolist(), strict=True):
            self.tokens[i].append(token)
            self.finished[i] = token in self.lm.eos_ids
            account = self.accounts[i]
            account.meter.add(account.phase, Usage(flops=head.flops(1)))
        return chosen

    def _going(self, row: int) -> bool:
        if self.finished[row] or len(self.tokens[row]) >= self.limits[row]:
            return False
        until = self.openings[row].until
        return until is None or not until.closed(self.tokens[row], self.lm)

    def _count_step(self, rows: list[int]) -> None:
        for i in rows:
            context = len(self.context[i]) + len(self.tokens[i]) - 1
            usage = Usage(decode_steps=1, tokens=1, flops=self.lm.body.flops(1, context))
            self.accounts[i].meter.add(self.accounts[i].phase, usage)

    def _decode_with_cache(self, live: list[int], hidden: Tensor, keys: list[KeyValues]) -> None:
        body = self.lm.body
        deepest = max(k.length for k in keys)
        pad = [deepest - k.length for k in keys]
        layers = [
            _GrowingLayer(*stacked, room=min(max(self.limits), 256)) for stacked in left_padded(keys, deepest)
        ]
        cache = Cache(layers=layers)
        offset = torch.tensor(pad, device=body.device)
        column = torch.arange(deepest + max(self.limits), device=body.device)
        mask = (column >= offset.unsqueeze(1)).long()
        length = deepest
        with self.runner.timed(self.accounts, [1.0] * len(self.accounts)):
            while True:
                chosen = self._write(live, hidden).to(body.device)
                going = [row for row, i in enumerate(live) if self._going(i)]
                for row in set(range(len(live))) - set(going):
                    self._store(live[row], layers, row, pad[live[row]], length)
                if not going:
                    return
                if len(going) < len(live):  # finished rows leave the batch
                    kept = torch.tensor(going, device=body.device)
                    for layer in layers:
                        layer.select(kept.to(layer.keys.device))
                    chosen, offset, mask = chosen[kept], offset[kept], mask[kept]
                    live = [live[row] for row in going]
                self._count_step(live)
                length += 1
                hidden = body.step(chosen, mask[:, :length], length - 1 - offset, cache)

    def _store(self, row: int, layers: list[_GrowingLayer], at: int, first: int, last: int) -> None:
        """Hands a finished row's keys and values to the prefix store: proposals start from them.

        Copies, not views: a view would keep the whole batch's buffers alive.
        """
        keys = KeyValues(
            tuple((x.keys[at, :, first:last].clone(), x.values[at, :, first:last].clone()) for x in layers)
        )
        tokens = torch.cat([self.context[row], torch.tensor(self.tokens[row], dtype=torch.long)])
        self.runner.store.put(self.accounts[row].problem, self.lm.body, tokens, keys)

    def _decode_without_cache(self, live: list[int], hidden: Tensor) -> None:
        """Every step runs the whole sequence: for models whose cache cannot be reused."""
        body = self.lm.body
        while True:
            self._write(live, hidden)
            live = [i for i in live if self._going(i)]
            if not live:
                return
            chunks = []
            for i in live:
                new = torch.tensor(self.tokens[i], dtype=torch.long)
                sequence = torch.cat([self.context[i], new])
                chunks.append(Chunk(Prefix(sequence[:-1], None), body.embed(sequence[-1:])))
            accounts = [self.accounts[i] for i in live]
            hidden = torch.stack([o.hidden[-1] for o in self.runner.forward(body, chunks, accounts)])

    def _collect(self) -> list[Continuation | NablaError]:
        results: list[Continuation | NablaError] = []
        own: list[list[tuple[Tensor, Tensor]]] = [[] for _ in self.openings]
        for rows, states, stats in self.records:
            for row, i in enumerate(rows):
                own[i].append((states[row], stats[:, row]))
        for i, tokens in enumerate(self.tokens):
            hidden = torch.stack([states for states, _ in own[i]])
            log_probs, entropy, top1 = torch.stack([stats for _, stats in own[i]], -1).cpu()
            if not torch.isfinite(log_probs).all():
                results.append(
                    NumericalError(
                        "The language model's logits are NaN or infinite",
                        got=f"at token {int((~torch.isfinite(log_probs)).nonzero()[0])}",
                        fix="The checkpoint is broken, or its dtype overflows: try dtype='float32'.",
                    )
                )
                continue
            results.append(
                Continuation(torch.tensor(tokens), self.finished[i], hidden, log_probs, entropy, top1)
            )
        return results
