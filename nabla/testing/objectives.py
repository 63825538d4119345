"""Laws of objectives (SPEC sections 2 and 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from nabla.engine.gradient.values import TermGradient
from nabla.objectives.base import (
    LogitObjective,
    Objective,
    TrajectoryObjective,
    TrajectoryView,
    objectives,
    trajectory_terms,
)
from nabla.objectives.weighted_sum import WeightedSum
from nabla.rewards.base import Response
from nabla.schedulers.base import Step
from nabla.testing.bench import PROMPT, bench
from nabla.testing.inputs import INF, seeded
from nabla.testing.laws import MAX_EXAMPLES, Kit, Law, Violation, require, require_close
from nabla.testing.optional import st
from nabla.testing.strategies import logits, rewards, seeds, tokens
from nabla.testing.tiny import tiny_trajectory

kit: Kit[Objective] = Kit(objectives, "an objective", "check_objective")


def check_objective(
    objective: object,
    *,
    closed_form: Callable[[Tensor, Tensor], Tensor] | None = None,
    laws: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    max_examples: int = MAX_EXAMPLES,
    seed: int = 0,
) -> None:
    """Checks every law that an objective declares.

    Args:
        objective: an instance, or a class that needs no arguments.
        closed_form: of a logit objective, as a function of the two distributions ``p`` and ``p_ref`` (rows
            without zeros): tells a KL from the one with swapped arguments, which no general law can.
        laws: these and the rest as in :func:`nabla.testing.check_estimator`.

    Raises ContractError at the first law that is broken.
    """
    extra = () if closed_form is None else (value_is(closed_form),)
    kit.check(objective, laws=laws, skip=skip, max_examples=max_examples, seed=seed, extra=extra)


# -- what a component declares ---------------------------------------------------------------------


def _logit(objective: Objective) -> bool:
    return isinstance(objective, LogitObjective)


def _trajectory(objective: Objective) -> bool:
    return isinstance(objective, TrajectoryObjective)


def _additive(objective: Objective) -> bool:
    return isinstance(objective, TrajectoryObjective) and objective.additive


def _divergence(objective: Objective) -> bool:
    return isinstance(objective, LogitObjective) and objective.divergence


def _runs_models(objective: Objective) -> bool:
    return bool(trajectory_terms(objective))


def _sums_terms(objective: Objective) -> bool:
    return not isinstance(objective, LogitObjective | TrajectoryObjective)


# -- of every objective ----------------------------------------------------------------------------


@kit.law(factor=st.integers(-16, 16))
def it_is_linear_in_the_weights(objective: Objective, factor: int) -> None:
    """Terms have different names, finite weights and no terms of their own; inside a sum of weight w each
    has w times its weight (SPEC section 2)."""
    weight, step = factor / 4, Step(1, 3)
    own = objective.terms()
    names = [term.name for term in own]
    require(own, "it has no terms")
    require(len(set(names)) == len(names), f"two terms share a name: {names}")
    for term in own:
        require(
            isinstance(term.objective, LogitObjective | TrajectoryObjective),
            f"the term {term.name!r} is neither a logit nor a trajectory objective",
        )
        require(abs(term.weight(step)) < INF, f"the weight of {term.name!r} is {term.weight(step)}")
        require(isinstance(term.objective.unit, str), f"the term {term.name!r} has no unit")
    scaled = WeightedSum({"part": weight}, {"part": objective}).terms()
    require(len(scaled) == len(own), f"{len(own)} terms became {len(scaled)} inside a sum")
    for term, inside in zip(own, scaled, strict=True):
        found, expected = inside.weight(step), weight * term.weight(step)
        require(
            abs(found - expected) <= 1e-12 * abs(expected), f"{term.name}: weight {found}, not {expected}"
        )


# -- of the optimised logits -----------------------------------------------------------------------


def _other(z: Tensor, seed: int, size: float = 1.0) -> Tensor:
    """Reference logits near ``z``, with the same masked candidates."""
    return z + size * torch.randn(z.shape, generator=seeded(seed), dtype=torch.float64).to(z.dtype)


def _value(objective: Any, z: Tensor, reference: Tensor) -> Tensor:
    value = objective.value(z, reference)
    require(isinstance(value, Tensor), f"the value is a {type(value).__name__}, not a tensor")
    require(value.shape == (), f"the value has shape {tuple(value.shape)}, not that of a scalar")
    return value  # type: ignore[no-any-return]


def _slope(objective: Any, z: Tensor, reference: Tensor) -> Tensor:
    leaf = z.clone().requires_grad_()
    value = _value(objective, leaf, reference)
    require(value.requires_grad, "no gradient reaches the logits")
    (found,) = torch.autograd.grad(value, leaf, allow_unused=True)
    require(found is not None, "no gradient reaches the logits")
    return found  # type: ignore[no-any-return]


@kit.law(applies=_logit, z=logits(dtypes=(torch.float32, torch.float64)), seed=seeds)
def a_value_is_one_finite_number(objective: Objective, z: Tensor, seed: int) -> None:
    """The value is a finite scalar of the logits' dtype, the gradient is finite and zero at masked ones."""
    reference, kept = _other(z, seed), z.clone()
    value = _value(objective, z, reference)
    require(value.dtype == z.dtype, f"logits of {z.dtype} gave a value of {value.dtype}")
    require(torch.isfinite(value), f"the value is {float(value)}")
    require(torch.equal(z, kept), "it changes the logits it is given")
    found = _slope(objective, z, reference)
    require(torch.isfinite(found).all(), "the gradient is NaN or infinite")
    require((found[z == -INF] == 0).all(), "a masked candidate has a gradient")


