"""Rows of ``∂L/∂y`` on demand: ``E_LM ∂L/∂e_LM + E_RM ∂L/∂e_RM + (∂L/∂ℓ_i) log π_i`` (SPEC section 7)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.costs import Account, Usage
from nabla.engine.gradient.values import RowsRequest, TermGradient, TrajectoryGradient, channels
from nabla.models.causal_lm import CausalLM
from nabla.models.channels import Pull
from nabla.models.precision import work_dtype
from nabla.rewards.base import Reward


class GradientRows:
    """Forms rows of gradients.

    Args:
        lm: the language model.
        reward: whose embeddings terms may reach, beside the language model's; None if there is none.
    """

    def __init__(self, lm: CausalLM, reward: Reward | None) -> None:
        self.lm, self.reward = lm, reward

    @torch.no_grad()
    def rows(
        self,
        gradient: TrajectoryGradient,
        part: TermGradient,
        positions: slice,
        candidates: Int[Tensor, "*rows_or_not k"] | None,
        account: Account,
    ) -> Float[Tensor, "rows k"]:
        """``∂L/∂y_i`` over ``candidates`` (all usable ids if None) for a slice of positions."""
        count = positions.stop - positions.start
        places = torch.arange(positions.start - gradient.start, positions.stop - gradient.start)
        if candidates is not None and candidates.dim() == 1:
            candidates = candidates.expand(count, -1)
        (found,) = self.rows_of([gradient.rows_wanted(part, places, candidates, account)])
        return found

    @torch.no_grad()
    def rows_of(self, wanted: Sequence[RowsRequest]) -> list[Float[Tensor, "rows k"]]:
        """``∂L/∂y_i`` for every entry; one product per embedding table for all of them.

        All entries have supports of one size.
        """
        head = self.lm.head
        dtype = work_dtype(self.lm.body.dtype)
        sizes = [len(entry.places) for entry in wanted]
        supports = [entry.candidates for entry in wanted]
        width = head.usable if supports[0] is None else supports[0].shape[-1]
        total = torch.zeros(sum(sizes), width, dtype=dtype, device=head.device)
        parts = list(torch.split(total, sizes))
        for index in range(len(channels(self.lm, self.reward))):
            batches: dict[object, list[tuple[RowsRequest, Pull, Tensor]]] = {}
            for entry, part in zip(wanted, parts, strict=True):
                pull = entry.part.pulls[index]
                if pull is not None:
                    key = pull if pull.batch is None else pull.batch
                    batches.setdefault(key, []).append((entry, pull, part))
            for reached in batches.values():
                pulls = [pull for _, pull, _ in reached]
                places = [entry.places for entry, _, _ in reached]
                found = pulls[0].together(pulls, places, [entry.candidates for entry, _, _ in reached])
                for (entry, pull, part), rows in zip(reached, found, strict=True):
                    part += rows.to(total)
                    usage = Usage(flops=pull.flops(len(entry.places), width))
                    entry.account.meter.add(entry.account.phase, usage)
        for entry, part in zip(wanted, parts, strict=True):
            direct = entry.part.direct[entry.places].to(total)
            if entry.hidden is not None and bool((direct != 0).any()):
                part += direct.unsqueeze(-1) * self._log_pi(entry)
        return parts

    def _log_pi(self, entry: RowsRequest) -> Float[Tensor, "rows k"]:
        """``log π(.|y_<i)`` over the entry's support; 0 at masked tokens, which have no weight."""
        head, account = self.lm.head, entry.account
        logits, normalisers = entry.logits, entry.normalisers
        if logits is None:
            assert entry.hidden is not None
            logits = head.logits(entry.hidden, entry.candidates)
            flops = 2.0 * logits.numel() * entry.hidden.shape[-1]
            account.meter.add(account.phase, Usage(flops=flops))
        if normalisers is None and entry.candidates is None:
            normalisers = logits.logsumexp(-1)
        elif normalisers is None:
            assert entry.hidden is not None
            normalisers = head.partition(entry.hidden).log_z
            account.meter.add(account.phase, Usage(flops=head.flops(len(logits))))
        log_pi = logits - normalisers.to(logits).unsqueeze(-1)
        if head.blocked is not None:
            log_pi = log_pi.masked_fill_(logits.isinf(), 0.0)
        return log_pi
