"""What one problem remembers of texts: gradients of an objective, and its values."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Int
from torch import Tensor

from nabla.core.costs import Account, CostMeter
from nabla.core.trajectory import Trajectory
from nabla.engine.gradient.values import GradientTask, TrajectoryGradient
from nabla.engine.requests import GradientRequest, ValuePlan, ValueRequest, identity
from nabla.objectives.base import Objective, Term, TrajectoryObjective, trajectory_terms
from nabla.rewards.base import SoftTokens

#: Texts whose objective values are remembered per problem (a few numbers each).
KEPT_VALUES = 4096


class Memory:
    """Plans the requests for what is not known yet, and keeps their answers.

    The gradient at a hard text is a function of the text alone (SPEC section 7.1): it serves every later
    position of that text, also after a rejected proposal; the next ones of the same position alone where a
    term is none of single tokens (``TrajectoryObjective.additive``).

    Args:
        prompt_ids: of the problem.
        meter: counts what was reused and what was computed.
        kept: gradients kept, the last ones; 0 keeps nothing, values neither.
    """

    def __init__(self, prompt_ids: Int[Tensor, " prompt"], meter: CostMeter, kept: int) -> None:
        self.prompt_ids, self.meter, self.kept = prompt_ids, meter, kept
        self._gradients: OrderedDict[Any, TrajectoryGradient] = OrderedDict()
        self._values: OrderedDict[Any, dict[str, float]] = OrderedDict()
        #: Values dropped since the last checkpoint.
        self._dropped: list[tuple[Any, dict[str, float]]] = []

    def plan_gradient(
        self,
        trajectory: Trajectory,
        objective: Objective,
        account: Account,
        *,
        start: int | None = None,
        tokens: Int[Tensor, " length"] | None = None,
        soft: SoftTokens | None = None,
    ) -> TrajectoryGradient | GradientRequest:
        """The gradient if it is kept, else the request for it; arguments as of ``Session.gradient``."""
        terms = trajectory_terms(objective)
        start = trajectory.committed if start is None else start
        text = trajectory.tokens if tokens is None else tokens
        if soft is None:
            key = _text_key(text, terms)
            kept = self._gradients.get(key)
            if kept is not None and (kept.start == start or (kept.start < start and _additive(terms))):
                self._gradients.move_to_end(key)
                self.meter.count("gradients_reused")
                return kept
        self.meter.count("gradients_computed")
        task = GradientTask(self.prompt_ids, trajectory, text, start, soft, account)
        return GradientRequest(account, terms, task)

    def keep_gradient(self, request: GradientRequest, gradient: TrajectoryGradient) -> TrajectoryGradient:
        """Remembers the answer to a request, if it was at a hard text."""
        if request.task.soft is None:
            self._gradients[_text_key(request.task.tokens, request.terms)] = gradient
            while len(self._gradients) > self.kept:
                self._gradients.popitem(last=False)
        return gradient

    def checkpoint(self) -> Callable[[], None]:
        """Takes note of what is kept; the function that is returned forgets all that came later."""
        gradients, count = self._gradients.copy(), len(self._values)
        dropped: list[tuple[Any, dict[str, float]]] = []
        self._dropped = dropped

        def restore() -> None:
            self._gradients = gradients.copy()
            while len(self._values) > count - len(dropped):
                self._values.popitem()
            while dropped:
                key, value = dropped.pop()
                self._values[key] = value
                self._values.move_to_end(key, last=False)

        return restore

    def plan_values(
        self,
        trajectory: Trajectory,
        objective: Objective,
        texts: Sequence[Int[Tensor, " length"]],
        account: Account,
    ) -> ValuePlan:
        """The requests that ``Session.values`` still needs."""
        terms, start = trajectory_terms(objective), trajectory.committed
        keys = [(start, *_text_key(text, terms)) for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._values}
        self.meter.count("values_reused", len(texts) - len(new))
        if new:
            self.meter.count("values_computed", len(new))
        tasks = [
            GradientTask(self.prompt_ids, trajectory, text, start, None, own)
            for text, own in zip(new.values(), account.branches(len(new)), strict=True)
        ]
        return ValuePlan(terms, keys, list(new), [ValueRequest(t.account, terms, t) for t in tasks])

    def keep_values(self, plan: ValuePlan, answers: Sequence[dict[str, float]]) -> dict[str, list[float]]:
        """Remembers the answers to a plan's requests; all values that the plan was for, by term."""
        found = dict(zip(plan.new, answers, strict=True))
        rows = [found[key] if key in found else self._values[key] for key in plan.keys]
        if self.kept:
            self._values.update(found)
            while len(self._values) > KEPT_VALUES:
                self._dropped.append(self._values.popitem(last=False))
        return {term.name: [row[term.name] for row in rows] for term in plan.terms}


def _additive(terms: Sequence[Term]) -> bool:
    """Derivatives at the tokens do not depend on where the free part begins; a reward reads all of a text."""
    objectives = [term.objective for term in terms]
    return all(isinstance(o, TrajectoryObjective) and o.additive for o in objectives)


def _text_key(tokens: Tensor, terms: Sequence[Term]) -> tuple[Any, ...]:
    return tuple(tokens.tolist()), identity(terms)