@kit.law(applies=_logit, z=logits(), seed=seeds)
def a_masked_candidate_is_as_good_as_absent(objective: Objective, z: Tensor, seed: int) -> None:
    """0 · log 0 = 0: a row with masked candidates is worth what it is without them (SPEC section 11)."""
    reference = _other(z, seed)
    for row, initial in zip(z, reference, strict=True):
        keep = row > -INF
        whole = _value(objective, row.unsqueeze(0), initial.unsqueeze(0))
        part = _value(objective, row[keep].unsqueeze(0), initial[keep].unsqueeze(0))
        require_close(whole, part, "value with masked candidates")


@kit.law(applies=_logit, z=logits(min_rows=2), seed=seeds)
def rows_add(objective: Objective, z: Tensor, seed: int) -> None:
    """The value of several rows is the sum of the rows' values, in any order."""
    reference = _other(z, seed)
    parts = [_value(objective, z[i : i + 1], reference[i : i + 1]) for i in range(len(z))]
    require_close(_value(objective, z, reference), torch.stack(parts).sum(), "value of several rows")
    flipped = _value(objective, z.flip(0), reference.flip(0))
    require_close(_value(objective, z, reference), flipped, "value in reverse order")


@kit.law(applies=_logit, z=logits(), seed=seeds, eighths=st.integers(-160, 160))
def only_the_distributions_matter(objective: Objective, z: Tensor, seed: int, eighths: int) -> None:
    """A constant added to a row, or another order of candidates, changes no value; gradients of a row sum to
    zero (Eq. 25). Skip it for an objective that is meant to read the logits themselves."""
    reference = _other(z, seed)
    value = _value(objective, z, reference)
    require_close(_value(objective, z + eighths / 8, reference), value, "value after a shift", rtol=1e-6)
    require_close(
        _value(objective, z, reference + eighths / 8),
        value,
        "value after a shift of the reference",
        rtol=1e-6,
    )
    order = torch.randperm(z.shape[-1], generator=seeded(seed))
    require_close(_value(objective, z[:, order], reference[:, order]), value, "value of permuted columns")
    total = _slope(objective, z, reference).sum(-1)
    require_close(total, torch.zeros_like(total), "sum of a row's gradient", atol=1e-7)


@kit.law(applies=_logit, z=logits(kinds=("normal", "uniform", "ties")), seed=seeds)
def the_gradient_of_logits_is_the_slope(objective: Objective, z: Tensor, seed: int) -> None:
    """The gradient against central differences, float64."""
    reference, free = _other(z, seed), z > -INF
    direction = torch.randn(z.shape, generator=seeded(seed + 1), dtype=z.dtype).masked_fill(~free, 0.0)
    size = 1e-5
    ahead, behind = (_value(objective, z + s * size * direction, reference) for s in (1, -1))
    slope = (_slope(objective, z, reference) * direction).sum()
    require_close(slope, (ahead - behind) / (2 * size), "slope by the gradient", rtol=1e-6, atol=1e-7)


@kit.law(applies=_divergence, z=logits(), seed=seeds, hundredths=st.sampled_from([1, 100, 10_000]))
def a_divergence_is_zero_at_the_reference_alone(
    objective: Objective, z: Tensor, seed: int, hundredths: int
) -> None:
    """KL ≥ 0; zero with zero gradient where ``p_z = p_ref`` (SPEC section 2)."""
    reference = _other(z, seed, hundredths / 100)
    value = float(_value(objective, z, reference))
    require(value >= -1e-12, f"the value is {value:.3g}")
    at_home = float(_value(objective, z, z.clone()))
    require(abs(at_home) < 1e-12, f"the value at the reference is {at_home:.3g}")
    slope = float(_slope(objective, z, z.clone()).abs().max())
    require(slope < 1e-9, f"the gradient at the reference is {slope:.3g}")
    a, b = torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    require(float(_value(objective, a, b)) > 1e-3, "the value of two different rows is zero")


