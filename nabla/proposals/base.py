"""Proposals: how the refined row becomes a token (Algorithm 1)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.errors import ConfigError
from nabla.core.intact import intact
from nabla.core.registry import Registry
from nabla.core.trajectory import Trajectory


@dataclass(frozen=True, eq=False)
class ProposalView:
    """What a proposal may look at.

    Args:
        logits: refined logits of the row at ``position``, before temperature ``[K]``.
        reference: the LM's own logits of that row ``[K]``.
        candidates: token ids of the K columns.
        trajectory: the current response.
        position: index of the row in the response.
        generator: for proposals that draw.
    """

    logits: Float[Tensor, " k"]
    reference: Float[Tensor, " k"]
    candidates: Int[Tensor, " k"]
    trajectory: Trajectory
    position: int
    generator: torch.Generator


class Proposal(ABC):
    """Turns a refined row into a token; settings only."""

    @abstractmethod
    def index(self, view: ProposalView) -> Int[Tensor, ""]:
        """Column of the proposed token."""

    @property
    def dense(self) -> bool:
        """Whether :meth:`log_density` says how probable each token is."""
        return False

    def log_density(self, view: ProposalView, column: int) -> float:
        """``log q`` of a column, nats; -inf for one that is never proposed.

        Raises ConfigError where the proposal has no density.
        """
        raise ConfigError(
            f"The proposal {type(self).__name__} has no density",
            got=column,
            fix="Choose the proposal 'sample', or an acceptance rule that needs no densities.",
        )

    def propose(self, view: ProposalView) -> int:
        """Id of the proposed token. Raises ConfigError if ``index`` gives no usable column."""
        with intact(self, view.trajectory, view.logits, view.reference):
            found = torch.as_tensor(self.index(view))
        if found.numel() != 1:
            raise ConfigError(f"{type(self).__name__}.index must return one column", got=found)
        index = int(found)
        if not 0 <= index < view.logits.shape[-1] or not torch.isfinite(view.logits[index]):
            raise ConfigError(f"{type(self).__name__} proposed a masked or unknown column", got=index)
        return int(view.candidates[index])


proposals: Registry[Proposal] = Registry("proposals", lambda: Proposal, __package__)
