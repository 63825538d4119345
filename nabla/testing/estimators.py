"""Laws of gradient estimators (SPEC section 3)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from nabla.estimators.anchors.argmax import ArgmaxAnchor
from nabla.estimators.anchors.base import AnchorPoint
from nabla.estimators.anchors.rollout import RolloutAnchor
from nabla.estimators.base import Estimator, closed_form, estimators
from nabla.schedulers.base import Step, as_schedule
from nabla.schedulers.linear import Linear
from nabla.testing.inputs import DISTINCT, INF, follows, make_logits, seeded
from nabla.testing.laws import MAX_EXAMPLES, Kit, Law, require, require_close, untouched_global_noise
from nabla.testing.optional import st
from nabla.testing.strategies import logits, seeds

kit: Kit[Estimator] = Kit(estimators, "an estimator", "check_estimator")

_BOTH = (torch.float32, torch.float64)
#: Draws of the statistical law.
_DRAWS = 20_000


def check_estimator(
    estimator: object,
    *,
    surrogate: Callable[[Tensor], Tensor] | None = None,
    laws: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    max_examples: int = MAX_EXAMPLES,
    seed: int = 0,
) -> None:
    """Checks every law that an estimator declares.

    Args:
        estimator: an instance, or a class that needs no arguments.
        surrogate: closed form of a function whose derivative is the backward rule, for deterministic
            estimators; besides the one that the class declares as ``surrogate``.
        laws: names of the only ones to check.
        skip: names of those not to check.
        max_examples: per law.
        seed: of the examples.

    Raises ContractError at the first law that is broken.
    """
    extra = () if surrogate is None else (backward_is(surrogate),)
    kit.check(estimator, laws=laws, skip=skip, max_examples=max_examples, seed=seed, extra=extra)


# -- what a component declares ---------------------------------------------------------------------


def _hard(estimator: Estimator) -> bool:
    return estimator.hard


def _soft(estimator: Estimator) -> bool:
    return not estimator.hard


def _deterministic(estimator: Estimator) -> bool:
    return not estimator.stochastic


def _stochastic(estimator: Estimator) -> bool:
    return estimator.stochastic


def _surrogate(estimator: Estimator, z: Tensor, seed: int) -> Tensor | None:
    return estimator.surrogate(z, generator=seeded(seed), step=Step())


def _declares_backward(estimator: Estimator) -> bool:
    return not estimator.hard or _surrogate(estimator, torch.zeros(1, 2), 0) is not None


def _ignores_constants(estimator: Estimator) -> bool:
    """The backward rule is that of a function of differences of logits, as any softmax is."""
    z = make_logits("normal", 2, 3, 0, torch.float64, False)
    plain, shifted = _surrogate(estimator, z, 0), _surrogate(estimator, z + 1.0, 0)
    return plain is None or shifted is None or torch.allclose(plain, shifted)


# -- helpers ---------------------------------------------------------------------------------------


def _rows(estimator: Estimator, z: Tensor, seed: int = 0, **arguments: Any) -> Tensor:
    with torch.no_grad():
        return estimator(z.clone(), generator=seeded(seed), **arguments)


def _pull_back(estimator: Estimator, z: Tensor, cotangent: Tensor, seed: int = 0, **arguments: Any) -> Tensor:
    """The gradient that ``cotangent`` on the rows becomes on the logits."""
    leaf = z.clone().requires_grad_()
    rows = estimator(leaf, generator=seeded(seed), **arguments)
    values = (rows.detach() * cotangent).sum(-1)  # of the objective Σ y·cotangent, each row for itself
    loss = estimator.loss(leaf, rows, cotangent if estimator.feedback == "gradient" else values)
    require(loss.requires_grad, "no gradient reaches the logits: the rows are cut off from them")
    (found,) = torch.autograd.grad(loss, leaf, allow_unused=True)
    require(found is not None, "no gradient reaches the logits: the rows do not depend on them")
    return found


def _cotangent(z: Tensor, seed: int) -> Tensor:
    return torch.randn(z.shape, generator=seeded(seed + 1), dtype=torch.float64).to(z.dtype)


def _at_temperature(estimator: Estimator, temperature: Any) -> Estimator:
    """The same settings at another temperature, inside wrappers too."""
    changed = copy.copy(estimator)
    for name, value in vars(estimator).items():
        if isinstance(value, Estimator):
            setattr(changed, name, _at_temperature(value, temperature))
    changed.temperature = as_schedule(temperature)
    return changed


def _any_token(reference: Tensor, seed: int) -> Tensor:
    """A usable token per row, as a rollout may have drawn it: seldom the argmax."""
    return torch.multinomial((reference > -INF).double(), 1, generator=seeded(seed))[:, 0]


# -- the value -------------------------------------------------------------------------------------


@kit.law(z=logits(dtypes=_BOTH), seed=seeds)
def shape_and_dtype_are_kept(estimator: Estimator, z: Tensor, seed: int) -> None:
    """``relax`` returns a tensor of the logits' shape, dtype and device, for any leading axes; with several
    ``draws`` they are one more leading axis (SPEC section 3)."""
    for given in (z, z.unsqueeze(0), z[0]):
        rows: Any = estimator.relax(given.clone(), generator=seeded(seed), step=Step(), anchor=None)
        require(isinstance(rows, Tensor), f"relax returned a {type(rows).__name__}, not a tensor")
        wanted = given.shape if estimator.draws == 1 else (estimator.draws, *given.shape)
        require(
            rows.shape == wanted,
            f"logits of shape {tuple(given.shape)} gave rows of shape {tuple(rows.shape)}",
        )
        require(rows.dtype == given.dtype, f"logits of {given.dtype} gave rows of {rows.dtype}")
        require(rows.device == given.device, f"logits on {given.device} gave rows on {rows.device}")


@kit.law(applies=lambda _: torch.cuda.is_available())
def rows_stay_on_the_device(estimator: Estimator) -> None:
    """Logits on an accelerator, with a CPU generator: rows and gradient are there too."""
    z = make_logits("normal", 2, 5, 0, torch.float32, True)
    there = z.cuda().requires_grad_()
    rows = estimator(there, generator=seeded())
    require(rows.device == there.device, f"logits on {there.device} gave rows on {rows.device}")
    require_close(rows.detach().cpu(), _rows(estimator, z), "rows on the accelerator", rtol=1e-4, atol=1e-5)
    (found,) = torch.autograd.grad(rows.sum(), there)
    require(found.device == there.device, "the gradient is on another device")


@kit.law(z=logits(dtypes=_BOTH), seed=seeds)
def rows_are_on_the_simplex(estimator: Estimator, z: Tensor, seed: int) -> None:
    """Rows are finite and not negative, and sum to one, at any finite logits (SPEC section 1)."""
    rows = _rows(estimator, z, seed)
    require(torch.isfinite(rows).all(), f"a row has the entry {_first(rows[~torch.isfinite(rows)])}")
    require((rows >= 0).all(), f"a row has the negative entry {float(rows.min()):.3g}")
    eps = 1e-5 if z.dtype == torch.float32 else 1e-9
    require_close(rows.sum(-1), torch.ones_like(rows[..., 0]), "sum of a row", rtol=0, atol=eps)


@kit.law(applies=_hard, z=logits(dtypes=_BOTH), seed=seeds)
def hard_rows_are_exactly_one_hot(estimator: Estimator, z: Tensor, seed: int) -> None:
    """A hard estimator's rows are one-hot to the last bit, with and without a graph (arXiv 1308.3432)."""
    for given in (z, z.clone().requires_grad_()):
        rows = estimator(given, generator=seeded(seed)).detach()
        require(
            torch.equal(rows, one_hot(rows.argmax(-1), z.shape[-1]).to(rows)),
            f"declared hard, but a row's largest entry is {float(rows.amax(-1).min())!r} "
            f"and its others sum to {float((rows.sum(-1) - rows.amax(-1)).abs().max())!r}",
        )


