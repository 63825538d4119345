"""Laws of anchors (SPEC section 3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from nabla.estimators.anchors.base import Anchor, anchors
from nabla.testing.inputs import INF, seeded
from nabla.testing.laws import MAX_EXAMPLES, Kit, require, untouched_global_noise
from nabla.testing.strategies import logits, seeds

kit: Kit[Anchor] = Kit(anchors, "an anchor", "check_anchor")


def check_anchor(
    anchor: object,
    *,
    laws: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    max_examples: int = MAX_EXAMPLES,
    seed: int = 0,
) -> None:
    """Checks every law of anchors.

    Raises ContractError at the first law that is broken; the arguments are
    :func:`nabla.testing.check_estimator`'s.
    """
    kit.check(anchor, laws=laws, skip=skip, max_examples=max_examples, seed=seed)


def _inputs(z: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Moved scores, their reference and a usable token per row."""
    noise = torch.randn(z.shape, generator=seeded(seed), dtype=z.dtype)
    chosen = torch.multinomial((z > -INF).double(), 1, generator=seeded(seed))[:, 0]
    return z + noise, z, chosen


@kit.law(z=logits(), seed=seeds)
def one_usable_column_per_row(anchor: Anchor, z: Tensor, seed: int) -> None:
    """``index`` gives an integer per row, in range and not masked."""
    scores, reference, chosen = _inputs(z, seed)
    found: Any = anchor.index(scores, reference, chosen)
    require(isinstance(found, Tensor) and not found.is_floating_point(), f"index returned {found!r}")
    require(found.shape == chosen.shape, f"{tuple(found.shape)} columns for {len(chosen)} rows")
    require(((found >= 0) & (found < z.shape[-1])).all(), f"columns {found.tolist()} of {z.shape[-1]}")
    require((scores.gather(-1, found.unsqueeze(-1)) > -INF).all(), "a masked column")


@kit.law(z=logits(min_rows=2), seed=seeds)
def other_rows_do_not_matter(anchor: Anchor, z: Tensor, seed: int) -> None:
    """A row's token depends on that row alone; nothing is drawn from the global generator."""
    scores, reference, chosen = _inputs(z, seed)
    with untouched_global_noise():
        whole = anchor.index(scores, reference, chosen)
        first = anchor.index(scores[:1], reference[:1], chosen[:1])
    require(torch.equal(whole[:1], first), f"column {whole[0]} in a batch, {first[0]} alone")


@kit.law(z=logits(), seed=seeds)
def the_anchor_follows_far_moves(anchor: Anchor, z: Tensor, seed: int) -> None:
    """Where refinement puts all weight on one candidate, the hard token is that one."""
    _, reference, chosen = _inputs(z, seed)
    target = torch.multinomial((z > -INF).double(), 1, generator=seeded(seed + 1))
    scores = reference.scatter(-1, target, 1e6)
    was_there = reference.argmax(-1, keepdim=True) == target
    found = anchor.index(scores, reference, chosen).unsqueeze(-1)
    require(((found == target) | was_there).all(), "it stays where no weight is left")
