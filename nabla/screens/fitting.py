"""The change point that fits sampled texts best: without labels, against the reward's own verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.change_point import ChangePoint
from nabla.screens.sampled import Sampled, verdicts

#: Standard deviations of the weights' priors around :class:`ChangePoint`'s own: a fit to texts that can be
#: told apart without error stays finite.
_CENTRE, _LOG, _SURPRISE = 3.0, 2.0, 1.0
_ROUNDS = 60


def fit(texts: Sequence[Sampled]) -> ChangePoint:
    """Centre, scale, hazard and weight of the surprise at the largest posterior probability: cross-entropy of
    P(none) of each text against the reward's verdict (SPEC section 14), with weak priors.

    The surprise has a weight only where it explains more than a parameter that means nothing would (Akaike's
    criterion: more than one nat in all). Deterministic.
    """
    table = _Table(texts)
    start = ChangePoint()
    values = torch.tensor(
        [start.centre, math.log(start.scale), math.log(start.hazard), 0.0], dtype=torch.float64
    )
    plain, plain_loss = _descend(table, values, surprised=False)
    full, full_loss = _descend(table, plain + torch.tensor([0.0, 0.0, 0.0, 0.5]), surprised=True)
    best = full if plain_loss - full_loss > 1 / len(texts) else plain
    centre, scale, hazard, surprise = best.tolist()
    return ChangePoint(*map(_plain, (centre, math.exp(scale), math.exp(hazard), abs(surprise))))


def _plain(number: float) -> float:
    """With six digits: in the last ones values depend on the batches in which they were read."""
    return float(f"{number:.6g}")


def cross_entropy(point: ChangePoint, texts: Sequence[Sampled]) -> float:
    """Mean of ``-log P(verdict)`` over the texts, nats, with P(none) for *right*."""
    total = 0.0
    for text, right in zip(texts, verdicts(texts), strict=True):
        none = point.none(text.values, log_probs=text.log_probs)
        total -= math.log(max(none if right else 1 - none, 1e-12))
    return total / len(texts)


def _descend(table: _Table, start: Tensor, *, surprised: bool) -> tuple[Tensor, float]:
    """(centre, log scale, log hazard, surprise) at the minimum, and the loss there without the priors."""
    free = start.clone().requires_grad_()
    moving = torch.tensor([1.0, 1.0, 1.0, float(surprised)], dtype=torch.float64)
    fixed = start.clone()
    optimiser = torch.optim.LBFGS([free], max_iter=_ROUNDS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        at = fixed + moving * (free - fixed)
        total = table.loss(at) + table.prior(at)
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimiser.step(loss)  # type: ignore[arg-type, no-untyped-call]
    found = (fixed + moving * (free - fixed)).detach()
    if not bool(found.isfinite().all()):  # the line search left the finite numbers: nothing was learnt
        found = fixed
    return found, float(table.loss(found))


class _Table:
    """Values and log-probabilities of all texts, padded."""

    def __init__(self, texts: Sequence[Sampled]) -> None:
        self.count = len(texts)
        longest = max(len(text.values) for text in texts)
        shape = len(texts), longest
        self.values = torch.zeros(shape, dtype=torch.float64)
        self.own = torch.zeros(shape, dtype=torch.float64)
        self.valued = torch.zeros(shape, dtype=torch.bool)
        #: Of each token, the position of the first value at or behind it; one past the end where none is.
        self.step: Int[Tensor, "texts length"] = torch.full(shape, longest)
        for row, text in enumerate(texts):
            behind = longest
            for i in reversed(range(len(text.values))):
                if not math.isnan(text.values[i]):
                    behind = i
                    self.values[row, i], self.valued[row, i] = text.values[i], True
                if not math.isnan(text.log_probs[i]):
                    self.own[row, i] = -text.log_probs[i]
                self.step[row, i] = behind
        self.right = torch.tensor(verdicts(texts), dtype=torch.float64)

    def loss(self, at: Float[Tensor, " 4"]) -> Float[Tensor, ""]:
        """Cross-entropy, nats."""
        centre, scale, hazard, surprise = at[0], at[1].exp(), at[2], at[3].abs()
        evidence = torch.where(self.valued, scale * (centre - self.values), torch.zeros_like(self.values))
        behind = evidence.flip(-1).cumsum(-1).flip(-1)
        odds = hazard + self._prior(surprise) + behind
        odds = odds.masked_fill(~self.valued, -math.inf)
        bad = odds.logsumexp(-1)  # log odds of any mistake against none
        bad = bad.masked_fill(~self.valued.any(-1), -30.0)
        return torch.nn.functional.binary_cross_entropy_with_logits(-bad, self.right)

    def _prior(self, surprise: Tensor) -> Float[Tensor, "texts length"]:
        """Log of the mean of ``π^-surprise`` over each step, at the step's value."""
        size = self.values.shape[-1] + 1
        raised = surprise * self.own
        top = raised.amax(-1, keepdim=True)
        zero = torch.zeros(self.count, size, dtype=torch.float64)
        total = zero.scatter_add(-1, self.step, (raised - top).exp())
        length = zero.scatter_add(-1, self.step, torch.ones_like(raised))
        return ((total / length.clamp_min(1)).clamp_min(1e-300).log() + top)[:, :-1]

    def prior(self, at: Float[Tensor, " 4"]) -> Float[Tensor, ""]:
        """Minus the log of the priors' densities, up to a constant, per text."""
        start = ChangePoint()
        centre = torch.tensor(
            [start.centre, math.log(start.scale), math.log(start.hazard), 0.0], dtype=torch.float64
        )
        spread = torch.tensor([_CENTRE, _LOG, _LOG, _SURPRISE], dtype=torch.float64)
        return (((at - centre) / spread) ** 2).sum() / (2 * self.count)
