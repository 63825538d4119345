"""Several rewards as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nabla.core.errors import ConfigError
from nabla.core.trajectory import Score
from nabla.rewards.base import (
    Judged,
    Reading,
    RelaxedResponse,
    RelaxedReward,
    Response,
    Reward,
    Room,
    rewards,
)

if TYPE_CHECKING:
    from nabla.models.body import Body
    from nabla.models.causal_lm import CausalLM
    from nabla.models.channels import Channel
    from nabla.models.runner import Runner
    from nabla.models.vocabulary import Vocabulary


@rewards.register("ensemble")
class EnsembleReward(Reward):
    """``Σ_m w_m r_m``: differentiable where all members are, with values where all members have them.

    Args:
        members: the rewards.
        weights: one per member; the mean if None.
    """

    unit = "weighted reward"

    def __init__(self, members: Sequence[Reward], weights: Sequence[float] | None = None) -> None:
        if not members:
            raise ConfigError("An ensemble needs at least one member")
        self.members = list(members)
        self.weights = [1 / len(members)] * len(members) if weights is None else [float(w) for w in weights]
        if len(self.weights) != len(self.members):
            raise ConfigError(f"An ensemble of {len(self.members)} needs as many weights", got=self.weights)

    @property
    def differentiable(self) -> bool:
        return all(member.differentiable for member in self.members)

    @property
    def unreadable(self) -> Tensor | None:  # type: ignore[override]
        parts = [m.unreadable for m in self.members if m.unreadable is not None]
        return torch.cat(parts) if parts else None

    def written_by(self, lm: CausalLM | None) -> EnsembleReward:
        return EnsembleReward([member.written_by(lm) for member in self.members], self.weights)

    def bind(self, vocabulary: Vocabulary) -> EnsembleReward:
        bound = EnsembleReward([member.bind(vocabulary) for member in self.members], self.weights)
        bound.vocabulary = vocabulary
        return bound

    def score(self, responses: Sequence[Response], runner: Runner) -> list[Score]:
        by_member = [member.score(responses, runner) for member in self.members]
        return [self._score(scores) for scores in zip(*by_member, strict=True)]

    def _score(self, scores: Sequence[Score]) -> Score:
        return Score(sum(weight * score.value for weight, score in zip(self.weights, scores, strict=True)))

    @property
    def has_values(self) -> bool:
        return all(member.has_values for member in self.members)

    @property
    def reads_every_token(self) -> bool:
        return all(member.reads_every_token for member in self.members)

    def values(self, texts: Sequence[Reading], runner: Runner) -> list[list[float]]:
        """The members' values, weighted as their rewards are; NaN at a token where one has none. The reward
        of a whole text is no function of them (:meth:`together`): each member makes its own of its own."""
        by_member = [member.values(texts, runner) for member in self.members]
        return [self._weighted(rows) for rows in zip(*by_member, strict=True)]

    def of_policy(
        self, log_probs: Sequence[float], response: Response | None = None
    ) -> list[float] | None:
        by_member = [member.of_policy(log_probs, response) for member in self.members]
        known = [row for row in by_member if row is not None]
        return self._weighted(known) if len(known) == len(by_member) else None

    def _weighted(self, rows: Sequence[Sequence[float]]) -> list[float]:
        """Of each token, from the members' values."""
        return [
            sum(weight * value for weight, value in zip(self.weights, values, strict=True))
            for values in zip(*rows, strict=True)
        ]

    def bodies(self) -> tuple[Body, ...]:
        return tuple(body for member in self.members for body in member.bodies())

    def holders(self) -> tuple[Any, ...]:
        return tuple(holder for member in self.members for holder in member.holders())

    def channels(self) -> tuple[Channel, ...]:
        return tuple(channel for member in self.members for channel in member.channels())

    @property
    def keeps_graphs(self) -> bool:
        return all(member.keeps_graphs for member in self.members)

    def judged(self, responses: Sequence[RelaxedResponse], runner: Runner, room: Room) -> list[Judged]:
        by_member = [member.judged(responses, runner, room) for member in self.members]
        found = []
        for parts in zip(*by_member, strict=True):
            scores, graphs = [part.score for part in parts], [part.reward for part in parts]
            known = [graph for graph in graphs if graph is not None]
            found.append(Judged(self._score(scores), self._sum(known) if len(known) == len(graphs) else None))
        return found

    def relaxed(self, responses: Sequence[RelaxedResponse], runner: Runner) -> list[RelaxedReward]:
        if not self.differentiable:
            return super().relaxed(responses, runner)
        by_member = [member.relaxed(responses, runner) for member in self.members]
        return [self._sum(parts) for parts in zip(*by_member, strict=True)]

    def _sum(self, parts: Sequence[RelaxedReward]) -> RelaxedReward:
        value = self.weights[0] * parts[0].value
        for weight, part in zip(self.weights[1:], parts[1:], strict=True):
            value = value + weight * part.value.to(value.device)
        return RelaxedReward(
            value,
            tuple(leaf for part in parts for leaf in part.leaves),
            tuple(run for part in parts for run in part.passes),
        )
