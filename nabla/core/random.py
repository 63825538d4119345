"""Explicit randomness: keys derived from names, generators from keys, and a stateless Gumbel field.

Nothing here depends on the order in which problems run, on the batch a row lands in, or on the
device: the noise of one token is a pure function of (key, position, token id). That makes batched
rollouts reproducible row by row, and lets the coupled proposal look up the very noise that the
rollout was sampled with (SPEC sections 3 and 9).
"""

from __future__ import annotations

import hashlib
import numbers

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.errors import ConfigError


def derive_key(*parts: object) -> int:
    """A 63-bit key from a sequence of names, stable across processes and platforms.

    A part is a str, bytes, int, float, bool or None; numpy's numbers count as Python's. Raises
    ConfigError for anything else: its ``repr`` might name a memory address.
    """
    names = tuple(_stable(part) for part in parts)
    digest = hashlib.blake2b(repr(names).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _stable(part: object) -> object:
    if part is None or isinstance(part, bool | bytes):
        return part
    if isinstance(part, str):
        return str(part)
    if isinstance(part, numbers.Integral):  # numpy's too, whose repr depends on its version
        return int(part)
    if isinstance(part, float):
        return float(part)
    raise ConfigError(
        "A random key is derived from texts and numbers alone",
        got=part,
        fix="Pass a str, bytes, int, float, bool or None.",
    )


def generator(*parts: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator seeded by :func:`derive_key`."""
    return torch.Generator(device=device).manual_seed(derive_key(*parts))


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser (Steele et al., OOPSLA 2014) on int64 tensors, wrapping arithmetic."""
    x = (x ^ _shift(x, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    x = (x ^ _shift(x, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift (torch's is arithmetic)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def gumbel(
    keys: Int[Tensor, " *batch"], positions: Int[Tensor, " *batch"], tokens: Int[Tensor, "*any"]
) -> Float[Tensor, "*out"]:
    """Standard Gumbel noise of tokens at positions under keys, as a pure function (float32).

    ``keys`` and ``positions`` (one per row) are broadcast against ``tokens`` with one trailing axis
    added: keys ``[B]`` and tokens ``[V]`` or ``[B, V]`` give ``[B, V]``. Any integer dtype; all
    three on one device.
    """
    keys, positions, tokens = keys.long(), positions.long(), tokens.long()
    golden = -7046029254386353131  # 0x9E3779B97F4A7C15, SplitMix64's increment
    row = _mix(keys + (positions + 1) * golden)
    bits = _mix(row.unsqueeze(-1) + (tokens + 1) * golden)
    # 53 uniform bits, never 0; -log1p(-u) keeps its resolution where the noise is largest.
    uniform = (_shift(bits, 11).double() + 0.5) * 2.0**-53
    exponential = -torch.log1p(-uniform.float().clamp(max=1 - 2**-24))
    return -torch.log(exponential)


def gumbel_like(logits: Float[Tensor, "*batch k"], generator: torch.Generator) -> Float[Tensor, "*batch k"]:
    """Standard Gumbel noise of the logits' shape, drawn on the generator's device."""
    exponential = torch.empty(logits.shape, dtype=logits.dtype, device=generator.device)
    exponential.exponential_(generator=generator)
    tiny = torch.finfo(logits.dtype).tiny
    return -exponential.clamp_min(tiny).log().to(logits.device)


def conditional_gumbel(
    logits: Float[Tensor, "*batch k"], chosen: Int[Tensor, "*batch"], generator: torch.Generator
) -> Float[Tensor, "*batch k"]:
    """Gumbel noise g given ``argmax(z + g) = chosen`` (top-down construction, arXiv 1411.0030, sec. 2).

    The maximum of ``z + g`` is Gumbel around ``logsumexp z``, whichever candidate attains it; the others
    are Gumbels around their logits, truncated at that maximum. Zero at masked candidates.
    """
    logits, at = logits.detach(), chosen.unsqueeze(-1)
    top = logits.logsumexp(-1, keepdim=True) + gumbel_like(logits[..., :1], generator)
    free = logits + gumbel_like(logits, generator)
    below = -torch.logaddexp(-free, -top)
    noise = below.scatter(-1, at, top) - logits
    return noise.masked_fill(logits == float("-inf"), 0.0)
