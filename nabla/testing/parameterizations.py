"""Laws of parameterisations: what the optimiser moves (SPEC section 4)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from nabla.engine.initial_rows import InitialRows
from nabla.refinement.parameterizations.base import Parameterization, parameterizations
from nabla.testing.inputs import INF, seeded
from nabla.testing.laws import MAX_EXAMPLES, Kit, require, require_close, untouched_global_noise
from nabla.testing.optional import st
from nabla.testing.strategies import seeds

kit: Kit[Parameterization] = Kit(parameterizations, "a parameterisation", "check_parameterization")

_HIDDEN, _WIDTH = 4, 6
_rows = st.integers(1, 3)
_masked = st.booleans()


def check_parameterization(
    parameterization: object,
    *,
    laws: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    max_examples: int = MAX_EXAMPLES,
    seed: int = 0,
) -> None:
    """Checks every law of parameterisations.

    Raises ContractError at the first law that is broken; the arguments are
    :func:`nabla.testing.check_estimator`'s.
    """
    kit.check(parameterization, laws=laws, skip=skip, max_examples=max_examples, seed=seed)


def _reference(rows: int, seed: int, masked: bool, dtype: torch.dtype = torch.float64) -> InitialRows:
    """Rows of a head of random weights ``[K, H]``; the second candidate may be forbidden."""
    source = seeded(seed)
    weights = torch.randn(_WIDTH, _HIDDEN, generator=source, dtype=torch.float64)
    hidden = torch.randn(rows, _HIDDEN, generator=source, dtype=torch.float64).to(dtype)
    work = torch.promote_types(dtype, torch.float32)
    blocked = torch.arange(_WIDTH) == (1 if masked else _WIDTH)

    def project(states: Tensor) -> Tensor:
        return (states.to(work) @ weights.T.to(work)).masked_fill(blocked, -INF)

    logits = project(hidden)
    return InitialRows(
        positions=slice(0, rows),
        logits=logits,
        candidates=None,
        chosen=logits.argmax(-1),
        hidden=hidden,
        project=project,
        dropped_mass=torch.zeros(rows, dtype=work),
        normalisers=logits.logsumexp(-1),
    )


def _moved(parameter: Tensor, seed: int, size: float = 0.3) -> Tensor:
    noise = torch.randn(parameter.shape, generator=seeded(seed + 1), dtype=torch.float64)
    return parameter + size * noise.to(parameter)


@kit.law(rows=_rows, seed=seeds, masked=_masked)
def it_starts_at_the_language_models_rows(
    of: Parameterization, rows: int, seed: int, masked: bool
) -> None:
    """``logits(initial(reference), reference)`` are the reference's own: a method that takes no step changes
    nothing."""
    reference = _reference(rows, seed, masked)
    with untouched_global_noise():
        found = of.logits(of.initial(reference), reference)
    require_close(found, reference.logits, "logits before the first step", rtol=1e-9, atol=1e-9)


@kit.law(rows=_rows, seed=seeds, masked=_masked, half=st.booleans())
def the_parameter_is_wide_and_finite(
    of: Parameterization, rows: int, seed: int, masked: bool, half: bool
) -> None:
    """``initial`` has a row each in float32 or wider, whatever the models' dtype, and finite: an optimiser
    loses small steps in half precision and makes NaN of -inf."""
    parameter = of.initial(_reference(rows, seed, masked, torch.bfloat16 if half else torch.float64))
    require(len(parameter) == rows, f"{len(parameter)} rows of the parameter for {rows}")
    require(parameter.dtype in (torch.float32, torch.float64), f"the parameter is {parameter.dtype}")
    require(parameter.isfinite().all(), "the parameter is not finite")


@kit.law(rows=_rows, seed=seeds, masked=_masked)
def the_reference_is_left_as_it_is(of: Parameterization, rows: int, seed: int, masked: bool) -> None:
    """A step in place moves the parameter and nothing else: later steps compare with the reference."""
    reference = _reference(rows, seed, masked)
    before = reference.logits.clone(), reference.hidden.clone()
    with torch.no_grad():
        of.initial(reference).add_(1.0)
    same = torch.equal(reference.logits, before[0]) and torch.equal(reference.hidden, before[1])
    require(same, "the parameter shares memory with the reference: return a clone")


@kit.law(rows=_rows, seed=seeds)
def forbidden_candidates_stay_forbidden(of: Parameterization, rows: int, seed: int) -> None:
    """Wherever the parameter goes, what the language model may not write stays at -inf, and no other
    candidate joins it."""
    reference = _reference(rows, seed, True)
    found = of.logits(_moved(of.initial(reference), seed, 5.0), reference)
    mask = reference.logits == -INF
    require((found[mask] == -INF).all(), "a forbidden candidate got a weight")
    require(found[~mask].isfinite().all(), "an allowed candidate has no finite logit")


@kit.law(rows=st.integers(2, 3), seed=seeds, masked=_masked)
def other_rows_do_not_matter(of: Parameterization, rows: int, seed: int, masked: bool) -> None:
    """A row's logits follow from that row of the parameter."""
    reference = _reference(rows, seed, masked)
    start = of.initial(reference)
    moved = _moved(start, seed)
    moved[1:] = start[1:]
    found, before = of.logits(moved, reference), of.logits(start, reference)
    require_close(found[1:], before[1:], "other rows after the first has moved", rtol=1e-9, atol=1e-9)


@kit.law(rows=_rows, seed=seeds, masked=_masked)
def the_gradient_is_the_slope(of: Parameterization, rows: int, seed: int, masked: bool) -> None:
    """The gradient that reaches the parameter, against differences; nothing is cut off."""
    reference = _reference(rows, seed, masked)
    start = of.initial(reference).double()
    weights = torch.randn(rows, _WIDTH, generator=seeded(seed + 2), dtype=torch.float64)
    direction = torch.randn(start.shape, generator=seeded(seed + 3), dtype=torch.float64)

    def value(parameter: Tensor) -> Tensor:
        z = of.logits(parameter, reference)
        return (z.masked_fill(z == -INF, 0.0) * weights).sum()

    leaf = start.clone().requires_grad_()
    total = value(leaf)
    require(total.requires_grad, "no gradient reaches the parameter")
    (gradient,) = torch.autograd.grad(total, leaf)
    size = 1e-6
    slope = (value(start + size * direction) - value(start - size * direction)) / (2 * size)
    require_close((gradient * direction).sum(), slope.detach(), "slope", rtol=1e-5, atol=1e-6)