@kit.law(applies=lambda e: e.hard and not e.stochastic, z=logits(kinds=DISTINCT), seed=seeds)
def a_deterministic_hard_row_is_the_argmax(estimator: Estimator, z: Tensor, seed: int) -> None:
    """Without noise and anchor a hard row stands at the argmax of the logits (SPEC section 3)."""
    found, expected = _rows(estimator, z, seed).argmax(-1), z.argmax(-1)
    require(torch.equal(found, expected), f"columns {found.tolist()} instead of {expected.tolist()}")


@kit.law(applies=lambda e: e.hard and e.feedback == "gradient", z=logits(), seed=seeds)
def unrefined_rows_stand_at_the_rollouts_tokens(estimator: Estimator, z: Tensor, seed: int) -> None:
    """Anchored at the rollout, the hard token is the rollout's while the logits are unchanged; with the
    argmax anchor the rows are those without an anchor (SPEC section 3)."""
    chosen = _any_token(z, seed)
    rows = _rows(estimator, z, seed, anchor=AnchorPoint(RolloutAnchor(), z, chosen))
    found = rows.argmax(-1).tolist()
    require(found == chosen.tolist(), f"columns {found} instead of the rollout's {chosen.tolist()}")
    anchored = _rows(estimator, z, seed, anchor=AnchorPoint(ArgmaxAnchor(), z, chosen))
    require(torch.equal(anchored, _rows(estimator, z, seed)), "the argmax anchor changes the rows")


