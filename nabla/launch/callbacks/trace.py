"""Case studies: every event of a problem as a line of JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nabla.core.errors import ConfigError, NablaError
from nabla.core.prompt import Prompt
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.engine.events import Callback, Run
from nabla.launch.callbacks.base import callbacks

if TYPE_CHECKING:
    from nabla.engine.reports import Refinement


@callbacks.register("trace")
class Trace(Callback):
    """Writes what happened to each problem as JSON lines: rollouts, refinements, decisions.

    Args:
        path: of the file, replaced at the start of a run.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_run_start(self, run: Run, prompts: Sequence[Prompt]) -> None:
        self._decode = run.vocabulary.response
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text("")
        except OSError as error:
            raise ConfigError(f"The trace cannot be written: {error}", got=str(self.path)) from error

    def _write(self, event: str, problem: str, **about: Any) -> None:
        with self.path.open("a") as file:
            row = {"event": event, "problem": problem, **about}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def on_rollout(self, prompt: Prompt, trajectory: Trajectory) -> None:
        self._write("rollout", prompt.id, text=self._decode(trajectory.tokens))

    def on_select(self, prompt: Prompt, trajectory: Trajectory, positions: Sequence[int]) -> None:
        self._write("select", prompt.id, positions=list(positions))

    def on_refine(self, prompt: Prompt, position: int, refinement: Refinement) -> None:
        terms = {name: vars(term) for name, term in refinement.first.terms.items()}
        self._write(
            "refine",
            prompt.id,
            position=position,
            kl=float(refinement.kl.max()),
            gradient_norm=refinement.first.gradient_norm,
            gradients=refinement.recomputed,
            terms=terms,
        )

    def on_proposal(self, prompt: Prompt, current: Trajectory, position: int, token: int) -> None:
        old = int(current.tokens[position])
        self._write("proposal", prompt.id, position=position, old=old, new=token)

    def on_accept(self, prompt: Prompt, old: Trajectory, new: Trajectory, position: int) -> None:
        self._decision("accept", prompt, old, new, position)

    def on_reject(self, prompt: Prompt, kept: Trajectory, other: Trajectory, position: int) -> None:
        self._decision("reject", prompt, kept, other, position)

    def _decision(
        self, event: str, prompt: Prompt, current: Trajectory, proposal: Trajectory, position: int
    ) -> None:
        self._write(
            event,
            prompt.id,
            position=position,
            reward=current.reward,
            proposed_reward=proposal.reward,
            proposed=self._decode(proposal.tokens),
        )

    def on_solution(self, solution: Solution) -> None:
        self._write("solution", solution.prompt.id, text=solution.response, reward=solution.reward)

    def on_exception(self, prompt: Prompt, error: NablaError) -> None:
        self._write("exception", prompt.id, error=str(error))
