"""Divergence of the refined distribution from the language model's own, both directions."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from nabla.objectives.base import LogitObjective, log_probabilities, objectives


@objectives.register("kl")
class KL(LogitObjective):
    """``KL(p_z || p_ref)``, summed over rows (SPEC section 2); weights of 0.05 to 0.2 are usual."""

    unit = "nats"
    divergence = True

    def value(self, logits: Float[Tensor, "rows k"], reference: Float[Tensor, "rows k"]) -> Float[Tensor, ""]:
        return kl_rows(logits, reference).sum()


@objectives.register("reverse-kl")
class ReverseKL(LogitObjective):
    """``KL(p_ref || p_z)``, summed over rows: mass-covering (SPEC section 2)."""

    unit = "nats"
    divergence = True

    def value(self, logits: Float[Tensor, "rows k"], reference: Float[Tensor, "rows k"]) -> Float[Tensor, ""]:
        return kl_rows(reference, logits).sum()


def kl_rows(p: Float[Tensor, "rows k"], q: Float[Tensor, "rows k"]) -> Float[Tensor, " rows"]:
    """``KL(softmax p || softmax q)`` per row, nats; both share their masked (-inf) candidates."""
    log_p, weight = log_probabilities(p)
    log_q = q.log_softmax(-1).masked_fill(q == float("-inf"), 0.0)
    return (weight * (log_p - log_q)).sum(-1)
