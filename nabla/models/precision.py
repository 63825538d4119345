"""The dtype that logits and scores are computed in, and the weights that can be read for it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nabla.core.errors import ModelError


def work_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64 models, else float32: logits, Adam and losses never run in half precision."""
    return torch.promote_types(dtype, torch.float32)


def require_plain(weight: Tensor, what: str) -> None:
    """Raises ModelError unless a weight is a matrix of floating-point numbers whose rows can be read."""
    plain = type(weight) in (Tensor, nn.Parameter) and weight.is_floating_point() and weight.dim() == 2
    if not plain or weight.dtype.itemsize < 2:
        raise ModelError(
            f"{what} is quantised, or no plain matrix: its rows cannot be read",
            got=f"{type(weight).__name__} of {weight.dtype}, {list(weight.shape)}",
            fix="Leave embedding and head out of the quantisation (llm_int8_skip_modules, "
            "modules_to_not_convert).",
        )


def exact_scores(head: nn.Module, hidden: Float[Tensor, "n hidden"]) -> Float[Tensor, "n labels"]:
    """Scores of hidden states by a small head, in the working dtype: in bfloat16 a score of 20 has steps of
    1/8, and different texts would tie."""
    dtype = work_dtype(hidden.dtype)
    if all(parameter.dtype == dtype for parameter in head.parameters()):
        scores: Tensor = head(hidden.to(dtype))
        return scores
    weights = {name: parameter.to(dtype) for name, parameter in head.named_parameters()}
    found: Tensor = torch.func.functional_call(head, weights, (hidden.to(dtype),))
    return found
