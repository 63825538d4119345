"""The models' work of whole solves, all batches full: what solving problems together could gain at most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from nabla.models.body import EMPTY, Body, Chunk
from nabla.models.layers import GrowingLayer
from nabla.study.benchmark.timing import now

#: Decoding steps that are timed, for all that were taken.
STEPS = 32


@dataclass(frozen=True, eq=False)
class Pass:
    """A row that went through a body: what it was, and whether keys were kept and a gradient taken."""

    body: Body
    chunk: Chunk
    keep: bool
    differentiated: bool


@dataclass(eq=False)
class Work:
    """All that the bodies did.

    Args:
        passes: rows run, in their order.
        contexts: tokens before the new one, of every row of every decoding step.
    """

    passes: list[Pass] = field(default_factory=list)
    contexts: list[int] = field(default_factory=list)


@contextmanager
def recorded(bodies: Sequence[Body]) -> Iterator[Work]:
    """Notes what the bodies do meanwhile."""
    work = Work()
    for body in bodies:
        _watch(body, work)
    try:
        yield work
    finally:
        for body in bodies:
            del body.run, body.step  # the instance's; the class's come back


def _watch(body: Body, work: Work) -> None:
    run, step = body.run, body.step

    def watched_run(chunks: Sequence[Chunk], *, keep: bool = False) -> Any:
        for chunk in chunks:
            plain = Chunk(chunk.prefix, chunk.embeddings.detach())
            work.passes.append(Pass(body, plain, keep, torch.is_grad_enabled()))
        return run(chunks, keep=keep)

    def watched_step(tokens: Tensor, mask: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        work.contexts += positions.tolist()
        return step(tokens, mask, positions, cache)

    body.run, body.step = watched_run, watched_step  # type: ignore[method-assign]


def replay(work: Work, lm: Body, rows: int, decoded: int) -> float:
    """Seconds that the work takes in batches of ``rows``: rows of equal kind and similar length together, no
    row idle while others are decoded; no head, no draw, no accounts.

    Args:
        work: recorded.
        lm: the body that decodes.
        rows: of a batch.
        decoded: tokens decoded (a step's rows may have been done already, and waited for the others).
    """
    groups: dict[tuple[Body, bool, bool], list[Pass]] = {}
    for item in work.passes:
        groups.setdefault((item.body, item.keep, item.differentiated), []).append(item)
    spent = 0.0
    if decoded:
        spent = _decode(lm, rows, round(sum(work.contexts) / len(work.contexts))) * decoded / rows
    for group in groups.values():
        group.sort(key=lambda item: (len(item.chunk), len(item.chunk.prefix)))
        for i in range(0, len(group), rows):
            spent += _run(group[i : i + rows])
    return spent


def _run(batch: Sequence[Pass]) -> float:
    body, keep = batch[0].body, batch[0].keep
    begin = now()
    if not batch[0].differentiated:
        with torch.no_grad():
            body.run([item.chunk for item in batch], keep=keep)
        return now() - begin
    leaves = [item.chunk.embeddings.clone().requires_grad_() for item in batch]
    chunks = [Chunk(item.chunk.prefix, leaf) for item, leaf in zip(batch, leaves, strict=True)]
    with torch.enable_grad():
        found = [output.hidden for output in body.run(chunks, keep=keep)]
    torch.autograd.grad(found, leaves, [torch.ones_like(x) for x in found])
    return now() - begin


@torch.no_grad()
def _decode(body: Body, rows: int, context: int) -> float:
    """Seconds per step of ``rows`` rows, around a context."""
    length = max(context - STEPS // 2, 1)
    (first,) = body.run([Chunk(EMPTY, body.embed(torch.zeros(length, dtype=torch.long)))], keep=True)
    assert first.keys is not None
    layers = [
        GrowingLayer(keys.expand(rows, *keys.shape), values.expand(rows, *values.shape))
        for keys, values in first.keys.layers
    ]
    cache = Cache(layers=layers)
    tokens = torch.zeros(rows, dtype=torch.long, device=body.device)
    mask = torch.ones(rows, length + STEPS, dtype=torch.long, device=body.device)
    begin = now()
    for _ in range(STEPS):
        length += 1
        body.step(tokens, mask[:, :length], torch.full_like(tokens, length - 1), cache)
    return (now() - begin) / STEPS
