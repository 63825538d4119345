"""Objectives: what refinement minimises (SPEC section 2).

Two kinds. A *trajectory* term is a function of a few numbers that the models return for the relaxed
text (a log-likelihood per token, the reward); the engine asks it for its derivative with respect to
those numbers and pulls that back through the models, one backward pass each. A *logit* term is a
function of the optimised logits alone and costs no model call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from nabla.core.errors import ConfigError
from nabla.core.registry import Registry
from nabla.schedulers.base import Schedule, Step


@dataclass(frozen=True, eq=False)
class TrajectoryView:
    """What the models say of one relaxed response from its first free position on.

    Args:
        log_likelihood: ``y_i^T log π(. | y_<i, x)`` per position, nats; its gradient reaches the
            tokens directly (δ_prefix) and through the contexts of later tokens (δ_postfix).
        log_likelihood_fixed_context: the same numbers, contexts held fixed: no δ_postfix, and no
            backward pass through the LM.
        reward: the RM's scalar, in its own logit unit; None without a differentiable reward.
    """

    log_likelihood: Float[Tensor, " n"]
    log_likelihood_fixed_context: Float[Tensor, " n"]
    reward: Float[Tensor, ""] | None


class Objective(ABC):
    """Something to minimise. Subclass TrajectoryObjective or LogitObjective."""

    #: Unit of the value, for reports: "nats", "reward logits", ...
    unit: ClassVar[str]
    #: Needs a differentiable reward.
    needs_reward: ClassVar[bool] = False
    #: Needs the LM's log-likelihood of the relaxed text.
    needs_likelihood: ClassVar[bool] = False

    def terms(self) -> tuple[Term, ...]:
        """The objective as weighted terms; a plain objective is one term of weight 1."""
        from nabla.schedulers.base import Constant

        return (Term(objectives.name_of(self), self, (Constant(1.0),)),)


class TrajectoryObjective(Objective):
    """A term that is a function of what the models say of the relaxed text."""

    #: A token's derivative is the same wherever the free part begins, as in a sum over tokens: a gradient
    #: that was computed from an earlier position on serves later ones. Not so for a mean over the view's
    #: rows, or a product of their sum with the reward: such gradients are computed anew for each position.
    additive: ClassVar[bool] = False

    @abstractmethod
    def value(self, view: TrajectoryView) -> Float[Tensor, ""]:
        """The term's value, differentiable in the view's tensors."""


class LogitObjective(Objective):
    """A term that is a function of the optimised logits and the initial (reference) ones."""

    #: Never negative, and zero with zero gradient where the logits are the reference's.
    divergence: ClassVar[bool] = False

    @abstractmethod
    def value(self, logits: Float[Tensor, "rows k"], reference: Float[Tensor, "rows k"]) -> Float[Tensor, ""]:
        """The term's value, differentiable in ``logits``; ``-inf`` masks a candidate in both."""


@dataclass(frozen=True, eq=False)
class Term:
    """A named term; its weight is the product of ``weights`` at a step."""

    name: str
    objective: Objective
    weights: tuple[Schedule, ...]

    def weight(self, step: Step) -> float:
        """The weight at ``step``."""
        product = 1.0
        for schedule in self.weights:
            product *= schedule(step)
        return product

    @property
    def active(self) -> bool:
        """Whether the weight can be other than zero."""
        return all(w.bounds != (0.0, 0.0) for w in self.weights)


objectives: Registry[Objective] = Registry("objectives", lambda: Objective, __package__)


def log_probabilities(
    logits: Float[Tensor, "rows k"],
) -> tuple[Float[Tensor, "rows k"], Float[Tensor, "rows k"]]:
    """``log softmax``, nats, and the probabilities; where those are 0, by a mask or by underflow, the
    logarithm is set to 0: 0·log 0 = 0, in the value and in the gradient."""
    p = logits.softmax(-1)
    return torch.where(p > 0, logits.log_softmax(-1), 0.0), p


def trajectory_terms(objective: Objective) -> tuple[Term, ...]:
    """The objective's terms that need the models and can have a weight other than zero."""
    return tuple(t for t in objective.terms() if isinstance(t.objective, TrajectoryObjective) and t.active)


def require_trajectory_terms(objective: Objective | None, what: str) -> Objective:
    """The objective. Raises ConfigError if there is none, or none of its terms needs the models.

    Args:
        objective: of the method.
        what: why one is needed, the beginning of the message; it ends in "an objective".
    """
    if objective is None:
        raise ConfigError(
            f"{what}, and this method has none",
            fix="Choose another selector, or a method with an objective.",
        )
    if not trajectory_terms(objective):
        raise ConfigError(
            f"{what} with a reward or likelihood term",
            got=[term.name for term in objective.terms()],
            fix="Choose another selector, or add such a term.",
        )
    return objective
