"""Case studies: every event of a problem as a line of JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nabla.core.errors import ConfigError, NablaError
from nabla.core.files import Appender, json_line, reason
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
        path: of the file. Runs of one process share it; a file of another one is not written over.
    """

    #: Files of this process: a comparison of methods writes one trace, each method with an object of its own.
    _files: ClassVar[dict[Path, Appender]] = {}

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_run_start(self, run: Run, prompts: Sequence[Prompt]) -> None:
        self._decode = run.vocabulary.response
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            place = self.path.resolve()
            if place not in self._files or not place.exists():
                if run.main and place.exists():
                    raise ConfigError(
                        "The trace's file is there already", got=str(self.path), fix="Choose another path."
                    )
                self._files[place] = Appender(place, shared=not run.main)
        except (OSError, ValueError) as error:
            raise ConfigError(f"The trace cannot be written: {reason(error)}", got=str(self.path)) from error
        self._file = self._files[place]

    def _write(self, event: str, problem: str, **about: Any) -> None:
        self._file.append(json_line({"event": event, "problem": problem, **about}))

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
