"""Anchors: which token a hard estimator's forward pass stands at (SPEC section 3)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.registry import Registry


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


anchors: Registry[Anchor] = Registry("anchors", lambda: Anchor)


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
