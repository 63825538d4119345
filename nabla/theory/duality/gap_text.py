"""Check 6 on text: the straight-through bias, and what each acceptance rule samples."""

from __future__ import annotations

import torch

from nabla.core.random import generator
from nabla.core.sampling import Sampling
from nabla.estimators.base import Estimator
from nabla.theory.distances import total_variation
from nabla.theory.duality.exactness import relaxed_loss
from nabla.theory.duality.text import sampler_dto
from nabla.theory.figures import Line, Panel
from nabla.theory.flows.sequence import (
    Kernels,
    always_rule,
    metropolis_rule,
    refined_proposals,
    strict_rule,
)
from nabla.theory.problems.text import SequenceSpace
from nabla.theory.report import Findings, fit_order


def straight_through(
    found: Findings, space: SequenceSpace, estimator: Estimator, shrink: tuple[float, ...]
) -> Panel:
    """The straight-through gradient of row 0 against the exact gradient of the expected loss.

    Both for the loss seen at a distance ε from the hard text, ``f_ε(v) = [L(y + ε(e_v - y)) - L(y)]/ε``:
    at ε = 1 it is the text's own loss, as ε → 0 the loss becomes linear, where the estimator is exact.
    """
    tokens = max(space.responses, key=lambda y: float(space.target[space.index[tuple(y.tolist())]]) * len(y))
    y = space.one_hot(tokens)
    leaf = y.clone().requires_grad_()
    (g,) = torch.autograd.grad(relaxed_loss(space, leaf, y), leaf)
    with torch.no_grad():
        z = space.log_rows(y)[:1]
    logits = z.clone().requires_grad_()
    rows = estimator(logits, generator=generator("ste"))
    (estimate,) = torch.autograd.grad((rows * g[:1]).sum(), logits)
    p = z[0].softmax(-1)

    def exact(epsilon: float) -> torch.Tensor:
        losses = []
        with torch.no_grad():
            base = relaxed_loss(space, y, y)
            for v in range(space.vocabulary):
                moved = y.clone()
                moved[0] += epsilon * (torch.eye(space.vocabulary, dtype=y.dtype)[v] - y[0])
                losses.append((relaxed_loss(space, moved, y) - base) / epsilon)
        f = torch.stack(losses)
        return p * (f - (p * f).sum())

    errors = [float((estimate[0] - e).norm() / e.norm()) for e in map(exact, shrink)]
    whole = exact(1.0)
    bias = float((estimate[0] - whole).norm() / whole.norm())
    cosine = float(torch.cosine_similarity(estimate[0], whole, dim=0))
    order = fit_order(shrink, errors, expected=1.0, floor=1e-9)
    found.add(
        "straight-through: relative bias of the row's gradient, order in the distance ε",
        errors[-1],
        floor=1e-9,
        tolerance=1.5 * errors[0] * shrink[-1] / shrink[0],
        unit="relative",
        order=order,
        detail=f"on the text itself (ε = 1): bias {bias:.2f}, cosine {cosine:.2f}",
    )
    x, values = (1.0, *shrink), (bias, *errors)
    return Panel(
        "Straight-through bias", "ε (1 = text)", "relative bias", (Line("", x, values, "o-"),), True, True
    )


def acceptance_rules(found: Findings, space: SequenceSpace) -> Panel:
    """TV from ``π e^{λr}`` of exact sweeps, by acceptance rule."""
    sampling = Sampling(temperature=1.0, max_new_tokens=space.length)
    tables = refined_proposals(space, sampler_dto(space), sampling)
    start, target = space.log_pi.exp().numpy(), space.target.numpy()
    sweeps = (0, 1, 2, 4, 8, 16, 32)
    lines, ends = [], {}
    for label, rule, corrected in (
        ("Metropolis, corrected", metropolis_rule(space), True),
        ("Metropolis, as it is", metropolis_rule(space), False),
        ("strict (the paper's)", strict_rule(space), False),
        ("always", always_rule(space), False),
    ):
        kernels = Kernels(space, tables, rule, corrected=corrected)
        values = [total_variation(kernels.sweep(start, n), target) for n in sweeps]
        ends[label] = values
        lines.append(Line(label, tuple(float(n) for n in sweeps), tuple(values), "o-"))
    corrected_end = ends["Metropolis, corrected"][-1]
    others = min(values[-1] for label, values in ends.items() if label != "Metropolis, corrected")
    found.add(
        "text: TV after 32 exact sweeps, corrected Metropolis",
        corrected_end,
        floor=1e-12,
        tolerance=0.01,
        unit="TV",
        detail=", ".join(f"{k}: {v[1]:.3f} → {v[-1]:.3f}" for k, v in ends.items()),
        doubt=None if others > 10 * corrected_end else "the other rules are not resolved from it",
    )
    return Panel("Text: TV by acceptance rule", "sweeps", "TV from π exp(λr)", tuple(lines))