@kit.law(z=logits(kinds=("normal", "uniform", "one-hot")), seed=seeds, eighths=st.integers(-400, 400))
def a_constant_added_to_a_row_changes_nothing(
    estimator: Estimator, z: Tensor, seed: int, eighths: int
) -> None:
    """``y(z + c) = y(z)``: logits are defined up to a constant per row."""
    shifted = _rows(estimator, z + eighths / 8, seed)
    require_close(shifted, _rows(estimator, z, seed), f"rows after adding {eighths / 8}", rtol=1e-6)


@kit.law(applies=_deterministic, z=logits(kinds=DISTINCT), seed=seeds)
def the_order_of_candidates_does_not_matter(estimator: Estimator, z: Tensor, seed: int) -> None:
    """Permuted columns give permuted rows and gradients: an estimator never knows the vocabulary."""
    order = torch.randperm(z.shape[-1], generator=seeded(seed))
    rows = _rows(estimator, z)
    require_close(_rows(estimator, z[:, order]), rows[:, order], "rows of permuted columns")
    cotangent = _cotangent(z, seed)
    found = _pull_back(estimator, z[:, order], cotangent[:, order])
    require_close(found, _pull_back(estimator, z, cotangent)[:, order], "gradient of permuted columns")


@kit.law(z=logits(dtypes=_BOTH, min_rows=2), seed=seeds)
def other_rows_do_not_matter(estimator: Estimator, z: Tensor, seed: int) -> None:
    """A row's value and gradient depend on its own logits and noise, not on what else is in the batch."""
    other = z.clone()
    other[1:] = torch.where(z[1:] > -INF, 3.0 - z[1:], z[1:])
    cotangent = _cotangent(z, seed)
    pairs = [
        ("first row", _rows(estimator, other, seed)[..., 0, :], _rows(estimator, z, seed)[..., 0, :]),
        (
            "gradient of the first row",
            _pull_back(estimator, other, cotangent, seed)[0],
            _pull_back(estimator, z, cotangent, seed)[0],
        ),
    ]
    for what, changed, plain in pairs:
        require_close(changed, plain, f"{what}, after a change in other rows", rtol=1e-5, atol=1e-6)


@kit.law(applies=_deterministic, z=logits(dtypes=_BOTH, min_rows=2), seed=seeds)
def a_rows_place_does_not_matter(estimator: Estimator, z: Tensor, seed: int) -> None:
    """A row gives the same alone, in a batch, and at any position of it."""
    rows, cotangent = _rows(estimator, z), _cotangent(z, seed)
    alone = torch.cat([_rows(estimator, row.unsqueeze(0)) for row in z])
    require_close(rows, alone, "rows in a batch against alone", rtol=1e-5, atol=1e-6)
    require_close(_rows(estimator, z.flip(0)).flip(0), rows, "rows in reverse order", rtol=1e-5, atol=1e-6)
    found = _pull_back(estimator, z.flip(0), cotangent.flip(0)).flip(0)
    plain = _pull_back(estimator, z, cotangent)
    require_close(found, plain, "gradient in reverse order", rtol=1e-5, atol=1e-6)


