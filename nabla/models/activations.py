"""What a forward pass keeps for its way back, in bytes, before it runs."""

from __future__ import annotations

from nabla.models.body import Body


def graph_bytes(body: Body, rows: int, tokens: int, context: int) -> int:
    """Bytes that the graph of a pass keeps until it is differentiated, its padding included.

    The weights are frozen, so that a linear map keeps nothing: what is kept are the operands of the rest,
    that is the results of the linear maps (one number for each ``hidden`` active weights and token), the
    inputs of two norms per layer (in float32 at least), and the keys and values that each layer attends to,
    once per head. Attention that is written out keeps its probabilities as well. An estimate, within a
    quarter of what torch keeps for the decoders that are tested; fused kernels keep less.

    Args:
        body: that runs.
        rows: of the padded batch.
        tokens: of its longest row that are run.
        context: of its deepest row that are attended to only.
    """
    size, layers = body.dtype.itemsize, body.layers
    norms = 2 * layers * body.hidden_size * max(size, 4)
    if body.checkpoint:  # the layers' inputs alone
        return rows * tokens * layers * body.hidden_size * size
    attended = 2 * layers * body.attention_width * (tokens + context) * size
    if getattr(body.config, "_attn_implementation", None) == "eager":
        heads = int(getattr(body.config, "num_attention_heads", 1))
        attended += 2 * heads * layers * tokens * (tokens + context) * size
    return rows * (tokens * (norms + _maps(body)) + attended)


def _maps(body: Body) -> int:
    """Bytes of the linear maps' results, per token."""
    return body.active_parameters // body.hidden_size * body.dtype.itemsize
