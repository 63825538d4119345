"""Sequential revision by re-sampling, without a gradient: the control of ∇-Reasoner (SPEC section 10)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nabla.acceptance.base import Acceptance
from nabla.core.errors import ConfigError
from nabla.core.sampling import Sampling
from nabla.core.trajectory import Trajectory
from nabla.methods.base import methods
from nabla.methods.sweep import Row, Sweep
from nabla.objectives.base import Objective, objectives
from nabla.proposals.base import Proposal
from nabla.rewards.base import require_differentiable
from nabla.selectors.base import Selector

if TYPE_CHECKING:
    from nabla.engine.engine import Engine
    from nabla.engine.session import Session


@methods.register("revision")
class Revising(Sweep):
    """∇-Reasoner with a gradient of zero: tokens are drawn again from the language model's own row.

    Same positions, same draws, same acceptance (arXiv 2603.04948, Algorithm 3 at a learning rate of 0);
    a proposal costs one product with the head and no pass through a model.

    Args:
        objective: only for selectors that look at its gradient, which then costs what it costs there.
        selector, proposal, acceptance, sampling, max_rollouts, rounds: as in ``nabla-reasoner``.
    """

    def __init__(
        self,
        selector: Selector | str | dict[str, Any] = "entropy",
        proposal: Proposal | str | dict[str, Any] = "sample",
        acceptance: Acceptance | str | dict[str, Any] = "strict",
        sampling: Sampling | dict[str, Any] | None = None,
        max_rollouts: int | None = 8,
        rounds: int = 1,
        objective: Objective | str | dict[str, Any] | None = None,
    ) -> None:
        super().__init__(selector, proposal, acceptance, sampling, max_rollouts, rounds)
        self.objective = None if objective is None else objectives.build(objective)
        if self.selector.needs_gradient and self.objective is None:
            raise ConfigError(
                "The selector looks at a gradient, and revision has no objective",
                fix="Pass an objective, or choose another selector, e.g. 'entropy'.",
            )

    @property
    def selection_objective(self) -> Objective | None:
        return self.objective

    def check(self, engine: Engine) -> None:
        if self.selector.needs_gradient and self.objective is not None:
            needed = any(t.objective.needs_reward for t in self.objective.terms() if t.active)
            if needed:
                require_differentiable(
                    engine.reward,
                    "The selector's objective has a reward term",
                    "choose another selector, e.g. 'entropy'",
                )
        super().check(engine)

    async def row(self, session: Session, trajectory: Trajectory, ahead: Sequence[int]) -> Row:
        position = trajectory.committed
        reference = session.reference(trajectory, slice(position, position + 1), ahead=ahead)
        return Row(reference.logits[0], reference)
