"""Norms of all rows of ``∂L/∂y`` without forming them (SPEC section 7.2)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from nabla.core.costs import Account, Usage
from nabla.engine.gradient.rows import GradientRows
from nabla.engine.gradient.values import TermGradient, TrajectoryGradient
from nabla.models import head as heads
from nabla.models.causal_lm import CausalLM
from nabla.models.channels import TablePull
from nabla.models.head import EmbeddingTable, cross_gram
from nabla.models.precision import work_dtype


class GradientNorms:
    """Norms of gradient rows; keeps Gram matrices of the tables that they came to need.

    Args:
        lm: the language model.
        rows: forms rows where a channel has no Gram matrix.
    """

    def __init__(self, lm: CausalLM, rows: GradientRows) -> None:
        self.lm, self.rows = lm, rows
        self._grams: dict[tuple[EmbeddingTable, ...], tuple[Tensor, Tensor]] = {}
        self._head_grams: dict[tuple[EmbeddingTable, ...], tuple[Tensor, Tensor, Tensor]] = {}

    @torch.no_grad()
    def norms(
        self, gradient: TrajectoryGradient, part: TermGradient, account: Account
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """``||∂L/∂y_i||_2`` over all usable ids per position, and the same after centring.

        The embedding part costs H×H per position (Gram matrices, SPEC section 7.2), the ``log π`` part
        one pass over the head and the tables in chunks of rows.
        """
        pulls = [pull for pull in part.pulls if pull is not None]
        own = [pull for pull in pulls if isinstance(pull, TablePull)]
        if len(own) < len(pulls):
            return self._from_rows(gradient, part, account)
        reached, vectors = tuple(pull.table for pull in own), [pull.vectors for pull in own]
        device, dtype = self.lm.head.device, work_dtype(self.lm.body.dtype)
        count = len(part.direct)
        usable = self.lm.head.usable
        squared = torch.zeros(count, dtype=dtype, device=device)
        summed = torch.zeros(count, dtype=dtype, device=device)
        flops = 0.0
        joint = None
        if vectors:
            joint = torch.cat([v.to(device, dtype) for v in vectors], -1)
            gram, mean = self._joint_gram(reached)
            squared += ((joint @ gram) * joint).sum(-1)
            summed += usable * (joint @ mean)
            flops += 2.0 * count * gram.numel()
        direct = part.direct.to(device, dtype)
        if gradient.hidden is not None and bool((direct != 0).any()):
            moments = self._linear_moments if self.lm.head.linear else self._moments
            square, total, cross, extra = moments(gradient, reached, joint)
            squared += direct**2 * square + 2 * direct * cross
            summed += direct * total
            flops += extra
        account.meter.add(account.phase, Usage(flops=flops))
        centred = squared - summed**2 / usable
        return squared.clamp_min(0).sqrt(), centred.clamp_min(0).sqrt()

    def _from_rows(
        self, gradient: TrajectoryGradient, part: TermGradient, account: Account
    ) -> tuple[Tensor, Tensor]:
        """From the rows themselves, a chunk at a time: for channels that form rows in their own way."""
        norms, centred = [], []
        for chunk in self.lm.head.chunks(len(part.direct)):
            places = torch.arange(chunk.start, chunk.stop)
            (rows,) = self.rows.rows_of([gradient.rows_wanted(part, places, None, account)])
            norms.append(rows.norm(dim=-1))
            centred.append((rows - rows.mean(-1, keepdim=True)).norm(dim=-1))
        return torch.cat(norms), torch.cat(centred)

    def _moments(
        self, gradient: TrajectoryGradient, tables: tuple[EmbeddingTable, ...], joint: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, float]:
        """Per row ``Σ_v log² π_v``, ``Σ_v log π_v`` and ``Σ_v log π_v (E g)_v``, and the FLOPs spent, from
        the logits in chunks of rows: for heads with a soft cap or masked tokens."""
        head, hidden = self.lm.head, gradient.hidden
        assert hidden is not None
        squares, totals, crosses, flops = [], [], [], 0.0
        for rows in head.chunks(len(hidden)):
            logits = head.logits(hidden[rows])
            log_pi = logits.log_softmax(-1).masked_fill_(logits.isinf(), 0.0)
            flops += head.flops(len(log_pi))
            squares.append((log_pi**2).sum(-1))
            totals.append(log_pi.sum(-1))
            cross = torch.zeros_like(totals[-1])
            if joint is not None:
                back = torch.cat([t.transposed(log_pi).to(cross.device) for t in tables], -1)
                cross = (back * joint[rows]).sum(-1)
                flops += sum(t.flops(len(log_pi)) for t in tables)
            crosses.append(cross)
        return torch.cat(squares), torch.cat(totals), torch.cat(crosses), flops

    def _linear_moments(
        self, gradient: TrajectoryGradient, tables: tuple[EmbeddingTable, ...], joint: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, float]:
        """The same where ``log π = W h - log Z`` is linear in h: Gram matrices again, no number per token
        of the vocabulary. The logits are centred first (a softmax does not see a shift): squares of
        numbers around zero keep their digits."""
        head, hidden = self.lm.head, gradient.hidden
        assert hidden is not None
        gram, mean, crosses = self._head_gram(tables)
        h = hidden.to(head.device, gram.dtype)
        if head.module.bias is not None:
            h = torch.cat([h, h.new_ones(len(h), 1)], -1)
        if gradient.normalisers is not None:
            log_z = gradient.normalisers.to(h)
            flops = 0.0
        else:
            log_z, flops = head.partition(hidden).log_z.to(h), head.flops(len(h))
        shift = h @ mean - log_z  # mean of log π over the vocabulary
        square = ((h @ gram) * h).sum(-1) + head.usable * shift**2
        total = head.usable * shift
        cross = torch.zeros_like(total)
        if joint is not None:
            sums = torch.cat([t.mean().to(h) for t in tables]) * head.usable
            cross = ((h @ crosses) * joint.to(h)).sum(-1) + shift * (joint.to(h) @ sums)
        flops += 2.0 * len(h) * (gram.numel() + crosses.numel())
        dtype = work_dtype(self.lm.body.dtype)
        return square.to(dtype), total.to(dtype), cross.to(dtype), flops

    def _head_gram(self, tables: tuple[EmbeddingTable, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Of the head's centred rows (scaled, with the bias as one more column): their Gram matrix, the
        mean row, and the product with the tables' embeddings; computed once, summed up in float64."""
        head = self.lm.head
        if tables not in self._head_grams:
            columns = head.weight.shape[-1] + (head.module.bias is not None)
            size = max(1, heads.CHUNK_ELEMENTS // columns)
            parts = [slice(i, min(i + size, head.usable)) for i in range(0, head.usable, size)]
            mean = sum(
                (head.affine(p).sum(0, dtype=torch.float64) for p in parts),
                torch.zeros(columns, dtype=torch.float64, device=head.device),
            ) / head.usable
            width = sum(t.hidden_size for t in tables)
            gram = torch.zeros(columns, columns, dtype=torch.float64, device=head.device)
            cross = torch.zeros(columns, width, dtype=torch.float64, device=head.device)
            for part in parts:
                rows = head.affine(part)
                centred = rows - mean.to(rows)
                gram += centred.mT @ centred
                if tables:
                    ids = torch.arange(part.start, part.stop)
                    cross += centred.mT @ torch.cat([t.rows(ids).to(centred) for t in tables], -1)
            self._head_grams[tables] = (gram, mean, cross)
        return self._head_grams[tables]

    def _joint_gram(self, tables: tuple[EmbeddingTable, ...]) -> tuple[Tensor, Tensor]:
        """Of the tables' rows side by side: their Gram matrix and the mean row; computed once."""
        if tables not in self._grams:
            device, dtype = self.lm.head.device, work_dtype(self.lm.body.dtype)
            blocks = [
                torch.cat(
                    [
                        (a.gram() if a is b else cross_gram(a, b)).to(device, dtype)
                        for b in tables
                    ],
                    -1,
                )
                for a in tables
            ]
            mean = torch.cat([t.mean().to(device, dtype) for t in tables])
            self._grams[tables] = (torch.cat(blocks), mean)
        return self._grams[tables]
