"""The logits themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from nabla.models.precision import work_dtype
from nabla.refinement.parameterizations.base import Parameterization, parameterizations

if TYPE_CHECKING:
    from nabla.engine.initial_rows import InitialRows


@parameterizations.register("logits")
class Logits(Parameterization):
    """Optimise the logits z directly (arXiv 2603.04948, Algorithm 2).

    Forbidden candidates (``-inf``) are not part of the parameter: an optimiser would make NaN of
    them.
    """

    def initial(self, reference: InitialRows) -> Float[Tensor, "rows width"]:
        logits = reference.logits.to(work_dtype(reference.logits.dtype))
        if reference.forbidden is None:
            return logits.clone()
        return logits.masked_fill(reference.forbidden, 0.0)

    def logits(
        self, parameter: Float[Tensor, "rows width"], reference: InitialRows
    ) -> Float[Tensor, "rows k"]:
        if reference.forbidden is None:
            return parameter
        return parameter.masked_fill(reference.forbidden, float("-inf"))