# -- noise and state -------------------------------------------------------------------------------


@kit.law(z=logits(dtypes=_BOTH), seed=seeds)
def the_generator_decides_everything(estimator: Estimator, z: Tensor, seed: int) -> None:
    """Equal generators give equal rows and gradients; no draw from torch's global one (SPEC section 9)."""
    cotangent = _cotangent(z, seed)
    with untouched_global_noise():
        first = _rows(estimator, z, seed)
        require(torch.equal(first, _rows(estimator, z, seed)), "equal generators gave different rows")
        gradients = [_pull_back(estimator, z, cotangent, seed) for _ in range(2)]
        require(torch.equal(*gradients), "equal generators gave different gradients")
        with_graph = estimator(z.clone().requires_grad_(), generator=seeded(seed)).detach()
        require(torch.equal(first, with_graph), "rows differ with and without a graph")


@kit.law()
def it_is_noisy_as_declared(estimator: Estimator) -> None:
    """``stochastic`` says whether rows or gradients depend on the generator (SPEC Algorithm 4)."""
    z = make_logits("uniform", 8, 9, 0, torch.float64, False)
    same = torch.equal(_rows(estimator, z, 0), _rows(estimator, z, 1)) and torch.equal(
        _pull_back(estimator, z, _cotangent(z, 0), 0), _pull_back(estimator, z, _cotangent(z, 0), 1)
    )
    require(
        same != estimator.stochastic,
        f"declared stochastic={estimator.stochastic}, but two generators gave "
        f"{'equal' if same else 'different'} rows or gradients",
    )


@kit.law(z=logits(), other=logits(), seed=seeds)
def it_keeps_no_state(estimator: Estimator, z: Tensor, other: Tensor, seed: int) -> None:
    """Settings only: a call gives the same whatever was asked before, and leaves its inputs as they were."""
    fresh = copy.deepcopy(estimator)
    same_shape = torch.where(z > -INF, 1.0 - z, z)
    for before in (other, same_shape):
        _rows(estimator, before, seed)
    kept = z.clone()
    rows = estimator(z, generator=seeded(seed)).detach()
    require(torch.equal(z, kept), "it changes the logits it is given")
    require(torch.equal(rows, _rows(fresh, z, seed)), "earlier calls change the rows")


@kit.law(applies=_stochastic)
def draws_follow_the_softmax(estimator: Estimator) -> None:
    """The largest entry of a noisy row follows ``softmax(z)``: the Gumbel-max law (arXiv 1611.01144); χ² test
    with false-alarm rate 1e-4."""
    for values in ([1.0, 0.0, -1.5, 2.0, -INF, 0.3], [0.0, 0.1, 0.2, 0.0, 0.1, -3.0]):
        z = torch.tensor(values, dtype=torch.float64)
        draws = _rows(estimator, z.expand(_DRAWS, -1), 7).argmax(-1).flatten()
        shares = (torch.bincount(draws, minlength=len(z)) / len(draws)).tolist()
        law = z.softmax(-1)
        require(
            follows(draws, law),
            f"shares {[round(s, 3) for s in shares]} instead of {[round(p, 3) for p in law.tolist()]}",
        )


# -- the gradient ----------------------------------------------------------------------------------


@kit.law(z=logits(dtypes=_BOTH), seed=seeds)
def gradients_are_finite_at_extremes(estimator: Estimator, z: Tensor, seed: int) -> None:
    """Ties, ±1e4, nearly one-hot and nearly uniform rows: the gradient is finite, of the logits' dtype."""
    found = _pull_back(estimator, z, _cotangent(z, seed), seed)
    require(
        torch.isfinite(found).all(), f"the gradient has the entry {_first(found[~torch.isfinite(found)])}"
    )
    require(found.dtype == z.dtype, f"logits of {z.dtype} got a gradient of {found.dtype}")


