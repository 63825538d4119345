"""The parts of ``∂L/∂y`` at the rows of a refinement, for listeners (arXiv 2603.04948, Prop. C.1).

They are read off the rows that the descent has formed in any case: no model runs for them, nothing is drawn.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from nabla.objectives.likelihood import Likelihood
from nabla.refinement.directions import Gradient
from nabla.refinement.task import Group, Heard, Parts
from nabla.schedulers.base import Step


@torch.no_grad()
def deltas(parts: Parts, group: Group, heard: Heard, step: Step) -> dict[str, Float[Tensor, " rows"]]:
    """Norms of the parts per joint row, each with its term's weight, without the component along the constant
    vector, which has no effect through a softmax.

    "prefix" is ``-log π(.|y_<i)`` itself, "postfix" what is left of the likelihood's row, "reward" that
    of all reward terms. A part that was not computed is not there: with value feedback and along another
    direction than the gradient there is none, with a detached context no "postfix".
    """
    if not heard.rows or any(type(task.direction) is not Gradient for task in group.tasks):
        return {}
    found: dict[str, Tensor] = {}
    logits = group.joint.logits
    allowed = logits > float("-inf")
    for term in parts.trajectory_terms:
        rows, weight = heard.rows.get(term.name), term.weight(step)
        if rows is None:
            continue
        if isinstance(term.objective, Likelihood):
            prefix = -logits.masked_fill(~allowed, 0.0)  # log π up to a constant
            found["prefix"] = weight * prefix
            if not term.objective.detach_context:
                found["postfix"] = weight * (rows - prefix)
        elif term.objective.needs_reward and not term.objective.needs_likelihood:
            found["reward"] = found.get("reward", 0.0) + weight * rows
    return {name: _centred(rows, allowed) for name, rows in found.items()}


def _centred(rows: Tensor, allowed: Tensor) -> Float[Tensor, " rows"]:
    """Norm of each row over what may be written, its mean taken off."""
    rows = rows.masked_fill(~allowed, 0.0)
    count = allowed.sum(-1, keepdim=True).clamp_min(1)
    mean = rows.sum(-1, keepdim=True) / count
    norms: Tensor = torch.linalg.vector_norm((rows - mean).masked_fill(~allowed, 0.0), dim=-1)
    return norms
