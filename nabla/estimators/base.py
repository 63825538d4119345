"""Gradient estimators: logits → relaxed tokens, with the rule for the way back (SPEC section 3)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from nabla.core.errors import ConfigError
from nabla.core.random import gumbel_like
from nabla.core.registry import Registry
from nabla.estimators.anchors.base import AnchorPoint, argmax
from nabla.schedulers.base import Schedule, Step, as_schedule


class Estimator(ABC):
    """Maps logits over a support of K candidates to rows on the simplex, differentiably.

    An estimator never knows the vocabulary: candidates are columns, masked ones have logit ``-inf``
    and get weight and gradient zero. It keeps settings only; noise comes from the generator.

    Two kinds. With *gradient* feedback (the default) the models are differentiated at the rows,
    ``g = ∂L/∂y``, and the loss ``Σ y·g`` carries ``g`` back through the rows to the logits. With
    *value* feedback the models only say what L is at each of ``draws`` texts; the loss turns those
    numbers into a gradient. Such an estimator overrides :meth:`loss`.

    An estimator whose forward rows are texts and whose backward rule is that of soft rows is a
    :class:`HardEstimator`, which asks for those soft rows alone.

    Args:
        temperature: τ > 0, a number or a schedule over the optimisation steps.

    Raises ConfigError if the class does not declare ``hard``, or asks for values of L at rows that are not
    texts.
    """

    #: Forward rows are exactly one-hot. Every class declares it.
    hard: ClassVar[bool]
    #: The estimate depends on random draws: of its rows, or of its backward rule alone.
    stochastic: ClassVar[bool] = True
    #: What the models are asked for: ``∂L/∂y`` at the rows, or L at the text of each draw.
    feedback: ClassVar[Literal["gradient", "value"]] = "gradient"
    #: Number of texts per step. ``relax`` gives rows a leading axis of this size where it is not 1.
    draws: int = 1
    #: The backward rule in closed form: ``(logits, ∂L/∂y, step) → the gradient of`` :meth:`loss`
    #: in the logits. Optional, for hard deterministic estimators whose rows are :func:`hard_rows`'s: their
    #: steps then need neither one-hot rows nor autograd. The contract kit compares the two. Ask
    #: :func:`closed_form` for it.
    pull_back: ClassVar[Callable[..., Tensor] | None] = None
    #: Distance in L1 of a row up to which :meth:`reusable` may say yes; 0 is exact (Algorithm 4).
    staleness: float = 0.0

    def __init__(self, temperature: float | Schedule | str | dict[str, Any] = 1.0) -> None:
        self._check_declarations()
        self.temperature = as_schedule(temperature, "temperature")
        if self.temperature.bounds[0] <= 0:
            raise ConfigError(
                "An estimator's temperature must be positive",
                got=temperature,
                fix="Use a small value such as 0.01 for a nearly hard relaxation.",
            )

    def _check_declarations(self) -> None:
        name = type(self).__name__
        if not isinstance(getattr(self, "hard", None), bool):
            raise ConfigError(
                f"{name} does not declare whether its rows are one-hot",
                fix="Write 'hard = True' (rows are texts) or 'hard = False' (mixtures) in the class.",
            )
        if self.feedback not in ("gradient", "value"):
            raise ConfigError(f"{name}.feedback is 'gradient' or 'value'", got=self.feedback)
        if self.feedback == "value" and not self.hard:
            raise ConfigError(
                f"{name} asks for values of the objective, which only texts have",
                fix="Declare 'hard = True' and return one-hot rows, or use feedback 'gradient'.",
            )

    @abstractmethod
    def relax(
        self,
        logits: Float[Tensor, "*batch k"],
        *,
        generator: torch.Generator,
        step: Step,
        anchor: AnchorPoint | None,
    ) -> Float[Tensor, "*rows k"]:
        """Relaxed tokens; gradients flow back to ``logits`` by the estimator's rule.

        Of the logits' shape, with a leading axis of size ``draws`` where that is not 1.
        """

    def surrogate(
        self, logits: Float[Tensor, "*batch k"], *, generator: torch.Generator, step: Step
    ) -> Float[Tensor, "*batch k"] | None:
        """A function whose derivative is the backward rule, on the draws that :meth:`relax` would make.

        A declaration that the contract kit (:mod:`nabla.testing`) compares with what ``relax`` does; nothing
        else calls it. None: the derivative of the rows themselves if they are soft, undeclared if hard.
        """
        return None

    def __call__(
        self,
        logits: Float[Tensor, "*batch k"],
        *,
        generator: torch.Generator,
        step: Step | None = None,
        anchor: AnchorPoint | None = None,
    ) -> Float[Tensor, "*rows k"]:
        """Relaxed tokens: rows on the simplex, of the logits' shape and dtype (``[draws, *batch, k]`` for
        several draws).

        Args:
            logits: pre-softmax scores, nats; ``-inf`` masks a candidate (one per row must be
                finite).
            generator: source of noise, on the CPU or the logits' device.
            step: where in the optimisation this is, for temperature schedules.
            anchor: the rollout a hard forward value is anchored at; None takes the argmax.

        Raises ConfigError if ``relax`` changes shape or dtype.
        """
        rows = self.relax(logits, generator=generator, step=step or Step(), anchor=anchor)
        shape = logits.shape if self.draws == 1 else (self.draws, *logits.shape)
        _require_like(f"{type(self).__name__}.relax", rows, logits, shape)
        if logits.requires_grad and self.feedback == "gradient" and not rows.requires_grad:
            raise ConfigError(
                f"{type(self).__name__} gives rows that no gradient flows back from",
                fix="Form them of the logits, without detach(), or declare feedback = 'value'.",
            )
        return rows

    def loss(
        self,
        logits: Float[Tensor, "*batch k"],
        rows: Float[Tensor, "*rows k"],
        feedback: Float[Tensor, "*feedback"],
    ) -> Float[Tensor, ""]:
        """A scalar whose gradient in ``logits`` is the estimate of the objective's gradient.

        Args:
            logits: as given to the call.
            rows: what the call returned, with its graph.
            feedback: ``∂L/∂y``, of the rows' shape; or, with value feedback, L per draw ``[draws]``
                (``[draws, *b]`` for independent problems in the leading axes ``b`` of the logits).
        """
        return (rows * feedback).sum()

    def reusable(self, cached: Float[Tensor, "*rows k"], current: Float[Tensor, "*rows k"]) -> bool:
        """Whether the gradient at ``cached`` rows is valid at ``current`` ones (Algorithm 4).

        Both models are frozen, so equal rows have equal gradients, whatever the estimator: this
        rule is exact. A hard deterministic estimator profits at every step, a soft or noisy one
        rarely.
        """
        return torch.equal(cached, current)


class HardEstimator(Estimator):
    """One-hot rows forward, the gradient of soft rows backward (arXiv 1308.3432).

    A subclass gives :meth:`soft`. It may override :meth:`text`, to stand elsewhere than at the argmax, and
    give ``pull_back``, the closed form of the way back.
    """

    hard = True
    stochastic = False

    @abstractmethod
    def soft(self, logits: Float[Tensor, "*batch k"], step: Step) -> Float[Tensor, "*batch k"]:
        """Rows whose derivative is the backward rule; a masked candidate (``-inf``) gets derivative 0.

        Args:
            logits: pre-softmax scores, nats.
            step: where in the optimisation this is, for temperature schedules.
        """

    def text(
        self,
        logits: Float[Tensor, "*batch k"],
        *,
        generator: torch.Generator,
        step: Step,
        anchor: AnchorPoint | None,
    ) -> Float[Tensor, "*batch k"]:
        """One-hot rows, without gradient: the argmax, or where the anchor stands. An override that draws
        declares ``stochastic``."""
        return hard_rows(logits, anchor)

    def relax(
        self,
        logits: Float[Tensor, "*batch k"],
        *,
        generator: torch.Generator,
        step: Step,
        anchor: AnchorPoint | None,
    ) -> Float[Tensor, "*batch k"]:
        rows = self.text(logits, generator=generator, step=step, anchor=anchor)
        soft = self.soft(logits, step)
        _require_like(f"{type(self).__name__}.soft", soft, logits, logits.shape)
        return straight_through(rows, soft)

    def surrogate(
        self, logits: Float[Tensor, "*batch k"], *, generator: torch.Generator, step: Step
    ) -> Float[Tensor, "*batch k"] | None:
        return self.soft(logits, step)


estimators: Registry[Estimator] = Registry("estimators", lambda: Estimator, __package__)


def _require_like(what: str, rows: Any, logits: Tensor, shape: Sequence[int]) -> None:
    if not isinstance(rows, Tensor):
        raise ConfigError(f"{what} must return a tensor of shape {tuple(shape)}", got=rows)
    if rows.shape != shape or rows.dtype != logits.dtype or rows.device != logits.device:
        raise ConfigError(
            f"{what} must keep shape and dtype ({tuple(shape)}, {logits.dtype}), on {logits.device}",
            got=(tuple(rows.shape), rows.dtype, str(rows.device)),
        )


def closed_form(estimator: Estimator) -> Callable[..., Tensor] | None:
    """The estimator's ``pull_back``; None if it has none, or if its class has another rule than the class
    that the ``pull_back`` is inherited from."""
    for cls in type(estimator).__mro__:
        if "pull_back" in vars(cls):
            return estimator.pull_back
        if {"relax", "soft", "text", "loss"} & set(vars(cls)):
            return None
    return None


def straight_through(
    hard: Float[Tensor, "*batch k"], soft: Float[Tensor, "*batch k"]
) -> Float[Tensor, "*batch k"]:
    """``hard`` forward, the gradient of ``soft`` backward (arXiv 1308.3432).

    The difference is taken first: it is exactly 0, so that equal hard rows compare equal and their gradient
    is reused.
    """
    return hard + (soft - soft.detach())


def hard_rows(
    scores: Float[Tensor, "*batch k"],
    anchor: AnchorPoint | None,
    noise: Float[Tensor, "*batch k"] | None = None,
) -> Float[Tensor, "*batch k"]:
    """One-hot rows at the anchored token, without gradient.

    Args:
        scores: logits, with ``noise`` already added.
        anchor: where to stand; None takes the argmax of ``scores``. Noise that the anchor holds fixed is
            added where the estimator has none of its own.
        noise: what was added, so that the anchor's reference gets the same.
    """
    return one_hot(hard_index(scores, anchor, noise), scores.shape[-1]).to(scores.dtype)


def hard_index(
    scores: Float[Tensor, "*batch k"],
    anchor: AnchorPoint | None,
    noise: Float[Tensor, "*batch k"] | None = None,
) -> Int[Tensor, "*batch"]:
    """Columns of :func:`hard_rows`."""
    scores = scores.detach()
    if anchor is None:
        return argmax(scores)
    if noise is None and anchor.noise is not None:
        noise = anchor.noise
        scores = scores + noise
    reference = anchor.reference if noise is None else anchor.reference + noise
    index: Int[Tensor, "*batch"] = anchor.anchor.index(scores, reference, anchor.chosen)
    return index


def perturbation(
    logits: Float[Tensor, "*batch k"],
    generator: torch.Generator,
    anchor: AnchorPoint | None,
    temperature: float = 1.0,
) -> Float[Tensor, "*batch k"]:
    """Noise to add to the logits: what the anchor holds fixed, or else ``temperature`` times fresh Gumbels,
    under which the argmax follows ``softmax(z/temperature)``."""
    if anchor is not None and anchor.noise is not None:
        return anchor.noise
    return temperature * gumbel_like(logits, generator)
