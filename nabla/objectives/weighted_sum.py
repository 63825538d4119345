"""Weighted sums of objectives, nestable, with weights that may follow schedules."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from nabla.core.errors import ConfigError
from nabla.objectives.base import Objective, Term, objectives
from nabla.schedulers.base import Schedule, as_schedule


@objectives.register("sum")
class WeightedSum(Objective):
    """``Σ_k w_k · term_k``.

    Args:
        weights: name → weight. A name is a registered objective, unless ``parts`` says what it
            stands for. A weight is a number or a schedule.
        parts: name → objective (instance or spec), for names that are not registered ones.

    A nested sum's terms are named ``outer.inner``, and their weights multiply. The default is the
    paper's Eq. 2 with the official scripts' weights: reward 1, likelihood 1e-3.
    """

    unit = "mixed"

    def __init__(
        self,
        weights: Mapping[str, float | Schedule | dict[str, Any]] | None = None,
        parts: Mapping[str, Objective | str | dict[str, Any]] | None = None,
    ) -> None:
        weights = {"reward": 1.0, "likelihood": 1e-3} if weights is None else weights
        if not weights:
            raise ConfigError("A weighted sum needs at least one term")
        parts = dict(parts or {})
        unknown = sorted(set(parts) - set(weights))
        if unknown:
            raise ConfigError("parts without a weight", got=unknown, fix="Give each part a weight.")
        self.parts = {name: objectives.build(parts.get(name, name)) for name in weights}
        self.weights = {name: as_schedule(weight, f"weight of {name}") for name, weight in weights.items()}

    def terms(self) -> tuple[Term, ...]:
        return self._terms

    @cached_property
    def _terms(self) -> tuple[Term, ...]:
        """Settings do not change, and every step asks."""
        found: list[Term] = []
        for name, part in self.parts.items():
            own = part.terms()
            for term in own:
                label = name if own[0].objective is part else f"{name}.{term.name}"
                found.append(Term(label, term.objective, (self.weights[name], *term.weights)))
        return tuple(found)
