"""The response of a single problem while it becomes final."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from nabla.core.console import make_console
from nabla.core.prompt import Prompt
from nabla.core.solution import Solution
from nabla.core.text import Pieces
from nabla.core.trajectory import Trajectory
from nabla.engine.events import Callback, Run
from nabla.launch.callbacks.base import callbacks

#: Around a revised token, so that it can be told without colours.
OPEN, CLOSE = "⟦", "⟧"


@callbacks.register("stream")
class Stream(Callback):
    """Prints tokens as they are committed, revised ones marked ⟦like this⟧; for one problem at a time."""

    def __init__(self) -> None:
        self._pieces: Pieces | None = None
        self._shown = 0
        self._revised: set[int] = set()

    def on_run_start(self, run: Run, prompts: Sequence[Prompt]) -> None:
        words = run.vocabulary
        self._pieces = Pieces(words.tokenizer, lead=words.lead) if len(prompts) == 1 else None
        self._console = make_console()
        self._shown, self._revised = 0, set()

    def on_accept(self, prompt: Prompt, old: Trajectory, new: Trajectory, position: int) -> None:
        self._revised.add(position)

    def on_commit(self, prompt: Prompt, trajectory: Trajectory) -> None:
        self._show(trajectory.tokens[: trajectory.committed].tolist())

    def on_solution(self, solution: Solution) -> None:
        self._show(solution.tokens)
        if self._pieces is not None:
            self._console.print(Text(self._pieces.rest()))

    def _show(self, tokens: Sequence[int]) -> None:
        if self._pieces is None:
            return
        for position in range(self._shown, len(tokens)):
            piece = self._pieces.add(tokens[position])
            self._console.print(marked(piece, position in self._revised), end="")
        self._shown = len(tokens)
        self._console.file.flush()


def marked(piece: str, revised: bool) -> Text:
    """A token's text, brackets and colour around it if it was revised."""
    return Text(f"{OPEN}{piece}{CLOSE}", style="bold green") if revised else Text(piece)
