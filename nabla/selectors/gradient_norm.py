"""Refine where the gradient has something to say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Bool
from torch import Tensor

from nabla.core.errors import require_finite
from nabla.core.trajectory import Trajectory
from nabla.selectors.base import Selector, selectors

if TYPE_CHECKING:
    from nabla.engine.session import Session


@selectors.register("gradient-norm")
class GradientNormSelector(Selector):
    """Positions with ``||∂L/∂y_i||`` above ``threshold`` (SPEC Algorithm 3).

    Args:
        threshold: ε_grad, in the objective's unit; the paper's is 8, and 4 for MATH-500 and AMC.
        centred: take the norm without the component along the constant vector, which has no effect
            through a softmax (Eq. 25) and is most of δ_prefix (SPEC section 5); False is the plain
            norm.
    """

    def __init__(self, threshold: float = 8.0, centred: bool = True) -> None:
        self.threshold = require_finite("threshold", threshold)
        self.centred = centred

    @property
    def needs_gradient(self) -> bool:
        return True

    async def mask(self, trajectory: Trajectory, session: Session) -> Bool[Tensor, " length"]:
        plain, centred = await session.gradient_norms(trajectory)
        return (centred if self.centred else plain) > self.threshold
