"""Several rewards as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nabla.core.errors import ConfigError
from nabla.core.trajectory import Score
from nabla.rewards.base import Judged, RelaxedResponse, RelaxedReward, Response, Reward, Room, rewards

if TYPE_CHECKING:
    from nabla.models.body import Body
    from nabla.models.channels import Channel
    from nabla.models.runner import Runner
    from nabla.models.vocabulary import Vocabulary


@rewards.register("ensemble")
class EnsembleReward(Reward):
    """``Σ_m w_m r_m``: differentiable where all members are.

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

    def bind(self, vocabulary: Vocabulary) -> EnsembleReward:
        bound = EnsembleReward([member.bind(vocabulary) for member in self.members], self.weights)
        bound.vocabulary = vocabulary
        return bound

    def score(self, responses: Sequence[Response], runner: Runner) -> list[Score]:
        by_member = [member.score(responses, runner) for member in self.members]
        return [self._score(scores) for scores in zip(*by_member, strict=True)]

    def _score(self, scores: Sequence[Score]) -> Score:
        return Score(sum(weight * score.value for weight, score in zip(self.weights, scores, strict=True)))

    def bodies(self) -> tuple[Body, ...]:
        return tuple(body for member in self.members for body in member.bodies())

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
