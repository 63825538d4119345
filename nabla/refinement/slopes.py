"""The gradient of an objective in the parameter that a descent moves."""

from __future__ import annotations

import torch
from torch import Tensor

from nabla.objectives.base import LogitObjective
from nabla.refinement.task import Group, Heard, Parts, part
from nabla.schedulers.base import Step


class Slopes:
    """Turns what the models have said into a gradient, by the estimator's backward rule.

    Args:
        parts: settings of the refinement.
        group: whose rows are the parameter.
        heard: what the models have said; read only.
    """

    def __init__(self, parts: Parts, group: Group, heard: Heard) -> None:
        self.parts, self.group, self.heard = parts, group, heard
        self._weighted: tuple[tuple[float, ...], Tensor] | None = None
        self._version = heard.version

    def gradient(self, parameter: Tensor, logits: Tensor, relaxed: Tensor | None, step: Step) -> Tensor:
        """Of the objective in the parameter.

        Args:
            parameter: a leaf.
            logits: of the joint rows, with a graph down to the parameter ``[N, K]``.
            relaxed: the estimator's rows; None in closed form.
            step: where in the descent this is.
        """
        if self.parts.pull_back is not None and not self.parts.logit_terms:
            slope = self.parts.pull_back(logits.detach(), self._feedback(step), step)
            if logits is parameter:
                return slope
            (gradient,) = torch.autograd.grad(logits, parameter, slope)
            return gradient
        total = self.loss(logits, relaxed, self._weights(step), step)
        for term in self.parts.logit_terms:
            assert isinstance(term.objective, LogitObjective)
            total = total + term.weight(step) * term.objective.value(logits, self.group.joint.logits)
        (gradient,) = torch.autograd.grad(total, parameter)
        return gradient

    def loss(
        self, logits: Tensor, relaxed: Tensor | None, weights: dict[str, float], step: Step
    ) -> Tensor:
        """A scalar whose gradient in the logits is the estimator's, for the weighted trajectory terms."""
        total = logits.new_zeros(())
        if self.parts.estimator.feedback == "value":
            assert relaxed is not None
            for i in range(len(self.group.tasks)):
                total = total + self._value_loss(i, logits, relaxed, weights)
            return total
        return total + self._gradient_loss(logits, relaxed, weights, step)

    def _value_loss(self, i: int, logits: Tensor, relaxed: Tensor, weights: dict[str, float]) -> Tensor:
        """One problem's: values belong to its own draws."""
        estimator, numbers, span = self.parts.estimator, self.heard.numbers[i], self.group.spans[i]
        feedback = logits.new_zeros(estimator.draws)
        feedback = sum((w * numbers[n] for n, w in weights.items() if n in numbers), feedback)
        return estimator.loss(logits[span], part(relaxed, span), feedback)

    def _gradient_loss(
        self, logits: Tensor, relaxed: Tensor | None, weights: dict[str, float], step: Step
    ) -> Tensor:
        feedback = self._combined(weights)
        if self.parts.pull_back is not None:
            return (logits * self.parts.pull_back(logits.detach(), feedback, step)).sum()
        assert relaxed is not None
        return self.parts.estimator.loss(logits, relaxed, feedback)

    def _weights(self, step: Step) -> dict[str, float]:
        return {term.name: term.weight(step) for term in self.parts.trajectory_terms}

    def _combined(self, weights: dict[str, float]) -> Tensor:
        """The weighted sum of the terms' rows ``[N, K]``."""
        rows = self.heard.rows
        present = [(w, rows[name]) for name, w in weights.items() if name in rows]
        if not present:
            return torch.zeros_like(self.group.joint.logits)
        total = present[0][0] * present[0][1]
        for weight, more in present[1:]:
            total.add_(more, alpha=weight)
        return total

    def _feedback(self, step: Step) -> Tensor:
        """:meth:`_combined` at a step's weights; kept while neither the weights nor the rows change."""
        weights = self._weights(step)
        key = tuple(weights.values())
        if self._weighted is None or self._weighted[0] != key or self._version != self.heard.version:
            self._weighted, self._version = (key, self._combined(weights)), self.heard.version
        return self._weighted[1]
