"""Sharpening matched in KL: is the gradient more than a lower temperature? (SPEC section 10)"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nabla.core.extras import require_extra
from nabla.core.trajectory import Trajectory
from nabla.methods.base import methods
from nabla.methods.sweep import RefiningSweep, Row
from nabla.objectives.kl import kl_rows

if TYPE_CHECKING:
    from nabla.engine.engine import Session

#: Inverse temperature beyond which a row counts as its argmax.
_COLDEST = 1e8


@methods.register("kl-matched-sharpening")
class KLMatchedSharpening(RefiningSweep):
    """∇-Reasoner's steps with the language model's own row sharpened as far as refinement would move it.

    At every position the row is refined (and paid for), then thrown away: the proposal draws from
    ``softmax(β z)``, β ≥ 1 such that ``KL(p_sharp || p_ref)`` is that of the refined row. A KL that not even
    the argmax reaches gives the argmax, counted as ``sharpening_limits``.

    Args:
        dto: the inner loop.
        selector, proposal, acceptance, sampling, max_rollouts, rounds: as in ``nabla-reasoner``.
    """

    async def row(self, session: Session, trajectory: Trajectory, ahead: Sequence[int]) -> Row:
        refinement = await self.dto.refine(trajectory, session, ahead)
        reference = refinement.reference.logits[0]
        target = float(kl_rows(refinement.logits[:1].double(), reference[None].double()))
        logits, reached = sharpened(reference, target)
        if not reached:
            session.meter.count("sharpening_limits")
        return Row(logits, refinement.reference)


@torch.no_grad()
def sharpened(logits: Float[Tensor, " k"], target: float) -> tuple[Float[Tensor, " k"], bool]:
    """``β·logits`` with ``KL(softmax(β z) || softmax(z)) = target``, nats, and whether it can be reached;
    if not, the row of the argmax (of all of them in a tie).

    The KL grows with β from 0 at β = 1 to ``-log`` of the argmax's probability, so that there is one β.
    """
    require_extra("eval", "scipy", purpose="Sharpening matched in KL")
    from scipy.optimize import brentq

    if target <= 1e-14:  # rounding
        return logits, True
    shifted = (logits - logits.max()).double()
    z = shifted[shifted > -math.inf].cpu().numpy()
    log_q = z - math.log(np.exp(z).sum())

    def excess(log_beta: float) -> float:
        scaled = math.exp(log_beta) * z
        weights = np.exp(scaled)
        total = weights.sum()
        return float((weights * (scaled - math.log(total) - log_q)).sum() / total) - target

    limit = -math.log(float(np.exp(log_q[z == 0]).sum()))
    high = 1.0
    if target < limit:
        while high < math.log(_COLDEST) and excess(high) <= 0:
            high *= 2
    if target >= limit or excess(high) <= 0:
        return logits.masked_fill(shifted < 0, -math.inf), False
    beta = math.exp(brentq(excess, 0.0, high, xtol=1e-14))
    return (beta * shifted).to(logits), True
