"""The language model's own logits of a response's rows: where refinement starts.

They follow from the hidden states that the rollout kept, so no pass through the model is needed, only
products with the head. Those read the whole matrix however few rows are asked for, hence rows are
computed for several problems and several positions at once, and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nabla.core.costs import Account, Usage
from nabla.core.prompt import Prompt
from nabla.core.trajectory import Trajectory
from nabla.engine.gradient.values import TrajectoryGradient
from nabla.models import head as heads
from nabla.models.head import Head
from nabla.models.precision import work_dtype


@dataclass(frozen=True, eq=False)
class InitialRows:
    """Initial logits of some rows of a trajectory over a support of candidates.

    Args:
        positions: rows of the response, in order.
        logits: ``[R, K]``, float32 (float64 for float64 models), ``-inf`` at forbidden ids.
        candidates: ids per row ``[R, K]``; None means all usable ids in order (K = V).
        chosen: columns of the trajectory's own tokens ``[R]``.
        hidden: states that the logits come from ``[R, H]``.
        project: hidden states ``[R, H]`` → logits ``[R, K]``, differentiable.
        dropped_mass: probability of the tokens outside the support, per row ``[R]``; it bounds the
            tail's share of the softmax gradient (SPEC section 7.4).
        normalisers: log-partition over all usable ids ``[R]``; None: not known.
    """

    positions: slice
    logits: Float[Tensor, "rows k"]
    candidates: Int[Tensor, "rows k"] | None
    chosen: Int[Tensor, " rows"]
    hidden: Float[Tensor, "rows hidden"]
    project: Callable[[Tensor], Tensor]
    dropped_mass: Float[Tensor, " rows"]
    normalisers: Float[Tensor, " rows"] | None = None

    @cached_property
    def forbidden(self) -> Bool[Tensor, "rows k"] | None:
        """Candidates that may not be written; None if there are none."""
        mask = self.logits == float("-inf")
        return mask if bool(mask.any()) else None

    def ids(self, row: int) -> Int[Tensor, " k"]:
        """Candidate ids of one row."""
        if self.candidates is None:
            return torch.arange(self.logits.shape[-1], device=self.logits.device)
        return self.candidates[row]


@dataclass(frozen=True, eq=False)
class Text:
    """What kept rows belong to. Both models are frozen: the same prompt and tokens, the same rows.

    Args:
        prompt: what the response answers.
        tokens: of the response ``[L]``.
    """

    prompt: Prompt
    tokens: Int[Tensor, " length"]

    def of(self, trajectory: Trajectory) -> bool:
        """Whether a trajectory is this text."""
        return self.prompt == trajectory.prompt and torch.equal(self.tokens, trajectory.tokens)


@dataclass(eq=False)
class Block:
    """Whole-vocabulary rows of one text, for the position at hand and some that will follow.

    Args:
        text: whose rows they are.
        places: position → row of the block.
        logits: ``[B, V]``.
        normalisers: ``[B]``.
        feedback: ``∂term/∂y`` rows ``[B, V]`` by (gradient, term), filled by refinement.
    """

    text: Text
    places: dict[int, int]
    logits: Tensor
    normalisers: Tensor
    feedback: dict[tuple[TrajectoryGradient, str], Tensor] = field(default_factory=dict)


@dataclass(eq=False)
class Table:
    """Top-K rows of one text."""

    text: Text
    rows: slice
    support: int
    candidates: Tensor
    logits: Tensor
    normalisers: Tensor
    dropped: Tensor


@dataclass(eq=False)
class RowCache:
    """What a problem remembers of its current text's rows."""

    block: Block | None = None
    table: Table | None = None

    def checkpoint(self) -> Callable[[], None]:
        """Takes note of what is remembered; the function that is returned forgets all that came later."""
        block, table = self.block, self.table
        feedback = None if block is None else dict(block.feedback)

        def restore() -> None:
            self.block, self.table = block, table
            if block is not None and feedback is not None:
                block.feedback.clear()
                block.feedback.update(feedback)

        return restore

    def block_of(self, trajectory: Trajectory, position: int) -> Block | None:
        """The block, if it has this row."""
        block = self.block
        fits = block is not None and position in block.places and block.text.of(trajectory)
        return block if fits else None

    def table_of(self, trajectory: Trajectory, rows: slice, support: int) -> Table | None:
        """The table, if it has these rows."""
        table = self.table
        fits = (
            table is not None
            and table.rows.start <= rows.start
            and rows.stop <= table.rows.stop
            and table.support == support
            and table.text.of(trajectory)
        )
        return table if fits else None


