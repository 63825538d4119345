"""Straight-through estimators (Bengio et al., arXiv 1308.3432)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from nabla.estimators.base import HardEstimator, estimators
from nabla.schedulers.base import Step


@estimators.register("straight-through")
class StraightThrough(HardEstimator):
    """One-hot forward, softmax backward: the paper's estimator (arXiv 2603.04948, SPEC section 3).

    ``y = onehot(argmax z) + softmax(z/τ) - stopgrad(softmax(z/τ))``.
    """

    def soft(self, logits: Float[Tensor, "*batch k"], step: Step) -> Float[Tensor, "*batch k"]:
        return (logits / self.temperature(step)).softmax(-1)

    def pull_back(
        self, logits: Float[Tensor, "*batch k"], feedback: Float[Tensor, "*batch k"], step: Step
    ) -> Float[Tensor, "*batch k"]:
        """``p (g - p·g) / τ``: the softmax's Jacobian times g."""
        temperature = self.temperature(step)
        soft = (logits if temperature == 1 else logits / temperature).softmax(-1)
        slope = (feedback - (soft * feedback).sum(-1, keepdim=True)).mul_(soft)
        return slope if temperature == 1 else slope.div_(temperature)


@estimators.register("straight-through-identity")
class StraightThroughIdentity(HardEstimator):
    """One-hot forward, identity backward (arXiv 1308.3432): the gradient passes unchanged."""

    def __init__(self) -> None:
        super().__init__(1.0)

    def soft(self, logits: Float[Tensor, "*batch k"], step: Step) -> Float[Tensor, "*batch k"]:
        return logits.masked_fill(logits == float("-inf"), 0.0)  # -inf minus -inf is NaN

    def pull_back(
        self, logits: Float[Tensor, "*batch k"], feedback: Float[Tensor, "*batch k"], step: Step
    ) -> Float[Tensor, "*batch k"]:
        """g, where a candidate is not masked."""
        return feedback.masked_fill(logits == float("-inf"), 0.0)
