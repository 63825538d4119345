"""Whether a body is causal: no token may change what is before it, nor a row its neighbours."""

from __future__ import annotations

import logging

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.errors import ModelError
from nabla.models.body import EMPTY, Body, Chunk

log = logging.getLogger(__name__)

#: Share of a derivative that may arrive from behind: rounding. A mask gives exactly zero.
_LEAK = 1e-6


@torch.no_grad()
def require_causal(body: Body, ids: Int[Tensor, " n"], name: str) -> None:
    """Raises ModelError if a state depends on a token behind it, or on the other rows of its batch.

    States are compared, and derivatives: with small weights, or in half precision, a change of the last
    token hardly moves the states before it, but the derivative is zero for a causal model and for no other.

    Args:
        body: that reads the text.
        ids: of a text, longer than the model's windows where these matter.
        name: of the model, for the message.
    """
    if len(ids) < 2:
        return
    embedded = body.embed(ids)
    changed = embedded.clone()
    changed[-1] = -changed[-1] + embedded[0]
    (whole,) = body.run([Chunk(EMPTY, embedded)])
    (other,) = body.run([Chunk(EMPTY, changed)])
    half = embedded[: max(1, len(ids) // 2)]
    together = body.run([Chunk(EMPTY, half), Chunk(EMPTY, embedded)])
    (alone,) = body.run([Chunk(EMPTY, half)])
    # Some models work in float32 whatever their weights are.
    tolerance = {torch.float64: 1e-5, torch.float32: 1e-3}.get(embedded.dtype, 5e-2)
    pairs = ((other.hidden[:-1], whole.hidden[:-1]), (together[0].hidden, alone.hidden))
    apart = [_difference(*pair) for pair in pairs]
    leak = _leak(body, embedded, name)
    if max(apart) > tolerance or (leak or 0.0) > _LEAK:
        raise ModelError(
            f"{name} is not causal: its states depend on the tokens behind them",
            got=f"relative differences {apart[0]:.1e} and {apart[1]:.1e} (padding), derivative "
            + ("unknown" if leak is None else f"{leak:.1e}"),
            fix="Use a causal decoder: encoders (BERT, RoBERTa, ...) and models with bidirectional attention "
            "are not supported.",
        )


def _difference(found: Tensor, expected: Tensor) -> float:
    size = expected.double().norm().clamp_min(1e-12)
    return float((found.double() - expected.double()).norm() / size)


def _leak(body: Body, embedded: Float[Tensor, "n hidden"], name: str) -> float | None:
    """Of the derivative of all states but the last, the share that is the last token's; None where the model
    has no derivative (some quantised layers)."""
    try:
        with torch.enable_grad():
            leaf = embedded.detach().clone().requires_grad_()
            (output,) = body.run([Chunk(EMPTY, leaf)])
            states = output.hidden[:-1]
            weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(0))
            value = (states * weights.to(states)).sum()
            (slope,) = torch.autograd.grad(value, leaf)
    except (RuntimeError, NotImplementedError) as error:
        log.warning("%s: whether it is causal is judged by its values alone: %s", name, error)
        return None
    sizes = slope.double().norm(dim=-1)
    return float(sizes[-1] / sizes.norm().clamp_min(1e-300))
