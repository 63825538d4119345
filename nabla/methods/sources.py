"""Where the rows of a sweep come from: the language model, refinement, or what it is compared with."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nabla.core.extras import require_extra
from nabla.core.registry import construct
from nabla.core.trajectory import Trajectory
from nabla.objectives.base import Objective, objectives
from nabla.objectives.kl import kl_rows
from nabla.refinement.directions import Direction
from nabla.refinement.dto import DTO
from nabla.rewards.base import require_differentiable

if TYPE_CHECKING:
    from nabla.engine.engine import Engine
    from nabla.engine.initial_rows import InitialRows
    from nabla.engine.session import Session

#: Inverse temperature beyond which a row counts as its argmax.
_COLDEST = 1e8


@dataclass(frozen=True, eq=False)
class Row:
    """What a token is proposed from.

    Args:
        logits: the row that proposals draw from, before temperature ``[K]``.
        reference: its first row is the language model's own ``[R, K]``.
    """

    logits: Float[Tensor, " k"]
    reference: InitialRows


class RowSource(ABC):
    """Gives the distribution that the token of a selected position is proposed from; settings only."""

    @abstractmethod
    async def row(self, session: Session, trajectory: Trajectory, ahead: Sequence[int]) -> Row:
        """The row at the first uncommitted position.

        Args:
            session: of the problem.
            trajectory: the current response.
            ahead: positions that are asked for next, unless a proposal is accepted.
        """

    @property
    def of_prefix(self) -> bool:
        """Whether a row depends on the tokens before it alone, so that both ways of a swap share it."""
        return False

    @property
    def selection_objective(self) -> Objective | None:
        """Whose gradient a selector looks at; None if there is none."""
        return None

    @property
    def differentiated(self) -> Objective | None:
        """Whose gradient at the current response a row begins with; None: no row does. Passes over responses
        may keep their graphs for it."""
        return None

    def check(self, engine: Engine) -> None:
        """Called once before a run; override to raise ConfigError if the engine lacks something."""
        return


class Own(RowSource):
    """The language model's own row: one product with the head, no pass through a model.

    Args:
        objective: only for selectors that look at its gradient.
    """

    def __init__(self, objective: Objective | str | dict[str, Any] | None = None) -> None:
        self.objective = None if objective is None else objectives.build(objective)

    @property
    def of_prefix(self) -> bool:
        return True

    @property
    def selection_objective(self) -> Objective | None:
        return self.objective

    async def row(self, session: Session, trajectory: Trajectory, ahead: Sequence[int]) -> Row:
        position = trajectory.committed
        reference = session.reference(trajectory, slice(position, position + 1), ahead=ahead)
        return Row(reference.logits[0], reference)


class Refined(RowSource):
    """The row that the inner loop comes to.

    Args:
        dto: the inner loop.
        direction: what it follows; the gradient by default.

    Raises ConfigError if the inner loop cannot follow the direction.
    """

    def __init__(self, dto: DTO | dict[str, Any] | None = None, direction: Direction | None = None) -> None:
        self.dto, self.direction = construct(DTO, dto), direction
        if direction is not None:
            direction.check(self.dto.estimator, self.dto.objective, self.dto.rows)

    @property
    def selection_objective(self) -> Objective:
        return self.dto.objective

    @property
    def differentiated(self) -> Objective | None:
        return self.dto.objective if self.dto.at_text else None

    def check(self, engine: Engine) -> None:
        if self.dto.needs_reward:
            require_differentiable(
                engine.reward, "The objective has a reward term", "choose objective='likelihood'"
            )

    async def row(self, session: Session, trajectory: Trajectory, ahead: Sequence[int]) -> Row:
        along = {} if self.direction is None else {"direction": self.direction}
        refinement = await self.dto.refine(trajectory, session, ahead, **along)
        return Row(refinement.logits[0], refinement.reference)


class Sharpened(RowSource):
    """The language model's own row, sharpened as far in KL as the inner loop would move it.

    The row is refined (and paid for), then thrown away: what is left is ``softmax(β z)``, β ≥ 1 such that
    ``KL(p_sharp || p_ref)`` is that of the refined row. A KL that not even the argmax reaches gives the
    argmax, counted as ``sharpening_limits``.

    Args:
        dto: the inner loop.
    """

    def __init__(self, dto: DTO | dict[str, Any] | None = None) -> None:
        self.refined = Refined(dto)

    @property
    def dto(self) -> DTO:
        """The inner loop."""
        return self.refined.dto

    @property
    def selection_objective(self) -> Objective:
        return self.refined.selection_objective

    @property
    def differentiated(self) -> Objective | None:
        return self.refined.differentiated

    def check(self, engine: Engine) -> None:
        self.refined.check(engine)

    async def row(self, session: Session, trajectory: Trajectory, ahead: Sequence[int]) -> Row:
        refined = await self.refined.row(session, trajectory, ahead)
        reference = refined.reference.logits[0]
        target = float(kl_rows(refined.logits[None].double(), reference[None].double()))
        logits, reached = sharpened(reference, target)
        if not reached:
            session.meter.count("sharpening_limits")
        return Row(logits, refined.reference)


@torch.no_grad()
def sharpened(logits: Float[Tensor, " k"], target: float) -> tuple[Float[Tensor, " k"], bool]:
    """``β·logits`` with ``KL(softmax(β z) || softmax(z)) = target``, nats, and whether it can be reached;
    if not, the row of the argmax (of all of them in a tie).

    The KL grows with β from 0 at β = 1 to ``-log`` of the argmax's probability, so that there is one β.
    """
    require_extra("eval", "scipy", purpose="Sharpening matched in KL")
    from scipy.optimize import brentq

    if target <= 1e-14:  # rounding
        return logits, True
    shifted = (logits - logits.max()).double()
    z = shifted[shifted > -math.inf].cpu().numpy()
    log_q = z - math.log(np.exp(z).sum())

    def excess(log_beta: float) -> float:
        scaled = math.exp(log_beta) * z
        weights = np.exp(scaled)
        total = weights.sum()
        return float((weights * (scaled - math.log(total) - log_q)).sum() / total) - target

    limit = -math.log(float(np.exp(log_q[z == 0]).sum()))
    high = 1.0
    if target < limit:
        while high < math.log(_COLDEST) and excess(high) <= 0:
            high *= 2
    if target >= limit or excess(high) <= 0:
        return logits.masked_fill(shifted < 0, -math.inf), False
    beta = math.exp(brentq(excess, 0.0, high, xtol=1e-14))
    return (beta * shifted).to(logits), True