@kit.law(z=logits(dtypes=_BOTH, masked=True), seed=seeds)
def masked_candidates_get_nothing(estimator: Estimator, z: Tensor, seed: int) -> None:
    """Candidates with logit -inf have weight zero and gradient zero, exactly."""
    masked = z == -INF
    weights = _rows(estimator, z, seed).masked_fill(~masked, 0.0)
    require((weights == 0).all(), f"a masked candidate has weight {_first(weights[weights != 0])}")
    found = _pull_back(estimator, z, _cotangent(z, seed), seed)
    require(
        (found[masked] == 0).all(), f"a masked candidate has gradient {_first(found[masked & (found != 0)])}"
    )


@kit.law(
    applies=_declares_backward,
    z=logits(kinds=("normal", "uniform", "one-hot")),
    seed=seeds,
)
def backward_is_the_declared_rule(estimator: Estimator, z: Tensor, seed: int) -> None:
    """The gradient is the derivative of the declared ``surrogate``; of the rows themselves (by central
    differences, float64) for a soft estimator without one (SPEC section 3)."""
    free = z > -INF
    jitter = 0.1 * torch.randn(z.shape, generator=seeded(seed), dtype=z.dtype)  # away from kinks
    z = torch.where(free, z + jitter, z)
    cotangent = _cotangent(z, seed)
    found = _pull_back(estimator, z, cotangent, seed)
    leaf = z.clone().requires_grad_()
    declared = _surrogate(estimator, leaf, seed)
    if declared is not None:
        (expected,) = torch.autograd.grad(declared, leaf, cotangent)
        expected = expected.masked_fill(~free, 0.0)
        require_close(found, expected, "gradient against the declared surrogate's", rtol=1e-7, atol=1e-10)
        return
    direction = torch.randn(z.shape, generator=seeded(seed + 2), dtype=z.dtype).masked_fill(~free, 0.0)
    size = 1e-6
    ahead, behind = (_rows(estimator, z + s * size * direction, seed) for s in (1, -1))
    slope = ((ahead - behind) * cotangent).sum(-1) / (2 * size)
    require_close(
        (found * direction).sum(-1), slope, "slope by the gradient against differences", rtol=1e-4, atol=1e-7
    )


def _has_closed_form(estimator: Estimator) -> bool:
    return closed_form(estimator) is not None


@kit.law(applies=_has_closed_form, z=logits(masked=True), seed=seeds)
def the_closed_form_is_the_gradient(estimator: Estimator, z: Tensor, seed: int) -> None:
    """``pull_back`` gives what autograd makes of ``relax`` and ``loss``, at any step of a schedule."""
    assert estimator.pull_back is not None
    cotangent, step = _cotangent(z, seed), Step(1, 3)
    warm = _at_temperature(estimator, Linear(2.0, 0.5))
    for made, at in ((estimator, Step()), (warm, step)):
        assert made.pull_back is not None
        found = made.pull_back(z, cotangent, at)
        require_close(found, _pull_back(made, z, cotangent, seed, step=at), "closed form", atol=1e-9)


@kit.law(applies=_ignores_constants, z=logits(), seed=seeds)
def gradients_of_a_row_sum_to_zero(estimator: Estimator, z: Tensor, seed: int) -> None:
    """A softmax-type backward rule moves no constant: ``Σ_k ∂L/∂z_k = 0`` per row (arXiv 2603.04948, Eq. 25).

    A rule that is meant to be none (identity) declares its ``surrogate``.
    """
    found = _pull_back(estimator, z, _cotangent(z, seed), seed)
    require_close(found.sum(-1), torch.zeros_like(found[..., 0]), "sum of a row's gradient", atol=1e-7)


