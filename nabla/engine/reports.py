"""What listeners are told: steps, terms and refined rows of a refinement, and decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from nabla.core.trajectory import Trajectory
from nabla.engine.initial_rows import InitialRows
from nabla.schedulers.base import Step

#: KL(p_z || p_ref) per token above which a refinement counts as collapsed, nats (SPEC section 2).
COLLAPSE = 2.0


@dataclass(frozen=True)
class TermReport:
    """One term at one step: unweighted value, its unit, weight, and share of the logit gradient's norm."""

    value: float
    unit: str
    weight: float
    gradient_share: float


@dataclass(frozen=True)
class StepReport:
    """One optimisation step.

    Args:
        step: which.
        terms: by name.
        gradient_norm: of the weighted gradient with respect to the parameter.
        recomputed: whether the models had to be run for it.
    """

    step: Step
    terms: dict[str, TermReport]
    gradient_norm: float
    recomputed: bool


@dataclass(frozen=True, eq=False)
class Refinement:
    """Refined rows.

    Args:
        reference: initial logits and support.
        logits: refined logits ``[R, K]``.
        kl: ``KL(p_z || p_ref)`` per row, nats ``[R]``.
        first: report of the first step.
        recomputed: number of gradients that needed the models.
        dropped_mass: largest probability mass outside the support in any row.
        deltas: of ``∂L/∂y`` at the first step, the norm of each part per row, centred ``[R]``: "prefix",
            "postfix" and "reward" of Prop. C.1, weighted; empty unless somebody listens. A part that was not
            computed is not there.
    """

    reference: InitialRows
    logits: Float[Tensor, "rows k"]
    kl: Float[Tensor, " rows"]
    first: StepReport
    recomputed: int
    dropped_mass: float
    deltas: Mapping[str, Float[Tensor, " rows"]] = field(default_factory=dict)

    @property
    def collapsed(self) -> bool:
        """Whether a row has left the language model's distribution by more than 2 nats."""
        return bool((self.kl > COLLAPSE).any())


@dataclass(frozen=True, eq=False)
class Decision:
    """What became of a proposal.

    Args:
        current: the response before.
        proposal: the one offered.
        position: of the first token that was changed.
        accepted: whether the proposal is the current response now.
        why: what decided it, in words.
    """

    current: Trajectory
    proposal: Trajectory
    position: int
    accepted: bool
    why: str = ""