def value_is(closed_form: Callable[[Tensor, Tensor], Tensor]) -> Law:
    """The law that a logit objective is ``closed_form(p, p_ref)``."""

    def the_value_is_the_given_closed_form(objective: Objective, z: Tensor, seed: int) -> None:
        """The value is the formula that was passed to the check, of the two distributions."""
        reference = _other(z, seed)
        expected = closed_form(z.softmax(-1), reference.softmax(-1))
        require_close(_value(objective, z, reference), expected, "value", rtol=1e-7, atol=1e-9)

    return kit.make(
        the_value_is_the_given_closed_form,
        applies=_logit,
        z=logits(kinds=("normal", "uniform", "ties"), masked=False),
        seed=seeds,
    )


# -- of what the models say ------------------------------------------------------------------------


def _view(rows: list[int], reward: float | None) -> TrajectoryView:
    """Log-likelihoods in sixteenths, each with its own gradient."""
    values = torch.tensor(rows, dtype=torch.float64) / 16
    leaf = None if reward is None else torch.tensor(reward, dtype=torch.float64).requires_grad_()
    return TrajectoryView(values.clone().requires_grad_(), values.clone().requires_grad_(), leaf)


def _derivatives(objective: Any, view: TrajectoryView) -> list[Tensor | None]:
    """Derivatives with respect to log-likelihood, that of fixed contexts, and reward."""
    value = objective.value(view)
    require(isinstance(value, Tensor) and value.shape == (), f"the value is {value!r}, not a scalar tensor")
    require(value.requires_grad, "no gradient reaches what the models said")
    inputs = [view.log_likelihood, view.log_likelihood_fixed_context]
    inputs += [] if view.reward is None else [view.reward]
    found: list[Tensor | None] = list(torch.autograd.grad(value, inputs, allow_unused=True))
    return found if view.reward is not None else [*found, None]


_sixteenths = st.lists(st.integers(-800, 0), min_size=1, max_size=6)


@kit.law(applies=_trajectory, rows=_sixteenths, reward=rewards)
def it_reads_what_it_declares(objective: Objective, rows: list[int], reward: float) -> None:
    """``needs_reward`` and ``needs_likelihood`` say what the value reads: the engine runs no other model."""
    context, fixed, of_reward = _derivatives(objective, _view(rows, reward))
    reads = {
        "needs_reward": of_reward is not None and bool(of_reward != 0),
        "needs_likelihood": any(g is not None and bool((g != 0).any()) for g in (context, fixed)),
    }
    for name, found in reads.items():
        require(not found or getattr(objective, name), f"it reads what {name} = False says it does not need")
    if not objective.needs_reward:
        try:
            objective.value(_view(rows, None))  # type: ignore[attr-defined]
        except Exception as error:
            raise Violation(f"needs_reward is False, but without a reward it fails: {error}") from error


@kit.law(applies=_trajectory, rows=_sixteenths, reward=rewards, seed=seeds)
def the_gradient_of_a_view_is_the_slope(
    objective: Objective, rows: list[int], reward: float, seed: int
) -> None:
    """Derivatives in the log-likelihoods and the reward against central differences; value and gradient are
    finite."""
    view = _view(rows, reward)
    inputs = [view.log_likelihood, view.log_likelihood_fixed_context, view.reward]
    found = _derivatives(objective, view)
    value = objective.value(view)  # type: ignore[attr-defined]
    require(torch.isfinite(value), f"the value is {float(value.detach())}")
    for index, (tensor, derivative) in enumerate(zip(inputs, found, strict=True)):
        assert tensor is not None
        direction = torch.randn(tensor.shape, generator=seeded(seed + index), dtype=tensor.dtype)
        size = 1e-5 * max(1.0, float(tensor.detach().abs().max()))
        values = []
        for sign in (1, -1):
            moved = list(inputs)
            moved[index] = tensor.detach() + sign * size * direction
            values.append(objective.value(TrajectoryView(*moved)).detach())  # type: ignore
        slope = torch.zeros_like(values[0]) if derivative is None else (derivative * direction).sum()
        difference = (values[0] - values[1]) / (2 * size)
        what = ("log-likelihood", "log-likelihood of fixed contexts", "reward")[index]
        noise = 1e-8 + 1e-14 * float(value.detach().abs()) / size
        require_close(slope, difference, f"slope in the {what}", rtol=1e-5, atol=noise)


