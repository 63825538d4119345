"""Last-layer hidden states."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from nabla.models.precision import work_dtype
from nabla.refinement.parameterizations.base import Parameterization, parameterizations

if TYPE_CHECKING:
    from nabla.engine.initial_rows import InitialRows


@parameterizations.register("latents")
class Latents(Parameterization):
    """Optimise the hidden states h with ``z = W_head h`` (SPEC section 4, "latents")."""

    def initial(self, reference: InitialRows) -> Float[Tensor, "rows width"]:
        return reference.hidden.to(work_dtype(reference.hidden.dtype)).clone()

    def logits(
        self, parameter: Float[Tensor, "rows width"], reference: InitialRows
    ) -> Float[Tensor, "rows k"]:
        return reference.project(parameter)
