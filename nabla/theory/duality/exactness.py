"""The exact statements of check 5: Prop. C.1, Eq. 25, caching (Algorithm 4) and reuse across positions."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from nabla.core.random import generator
from nabla.core.trajectory import Trajectory
from nabla.engine.engine import Engine
from nabla.engine.gradient.values import TrajectoryGradient
from nabla.engine.session import Session
from nabla.estimators.anchors.base import AnchorPoint
from nabla.estimators.base import Estimator
from nabla.estimators.straight_through import StraightThrough
from nabla.objectives.base import Objective
from nabla.objectives.likelihood import Likelihood
from nabla.objectives.weighted_sum import WeightedSum
from nabla.refinement.dto import DTO
from nabla.schedulers.base import Step
from nabla.theory.problems.text import SequenceSpace, ask
from nabla.theory.report import Findings, fit_order

#: Response of the exactness checks: longer than the enumerated ones, with an end-of-sequence token.
TEXT = (4, 5, 5, 3, 4, 1, 5, 4, 2)


class Uncached(Estimator):
    """An estimator without gradient caching (not registered: a control).

    Args:
        estimator: hard and deterministic; gives the rows and the backward rule.
    """

    hard = True
    stochastic = False

    def __init__(self, estimator: Estimator) -> None:
        super().__init__(estimator.temperature)
        self.estimator = estimator

    def relax(
        self,
        logits: Float[Tensor, "*batch k"],
        *,
        generator: torch.Generator,
        step: Step,
        anchor: AnchorPoint | None,
    ) -> Float[Tensor, "*batch k"]:
        return self.estimator.relax(logits, generator=generator, step=step, anchor=anchor)

    def reusable(self, cached: Float[Tensor, "*batch k"], current: Float[Tensor, "*batch k"]) -> bool:
        return False


def exactness(
    found: Findings,
    space: SequenceSpace,
    objective: Objective,
    estimator: Estimator,
    cached: Estimator,
    tolerance: float,
) -> None:
    """Prop. C.1, Eq. 25, caching, reuse."""
    tokens = torch.tensor(TEXT)
    trajectory = space.trajectory(tokens)
    rows = _rows(space.engine(), space, trajectory, objective)
    space.lm.body.reuse_prefix = space.rm.body.reuse_prefix = False
    plain = _rows(space.engine(reuse_prefixes=False), space, trajectory, objective)
    space.lm.body.reuse_prefix = space.rm.body.reuse_prefix = True
    y = space.one_hot(tokens)
    parts = bidirectional(space, y)
    whole = sum(parts.values(), torch.zeros_like(y))
    scale = float(whole.norm())
    floor = max(float((rows - plain).norm()) / scale, 1e-15)
    found.add(
        "Prop. C.1: nabla's ∂L/∂y = δ_prefix + δ_postfix + λ δ_reward (dense autograd)",
        float((rows - whole).norm()) / scale,
        floor=floor,
        tolerance=tolerance,
        unit="relative",
        detail=", ".join(f"|{k}| = {float(v.norm()):.2f}" for k, v in parts.items()),
    )
    detached = _rows(
        space.engine(), space, trajectory, WeightedSum({"l": 1.0}, {"l": Likelihood(detach_context=True)})
    )
    found.add(
        "Prop. C.1: a detached context leaves δ_prefix = -log π alone",
        float((detached - parts["δ_prefix"]).norm() / parts["δ_prefix"].norm()),
        floor=floor,
        tolerance=tolerance,
        unit="relative",
    )
    found.add(
        "Prop. C.1: δ_postfix vanishes at the last token",
        float(parts["δ_postfix"][-1].abs().max()),
        floor=1e-15,
        tolerance=1e-14,
        unit="nats",
        detail=f"norm {float(parts['δ_postfix'][0].norm()):.2f} at the first",
    )
    _differences(found, space, y, rows)
    _eq25(found, estimator)
    _caching(found, space, trajectory, objective, cached)
    late = [_rows(space.engine(), space, trajectory.commit(k), objective) for k in (1, 4, 8)]
    gap = max(float((own - rows[-len(own) :]).abs().max()) for own in late)
    found.add(
        "reuse: the first position's gradient against a fresh one at positions 1, 4, 8",
        gap / scale,
        floor=floor,
        tolerance=tolerance,
        unit="relative",
    )


def _rows(engine: Engine, space: SequenceSpace, trajectory: Trajectory, objective: Objective) -> Tensor:
    """``∂L/∂y`` by nabla ``[n, V]``."""

    async def method(session: Session) -> Tensor:
        gradient: TrajectoryGradient = await session.gradient(trajectory, objective)
        reference = session.reference(trajectory, slice(trajectory.committed, len(trajectory)))
        total = gradient.total(objective.terms(), Step())
        return session.gradient_rows(gradient, total, reference)

    found: Tensor = ask(engine, space.prompt, method)
    return found


def _differences(found: Findings, space: SequenceSpace, y: Tensor, rows: Tensor) -> None:
    """Central differences of L in a random direction, no autograd: second order in their step."""
    direction = torch.randn(y.shape, generator=generator("directions"), dtype=y.dtype)
    slope = float((rows * direction).sum())
    sizes, errors = (0.01, 0.005, 0.0025, 0.00125), []
    with torch.no_grad():
        for size in sizes:
            pair = [float(relaxed_loss(space, y + s * size * direction, y)) for s in (1, -1)]
            errors.append(abs((pair[0] - pair[1]) / (2 * size) - slope) / abs(slope))
    order = fit_order(sizes, errors, expected=2.0, floor=1e-11)
    found.add(
        "Prop. C.1: directional derivative against central differences, order in their step",
        errors[-1],
        floor=1e-11,
        tolerance=1.5 * errors[0] / 64,
        unit="relative",
        order=order,
    )


def _eq25(found: Findings, estimator: Estimator) -> None:
    draws = generator("eq25")
    z = torch.randn(7, 11, generator=draws, dtype=torch.float64) * 2
    g = torch.randn(7, 11, generator=draws, dtype=torch.float64)
    leaf = z.clone().requires_grad_()
    rows = estimator(leaf, generator=draws)
    (backward,) = torch.autograd.grad((rows * g).sum(), leaf)
    x = torch.exp(z) / torch.exp(z).sum(-1, keepdim=True)
    formula = x * (g - (x * g).sum(-1, keepdim=True))
    found.add(
        "Eq. 25: the estimator's backward pass against x (g - xᵀg)",
        float((backward - formula).abs().max()),
        floor=1e-16,
        tolerance=1e-13,
        unit="absolute",
    )


def _caching(
    found: Findings,
    space: SequenceSpace,
    trajectory: Trajectory,
    objective: Objective,
    cached_estimator: Estimator,
) -> None:
    """Algorithm 4 against recomputation at every step, with a rate at which tokens flip."""
    results = {}
    fresh = Uncached(StraightThrough())
    for label, estimator, kept in (("cached", cached_estimator, 4), ("recomputed", fresh, 0)):
        dto = DTO(estimator=estimator, objective=objective, rows="all", steps=20, learning_rate=0.3)

        async def method(session: Session, dto: DTO = dto) -> tuple[Tensor, int]:
            refinement = await dto.refine(trajectory, session)
            return refinement.logits, refinement.recomputed

        results[label] = ask(space.engine(kept_gradients=kept), space.prompt, method)
    (cached, few), (fresh, many) = results["cached"], results["recomputed"]
    flips = int((cached.argmax(-1) != torch.tensor(TEXT)).sum())
    found.add(
        "caching (Algorithm 4): refined logits with and without it",
        float((cached - fresh).abs().max()),
        floor=1e-15,
        tolerance=1e-12,
        unit="logits",
        detail=f"{few} against {many} gradients in 20 steps, {flips} rows end away from their token",
        doubt=None if few < many and few > 1 else "no token flipped, or nothing was cached",
    )


def bidirectional(
    space: SequenceSpace, y: Float[Tensor, "length vocab"]
) -> dict[str, Float[Tensor, "length vocab"]]:
    """δ_prefix, δ_postfix and λ δ_reward of Prop. C.1, each by its own dense autograd."""
    leaf = y.clone().requires_grad_()
    (reward,) = torch.autograd.grad(space.dense_reward(leaf), leaf)
    leaf = y.clone().requires_grad_()
    (postfix,) = torch.autograd.grad(-(y * space.log_rows(leaf)).sum(), leaf)
    with torch.no_grad():
        prefix = -space.log_rows(y)
    return {"δ_prefix": prefix, "δ_postfix": postfix, "λ δ_reward": -space.weight * reward}


def relaxed_loss(space: SequenceSpace, y: Tensor, hard: Tensor) -> Tensor:
    """L at rows off the simplex, read as the hard text ends."""
    table = space.rm.model.get_input_embeddings().weight.detach()
    parts = [table[space.prompt_ids], y @ table]
    if int(hard[-1].argmax()) != space.eos:
        parts.append(table[[space.eos]])
    reward = space.rm.model(inputs_embeds=torch.cat(parts)[None]).logits[0, 0]
    return -space.weight * reward - (y * space.log_rows(y)).sum()  # type: ignore[no-any-return]