def backward_is(surrogate: Callable[[Tensor], Tensor]) -> Law:
    """The law that the gradient is the derivative of ``surrogate(logits)``, for a deterministic estimator."""

    def backward_is_the_given_closed_form(estimator: Estimator, z: Tensor, seed: int) -> None:
        """The gradient is the derivative of the surrogate that was passed to the check."""
        cotangent, leaf = _cotangent(z, seed), z.clone().requires_grad_()
        (expected,) = torch.autograd.grad(surrogate(leaf), leaf, cotangent)
        found = _pull_back(estimator, z, cotangent, seed)
        require_close(found, expected.masked_fill(z == -INF, 0.0), "gradient", rtol=1e-7, atol=1e-10)

    return kit.make(
        backward_is_the_given_closed_form, z=logits(kinds=("normal", "uniform", "one-hot")), seed=seeds
    )


# -- temperature and caching -----------------------------------------------------------------------


@kit.law(applies=_soft, z=logits(kinds=("normal", "extreme", "one-hot")), seed=seeds)
def temperature_has_its_limits(estimator: Estimator, z: Tensor, seed: int) -> None:
    """τ → 0 gives one-hot rows at the largest entry, τ → ∞ rows uniform over the candidates that the
    estimator keeps (arXiv 1611.01144, section 2)."""
    plain = _rows(_at_temperature(estimator, 1.0), z, seed)
    cold = _rows(_at_temperature(estimator, 1e-9), z, seed)
    require(
        (cold.amax(-1) > 1 - 1e-6).all(), f"τ = 1e-9: the largest entry is {float(cold.amax(-1).min()):.4g}"
    )
    require(
        (plain.gather(-1, cold.argmax(-1, keepdim=True)) >= plain.amax(-1, keepdim=True) - 1e-9).all(),
        "τ = 1e-9: the largest entry is not the one at τ = 1",
    )
    hot = _rows(_at_temperature(estimator, 1e9), z, seed)
    reached = hot > 0
    uniform = reached.double() / reached.sum(-1, keepdim=True)
    require_close(hot, uniform, "τ = 1e9: a row against the uniform one", rtol=1e-3, atol=1e-4)
    require((reached | (plain < 1e-9)).all(), "τ = 1e9: a candidate has no weight that has some at τ = 1")


@kit.law(z=logits(kinds=("normal",), masked=False), seed=seeds)
def the_temperature_follows_its_schedule(estimator: Estimator, z: Tensor, seed: int) -> None:
    """At a step the temperature is the schedule's value: rows and gradients are those of that number."""
    step, cotangent = Step(1, 3), _cotangent(z, seed)
    annealed, fixed = _at_temperature(estimator, Linear(2.0, 0.5)), _at_temperature(estimator, 1.25)
    require_close(_rows(annealed, z, seed, step=step), _rows(fixed, z, seed), "rows at a step")
    found = _pull_back(annealed, z, cotangent, seed, step=step)
    require_close(found, _pull_back(fixed, z, cotangent, seed), "gradient at a step")


@kit.law(z=logits(min_width=2, masked=False), seed=seeds)
def a_kept_gradient_serves_equal_rows_only(estimator: Estimator, z: Tensor, seed: int) -> None:
    """``reusable`` is yes for equal rows, no beyond the declared ``staleness`` or for NaN (Algorithm 4)."""
    rows = _rows(estimator, z, seed).flatten(0, -2)
    require(estimator.reusable(rows, rows.clone()) is True, "no at equal rows")
    # Two rows of the simplex are never farther apart than 2.
    for distance in (1e-6, 0.5, 2.0):
        if distance <= estimator.staleness:
            continue
        at = one_hot(rows[:1].argmax(-1), rows.shape[-1]).to(rows)
        mixed = torch.cat([rows[:1] * 0 + at, rows[1:]])
        moved = mixed.clone()
        moved[0] = (1 - distance / 2) * at[0] + distance / 2 * at[0].roll(1)
        require(
            not estimator.reusable(mixed, moved),
            f"yes at rows {distance} apart in L1, with a declared staleness of {estimator.staleness}",
        )
    broken = rows * float("nan")
    require(not estimator.reusable(broken, broken), "yes at NaN")


def _first(values: Tensor) -> str:
    return f"{float(values.flatten()[0]):.3g}" if values.numel() else "none"
