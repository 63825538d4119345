"""Anchors: which token a hard estimator's forward pass stands at (SPEC section 3)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.registry import Registry


class Anchor(ABC):
    """Chooses the token at which the gradient is evaluated."""

    @abstractmethod
    def index(
        self,
        scores: Float[Tensor, "*batch k"],
        reference_scores: Float[Tensor, "*batch k"],
        chosen: Int[Tensor, "*batch"],
    ) -> Int[Tensor, "*batch"]:
        """Index of the hard token.

        Args:
            scores: current logits, perturbed by the estimator's noise if it has any.
            reference_scores: initial logits under the same perturbation.
            chosen: index of the rollout's own token.
        """

    def noise(
        self,
        reference: Float[Tensor, "*batch k"],
        chosen: Int[Tensor, "*batch"],
        *,
        temperature: float,
        generator: torch.Generator,
    ) -> Float[Tensor, "*batch k"] | None:
        """Noise to hold fixed for a whole refinement, added to the logits; None (the default): none.

        Args:
            reference: initial logits.
            chosen: column of the rollout's own token per row.
            temperature: at which the rollout was sampled.
            generator: source of the noise.
        """
        return None


anchors: Registry[Anchor] = Registry("anchors", lambda: Anchor, __package__)


@dataclass(frozen=True, eq=False)
class AnchorPoint:
    """An anchor with the rollout it is anchored at.

    Args:
        anchor: the rule.
        reference: initial logits, before any noise; of the shape of the logits to relax.
        chosen: column of the rollout's own token per row.
        noise: what the anchor holds fixed (:meth:`Anchor.noise`); hard estimators add it to the logits,
            Gumbel estimators use it in place of fresh draws.
    """

    anchor: Anchor
    reference: Float[Tensor, "*batch k"]
    chosen: Int[Tensor, "*batch"]
    noise: Float[Tensor, "*batch k"] | None = None

    def of(self, rows: slice) -> AnchorPoint:
        """The part of some rows."""
        noise = None if self.noise is None else self.noise[rows]
        return AnchorPoint(self.anchor, self.reference[rows], self.chosen[rows], noise)


#: Columns from which :func:`argmax` goes by blocks of this many.
BLOCK = 128


def argmax(scores: Float[Tensor, "*batch k"]) -> Int[Tensor, "*batch"]:
    """``scores.argmax(-1)``, the first of equals; four times as fast on a CPU for a row as wide as a
    vocabulary: maxima of blocks are vectorised, torch's search for the place is not."""
    width = scores.shape[-1]
    if scores.device.type != "cpu" or width < 32 * BLOCK:
        return scores.argmax(-1)
    whole = width // BLOCK * BLOCK
    blocks = scores[..., :whole].reshape(*scores.shape[:-1], -1, BLOCK)
    block = blocks.amax(-1).argmax(-1, keepdim=True)
    inside = blocks.take_along_dim(block.unsqueeze(-1), -2)[..., 0, :]
    found = block[..., 0] * BLOCK + inside.argmax(-1)
    if whole == width:
        return torch.as_tensor(found)
    rest, place = scores[..., whole:].max(-1)
    joined: Tensor = torch.where(rest > inside.amax(-1), whole + place, found)
    return joined
