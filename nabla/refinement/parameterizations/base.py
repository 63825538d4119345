"""Parameterisations: what the optimiser moves, and how logits follow from it (SPEC section 4)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from nabla.core.registry import Registry

if TYPE_CHECKING:
    from nabla.engine.initial_rows import InitialRows


class Parameterization(ABC):
    """Maps a parameter to the rows' logits; settings only."""

    @abstractmethod
    def initial(self, reference: InitialRows) -> Float[Tensor, "rows width"]:
        """The parameter at which the logits are the language model's own; float32, or float64 for
        float64 models, whatever the models' dtype (Adam on bfloat16 logits is a no-op)."""

    @abstractmethod
    def logits(
        self, parameter: Float[Tensor, "rows width"], reference: InitialRows
    ) -> Float[Tensor, "rows k"]:
        """Logits over the reference's support, differentiable in ``parameter``."""


parameterizations: Registry[Parameterization] = Registry(
    "parameterizations", lambda: Parameterization, __package__
)