@dataclass(frozen=True, eq=False)
class RowsWanted:
    """The initial rows that one problem asks for.

    Args:
        trajectory: the current response.
        positions: rows, contiguous.
        support: most likely candidates kept per row (the row's own token always is); None: all.
        ahead: positions that will probably be asked for next.
        account: who pays.
        cache: of the problem.
    """

    trajectory: Trajectory
    positions: slice
    support: int | None
    ahead: Sequence[int]
    account: Account
    cache: RowCache


@torch.no_grad()
def references(head: Head, wanted: Sequence[RowsWanted], rows_ahead: int = 1) -> list[InitialRows]:
    """Initial rows for each request; all requests have supports of one size.

    Args:
        head: of the language model.
        wanted: the requests.
        rows_ahead: rows computed at once per problem, if that many fit one chunk.
    """
    support = wanted[0].support
    if support is not None and support < head.usable:
        return _supported(head, wanted, support)
    if all(w.positions.stop - w.positions.start == 1 for w in wanted):
        return _from_blocks(head, wanted, rows_ahead)
    found = []
    for request in wanted:
        logits = head.logits(request.trajectory.hidden[request.positions])
        request.account.meter.add(request.account.phase, Usage(flops=head.flops(len(logits))))
        found.append(_whole(head, request, logits, logits.logsumexp(-1)))
    return found


