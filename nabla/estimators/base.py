"""Gradient estimators: logits → relaxed tokens, with the rule for the way back (SPEC section 3)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from nabla.anchors.base import AnchorPoint
from nabla.errors import ConfigError
from nabla.registry import Registry
from nabla.schedulers.base import Schedule, Step, as_schedule


class Estimator(ABC):
    """Maps logits over a support of K candidates to rows on the simplex, differentiably.

    An estimator never knows the vocabulary: candidates are columns, masked ones have logit ``-inf``
    and get weight and gradient zero. It keeps settings only; noise comes from the generator.

    Args:
        temperature: τ > 0, a number or a schedule over the optimisation steps.
    """

    #: Forward rows are exactly one-hot.
    hard: ClassVar[bool]
    #: Forward rows depend on random draws.
    stochastic: ClassVar[bool]

    def __init__(self, temperature: float | Schedule | str | dict[str, Any] = 1.0) -> None:
        self.temperature = as_schedule(temperature)
        if self.temperature.bounds[0] <= 0:
            raise ConfigError(
                "An estimator's temperature must be positive",
                got=temperature,
                fix="Use a small value such as 0.01 for a nearly hard relaxation.",
            )

    @abstractmethod
    def relax(
        self,
        logits: Float[Tensor, "*batch k"],
        *,
        generator: torch.Generator,
        step: Step,
        anchor: AnchorPoint | None,
    ) -> Float[Tensor, "*batch k"]:
        """Relaxed tokens; gradients flow back to ``logits`` by the estimator's rule."""

    def __call__(
        self,
        logits: Float[Tensor, "*batch k"],
        *,
        generator: torch.Generator,
        step: Step | None = None,
        anchor: AnchorPoint | None = None,
    ) -> Float[Tensor, "*batch k"]:
        """Relaxed tokens: rows on the simplex, of the logits' shape and dtype.

        Args:
            logits: pre-softmax scores, nats; ``-inf`` masks a candidate (one per row must be
                finite).
            generator: source of noise, on the CPU or the logits' device.
            step: where in the optimisation this is, for temperature schedules.
            anchor: the rollout a hard forward value is anchored at; None takes the argmax.

        Raises ConfigError if ``relax`` changes shape or dtype.
        """
        rows = self.relax(logits, generator=generator, step=step or Step(), anchor=anchor)
        if rows.shape != logits.shape or rows.dtype != logits.dtype:
            raise ConfigError(
                f"{type(self).__name__}.relax must keep shape and dtype "
                f"({tuple(logits.shape)}, {logits.dtype})",
                got=(tuple(rows.shape), rows.dtype),
            )
        return rows

    def reusable(self, cached: Float[Tensor, "*batch k"], current: Float[Tensor, "*batch k"]) -> bool:
        """Whether the gradient at ``cached`` rows is valid at ``current`` ones (Algorithm 4).

        Both models are frozen, so equal rows have equal gradients, whatever the estimator: this
        rule is exact. A hard deterministic estimator profits at every step, a soft or noisy one
        rarely.
        """
        return torch.equal(cached, current)


estimators: Registry[Estimator] = Registry("estimators", lambda: Estimator)


def hard_rows(
    scores: Float[Tensor, "*batch k"],
    anchor: AnchorPoint | None,
    noise: Float[Tensor, "*batch k"] | None = None,
) -> Float[Tensor, "*batch k"]:
    """One-hot rows at the anchored token, without gradient.

    Args:
        scores: logits, with ``noise`` already added.
        anchor: where to stand; None takes the argmax of ``scores``.
        noise: what was added, so that the anchor's reference gets the same.
    """
    scores = scores.detach()
    index: Int[Tensor, "*batch"]
    if anchor is None:
        index = scores.argmax(-1)
    else:
        reference = anchor.reference if noise is None else anchor.reference + noise
        index = anchor.anchor.index(scores, reference, anchor.chosen)
    return one_hot(index, scores.shape[-1]).to(scores.dtype)


def gumbel_like(logits: Float[Tensor, "*batch k"], generator: torch.Generator) -> Float[Tensor, "*batch k"]:
    """Standard Gumbel noise of the logits' shape, drawn on the generator's device."""
    exponential = torch.empty(logits.shape, dtype=logits.dtype, device=generator.device)
    exponential.exponential_(generator=generator)
    tiny = torch.finfo(logits.dtype).tiny
    return -exponential.clamp_min(tiny).log().to(logits.device)