@kit.law(applies=_additive, rows=_sixteenths, reward=rewards, committed=st.integers(0, 5))
def an_additive_one_does_not_see_what_is_committed(
    objective: Objective, rows: list[int], reward: float, committed: int
) -> None:
    """``additive`` says that a token's derivative is the same wherever the free part begins: gradients that
    are kept serve later positions (SPEC section 7.1)."""
    first = committed % len(rows)
    whole = _derivatives(objective, _view(rows, reward))
    part = _derivatives(objective, _view(rows[first:], reward))
    what = ("log-likelihood", "log-likelihood of fixed contexts", "reward")
    for index, (name, early, late) in enumerate(zip(what, whole, part, strict=True)):
        if early is None or late is None:
            require((early is None) == (late is None), f"it reads the {name} in one of two views only")
            continue
        early = early if index == 2 else early[first:]
        said = f"derivative in the {name}, {first} tokens committed"
        require_close(early, late, said, rtol=1e-12, atol=1e-12)


# -- through the models ----------------------------------------------------------------------------

_texts = tokens(range(4, 8), max_length=5)


@kit.law(applies=_runs_models, examples=0.3, text=_texts)
def the_value_at_one_hot_rows_is_the_discrete_one(objective: Objective, text: list[int]) -> None:
    """At one-hot rows a relaxed text is worth what the text is, by the models' own log-probabilities and
    score, to float64 precision."""
    on = bench()
    ids = torch.tensor(text)
    log_probs = tiny_trajectory(on.lm, PROMPT, ids).log_probs
    account = on.account()
    (score,) = on.reward.score([Response(PROMPT, ids, account)], on.runner)
    view = TrajectoryView(log_probs, log_probs, torch.tensor(score.value, dtype=torch.float64))
    expected = sum(
        term.weight(Step()) * float(term.objective.value(view))  # type: ignore
        for term in trajectory_terms(objective)
    )
    y = one_hot(ids, on.lm.head.usable).double()
    for what, rows in (("one-hot rows", y), ("the hard text", None)):
        found = on.value(objective, on.gradient(objective, text, rows))
        tolerance = 1e-9 * (1 + abs(expected))
        require(abs(found - expected) < tolerance, f"{what} are worth {found!r}, the text {expected!r}")


@kit.law(applies=_runs_models, examples=0.3, text=_texts, seed=seeds)
def the_gradient_decomposes(objective: Objective, text: list[int], seed: int) -> None:
    """``∂L/∂y_l = δ_prefix + δ_postfix + λ δ_reward`` (Prop. C.1): the sum is the slope of the value in y by
    central differences, δ_prefix is a multiple of ``log π``, and δ_postfix is zero at the last row."""
    on = bench()
    y = on.relaxed(text, seed)
    gradient = on.gradient(objective, text, y)
    part = gradient.total(trajectory_terms(objective), Step())
    if part.pulls[0] is not None:
        last = float(part.pulls[0].rows(torch.tensor([len(text) - 1]), None).abs().max())
        require(last == 0, f"δ_postfix of the last row is {last:.3g}")
    pieces = [TermGradient(0.0, (None,) * len(part.pulls), part.direct)]
    silent = torch.zeros_like(part.direct)
    for index in range(len(part.pulls)):
        alone = tuple(p if i == index else None for i, p in enumerate(part.pulls))
        pieces.append(TermGradient(0.0, alone, silent))
    total = on.rows(gradient, part)
    require_close(
        sum((on.rows(gradient, p) for p in pieces), torch.zeros_like(total)), total, "sum of the parts"
    )
    if bool((_fixed(objective, len(text)) != 0).any()):
        return  # contexts held fixed: the gradient leaves δ_postfix out on purpose
    direction = torch.randn(y.shape, generator=seeded(seed + 1), dtype=y.dtype)
    size = 1e-6
    ahead, behind = (
        on.value(objective, on.gradient(objective, text, y + s * size * direction)) for s in (1, -1)
    )
    slope = (total * direction).sum()
    difference = torch.tensor((ahead - behind) / (2 * size), dtype=torch.float64)
    require_close(slope, difference, "slope by the gradient", rtol=1e-6, atol=1e-6)


def _fixed(objective: Objective, length: int) -> Tensor:
    """Derivative in the log-likelihoods of fixed contexts, at a view of that many tokens."""
    view = _view([-16] * length, 0.5)
    total = torch.zeros(length, dtype=torch.float64)
    for term in trajectory_terms(objective):
        fixed = _derivatives(term.objective, view)[1]
        total = total if fixed is None else total + term.weight(Step()) * fixed
    return total
