"""All that an engine does with gradients, in one place."""

from __future__ import annotations

from nabla.engine.gradient.graphs import Graphs
from nabla.engine.gradient.norms import GradientNorms
from nabla.engine.gradient.passes import Passes
from nabla.engine.gradient.rows import GradientRows
from nabla.engine.gradient.stages import Stages
from nabla.models.causal_lm import CausalLM
from nabla.models.ledger import ByteBudget
from nabla.models.runner import Runner
from nabla.rewards.base import Reward


class GradientComputer:
    """Holds the parts that share an engine's models: gradients and values of terms at texts, rows of
    gradients, their norms.

    Args:
        lm: the language model.
        reward: differentiable, or None if no term needs it.
        runner: counts and batches.
        graphs: that earlier passes have kept; none by default.
    """

    def __init__(
        self, lm: CausalLM, reward: Reward | None, runner: Runner, graphs: Graphs | None = None
    ) -> None:
        passes = Passes(lm, reward, runner, graphs or Graphs(ByteBudget(0), on=False))
        rows = GradientRows(lm, reward)
        self.compute = Stages(passes, runner).compute
        self.values = passes.values
        self.rows, self.rows_of = rows.rows, rows.rows_of
        self.norms = GradientNorms(lm, rows).norms
