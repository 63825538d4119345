"""What a trace keeps of refined rows: probabilities before and after, KL, parts of the gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nabla.launch.trace.texts import number, numbers

if TYPE_CHECKING:
    from nabla.engine.reports import Refinement

#: Candidates that are written down, the likeliest before and the likeliest after.
SHOWN = 5


def of_rows(refinement: Refinement) -> dict[str, Any]:
    """By row, from the first position on: KL, and the norm of each part of ``∂L/∂y`` that is known."""
    deltas = {f"delta_{name}": numbers(norms.cpu()) for name, norms in refinement.deltas.items()}
    return {"kl": numbers(refinement.kl.cpu()), **deltas}


def candidates(refinement: Refinement, piece: Callable[[int], str]) -> dict[str, Any]:
    """Of the first row, before temperature: the own token, the likeliest ones before and after, each as
    ``[id, piece, probability before, probability after]``."""
    before, after = (
        rows[0].double().softmax(-1).cpu() for rows in (refinement.reference.logits, refinement.logits)
    )
    chosen = int(refinement.reference.chosen[0])
    count = min(SHOWN, len(before))
    columns = [chosen, *before.topk(count).indices.tolist(), *after.topk(count).indices.tolist()]
    ids = refinement.reference.ids(0).cpu()
    rows = [
        [int(ids[c]), piece(int(ids[c])), number(float(before[c]), 3), number(float(after[c]), 3)]
        for c in dict.fromkeys(columns)
    ]
    return {"candidates": rows}


def probabilities(
    refined: tuple[int, Refinement] | None, position: int, old: int, new: int
) -> dict[str, Any]:
    """Of the old and the new token, before and after the refinement of this position; nothing without one."""
    if refined is None or refined[0] != position:
        return {}
    refinement = refined[1]
    ids = refinement.reference.ids(0).cpu().tolist()
    if old not in ids or new not in ids:
        return {}
    before, after = (
        rows[0].double().softmax(-1) for rows in (refinement.reference.logits, refinement.logits)
    )
    pair = [ids.index(old), ids.index(new)]
    return {
        "before": [number(float(before[c]), 3) for c in pair],
        "after": [number(float(after[c]), 3) for c in pair],
    }