def _from_blocks(head: Head, wanted: Sequence[RowsWanted], rows_ahead: int) -> list[InitialRows]:
    new = [w for w in wanted if w.cache.block_of(w.trajectory, w.positions.start) is None]
    # One row costs nearly as much as many, the matrix has to be read: as many as a chunk of logits holds,
    # whoever else asks. Not at the first row of a text: its proposal may be accepted and end the text's use.
    size = max(1, min(rows_ahead, heads.CHUNK_ELEMENTS // head.usable))
    together = max(1, heads.CHUNK_ELEMENTS // (head.usable * size))
    for i in range(0, len(new), together):
        _form_blocks(head, new[i : i + together], size)
    found = []
    for request in wanted:
        block = request.cache.block
        assert block is not None
        row = block.places[request.positions.start]
        found.append(_whole(head, request, block.logits[row : row + 1], block.normalisers[row : row + 1]))
    return found


def _form_blocks(head: Head, wanted: Sequence[RowsWanted], size: int) -> None:
    """A block of up to ``size`` rows for each problem, by one product."""
    places = []
    for request in wanted:
        here, block = request.positions.start, request.cache.block
        later = sorted({p for p in request.ahead if here < p < len(request.trajectory)})
        again = block is not None and block.text.of(request.trajectory)
        places.append([here, *(later[: size - 1] if again else ())])
    hidden = torch.cat([w.trajectory.hidden[p] for w, p in zip(wanted, places, strict=True)])
    logits = head.logits(hidden)
    normalisers = logits.logsumexp(-1)
    first = 0
    for request, rows in zip(wanted, places, strict=True):
        part = slice(first, first + len(rows))
        request.account.meter.add(request.account.phase, Usage(flops=head.flops(len(rows))))
        request.cache.block = Block(
            Text(request.trajectory.prompt, request.trajectory.tokens),
            {position: row for row, position in enumerate(rows)},
            logits[part],
            normalisers[part],
        )
        first = part.stop


def _whole(head: Head, request: RowsWanted, logits: Tensor, normalisers: Tensor) -> InitialRows:
    own = request.trajectory.tokens[request.positions].to(head.device)
    hidden = request.trajectory.hidden[request.positions].to(head.device)
    return InitialRows(
        positions=request.positions,
        logits=logits,
        candidates=None,
        chosen=own,
        hidden=hidden,
        project=projection(head, None, [(request.account, len(own))]),
        dropped_mass=torch.zeros_like(normalisers),
        normalisers=normalisers,
    )


def _supported(head: Head, wanted: Sequence[RowsWanted], support: int) -> list[InitialRows]:
    new = [w for w in wanted if w.cache.table_of(w.trajectory, w.positions, support) is None]
    if new:
        hidden = torch.cat([w.trajectory.hidden[w.positions] for w in new])
        own = torch.cat([w.trajectory.tokens[w.positions] for w in new]).to(head.device)
        # Into tensors made beforehand: small results between the chunks would fragment a CPU's heap.
        candidates = torch.empty(len(hidden), support, dtype=torch.long, device=head.device)
        logits = torch.empty(len(hidden), support, dtype=work_dtype(hidden.dtype), device=head.device)
        normalisers = logits.new_empty(len(hidden))
        for rows in head.chunks(len(hidden)):
            _top(head.logits(hidden[rows]), own[rows], candidates[rows], logits[rows], normalisers[rows])
        dropped = (-torch.expm1(logits.logsumexp(-1) - normalisers)).clamp_min(0)
        first = 0
        for request in new:
            count = request.positions.stop - request.positions.start
            part = slice(first, first + count)
            request.account.meter.add(request.account.phase, Usage(flops=head.flops(count)))
            request.cache.table = Table(
                Text(request.trajectory.prompt, request.trajectory.tokens),
                request.positions,
                support,
                candidates[part],
                logits[part],
                normalisers[part],
                dropped[part],
            )
            first = part.stop
    found = []
    for request in wanted:
        table = request.cache.table
        assert table is not None
        first = table.rows.start
        part = slice(request.positions.start - first, request.positions.stop - first)
        ids = table.candidates[part]
        own = request.trajectory.tokens[request.positions].to(head.device)
        found.append(
            InitialRows(
                positions=request.positions,
                logits=table.logits[part],
                candidates=ids,
                chosen=(ids == own.unsqueeze(-1)).int().argmax(-1),
                hidden=request.trajectory.hidden[request.positions].to(head.device),
                project=projection(head, ids, [(request.account, len(own))]),
                dropped_mass=table.dropped[part],
                normalisers=table.normalisers[part],
            )
        )
    return found


def _top(full: Tensor, own: Tensor, candidates: Tensor, logits: Tensor, normalisers: Tensor) -> None:
    """Writes a chunk's most likely candidates, the own token among them, their logits and the partition."""
    candidates.copy_(full.topk(candidates.shape[-1], dim=-1).indices)
    missing = ~(candidates == own.unsqueeze(-1)).any(-1)
    candidates[missing, -1] = own[missing]
    torch.gather(full, -1, candidates, out=logits)
    normalisers.copy_(full.logsumexp(-1))


def projection(
    head: Head, candidates: Tensor | None, payers: Sequence[tuple[Account, int]]
) -> Callable[[Tensor], Tensor]:
    """Hidden states → logits over candidates, at the cost of the accounts with their numbers of rows: one
    product, and one more each time a gradient comes back."""
    width = None if candidates is None else candidates.shape[-1]

    def project(states: Tensor) -> Tensor:
        def pay(_: object = None) -> None:
            for account, rows in payers:
                account.meter.add("gradient", Usage(flops=head.flops(rows, width)))

        pay()
        logits = head.logits(states, candidates)
        if logits.requires_grad:
            logits.register_hook(pay)  # type: ignore[no-untyped-call]
        return logits

    return project


def joined(head: Head, parts: Sequence[InitialRows], accounts: Sequence[Account]) -> InitialRows:
    """The rows of several problems as one reference; its positions only count them."""
    if len(parts) == 1:
        return parts[0]

    def cat(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    logits = cat("logits")
    candidates = None if parts[0].candidates is None else cat("candidates")
    payers = [(account, len(part.logits)) for account, part in zip(accounts, parts, strict=True)]
    return InitialRows(
        positions=slice(0, len(logits)),
        logits=logits,
        candidates=candidates,
        chosen=cat("chosen"),
        hidden=cat("hidden"),
        project=projection(head, candidates, payers),
        dropped_mass=cat("dropped_mass"),
    )
