"""The response of a single problem while it becomes final."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.text import Text

from nabla.core.console import make_console
from nabla.core.prompt import Prompt
from nabla.core.solution import Solution
from nabla.core.text import Pieces, pieces, token_text
from nabla.core.trajectory import Trajectory
from nabla.engine.events import Callback, Run
from nabla.launch.callbacks.base import callbacks

#: Around a revised token, so that it can be told without colours.
OPEN, CLOSE = "⟦", "⟧"
#: Around a bad one.
BAD_OPEN, BAD_CLOSE = ">", "<"
#: Columns of the words before a text.
_LABEL = 10
#: Columns of a text that a line shows at the most where the console is wider.
_WIDEST = 120


@callbacks.register("stream")
class Stream(Callback):
    """Prints tokens as they are committed, revised ones marked ⟦like this⟧; for one problem at a time.

    A search that commits nothing on its way is told line by line in place of that: texts that are written to
    their end or stopped, the first bad token marked >like this<, what is drawn in its place, what becomes of
    it, and fresh starts. The answer stands below them.
    """

    def __init__(self) -> None:
        self._pieces: Pieces | None = None
        self._shown = 0
        self._revised: set[int] = set()
        self._sweeps = self._told = False
        #: Text → its first bad token, of those that were told.
        self._texts: dict[tuple[int, ...], int | None] = {}

    def on_run_start(self, run: Run, prompts: Sequence[Prompt]) -> None:
        words = self._words = run.vocabulary
        shown = Pieces(words.tokenizer, lead=words.lead, ends=words.eos_ids)
        self._pieces = shown if len(prompts) == 1 else None
        self._console = make_console()
        self._shown, self._revised = 0, set()
        self._sweeps = self._told = False
        self._texts = {}

    # -- a sweep, token by token ---------------------------------------------------------------------

    def on_select(self, prompt: Prompt, trajectory: Trajectory, positions: Sequence[int]) -> None:
        self._sweeps = True

    def on_commit(self, prompt: Prompt, trajectory: Trajectory) -> None:
        self._show(trajectory.tokens[: trajectory.committed].tolist())

    def on_solution(self, solution: Solution) -> None:
        if self._told:
            self._revised = set(solution.revised_positions)
            self._tell("answer", Text(), end="")
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

    # -- a search, change by change ------------------------------------------------------------------

    def on_stop(self, prompt: Prompt, trajectory: Trajectory, position: int) -> None:
        self._tell_text(trajectory, position)

    def on_restart(self, prompt: Prompt, kept: Trajectory) -> None:
        self._tell("restart", Text("a fresh text"))
        self._texts.clear()  # it may be one that has been written before

    def on_proposal(self, prompt: Prompt, current: Trajectory, position: int, token: int) -> None:
        if not self._sweeps:
            self._tell_text(current)
            names = (token_text(self._words.tokenizer, t) for t in (int(current.tokens[position]), token))
            self._tell("drawn", Text(f"at {position}: {' → '.join(names)}"))

    def on_accept(self, prompt: Prompt, old: Trajectory, new: Trajectory, position: int) -> None:
        self._revised.add(position)
        self._decided("accepted", "green", old, new)

    def on_reject(self, prompt: Prompt, kept: Trajectory, other: Trajectory, position: int) -> None:
        self._decided("rejected", "dim", kept, other)

    def _decided(self, word: str, style: str, old: Trajectory, new: Trajectory) -> None:
        if not self._sweeps:
            self._tell_text(new)
            bad = [self._texts.get(tuple(t.tokens.tolist())) for t in (old, new)]
            places = " → ".join("none" if place is None else str(place) for place in bad)
            rewards = [t.reward for t in (old, new) if _whole(t)]
            known = [f"{r:.2f}" for r in rewards if r is not None and not math.isnan(r)]
            parts = [f"first bad token {places}"] if bad != [None, None] else []
            parts += [f"reward {' → '.join(known)}"] if len(known) == 2 else []
            self._tell(word, Text(", ".join(parts)), style)

    def _tell_text(self, trajectory: Trajectory, bad: int | None = None) -> None:
        """A text: one with a bad token always, another only once."""
        key = tuple(trajectory.tokens.tolist())
        if self._pieces is not None and (bad is not None or key not in self._texts):
            self._texts[key] = bad
            self._tell("written" if _whole(trajectory) else "stopped", self._text(trajectory, bad))

    def _text(self, trajectory: Trajectory, bad: int | None) -> Text:
        """On one line, as much of it as there is room for, around its first bad token or its end."""
        words = self._words
        parts = pieces(words.tokenizer, trajectory.tokens.tolist(), words.lead, words.eos_ids)
        parts = [part.replace("\n", "\\n") for part in parts]
        room = min(self._console.width - _LABEL - 2, _WIDEST)
        place = len(parts) if bad is None else bad
        front, end = "".join(parts[:place]), "".join(parts[place + 1 :])
        own = "" if bad is None else f"{BAD_OPEN}{parts[bad]}{BAD_CLOSE}"
        behind = min(len(end), max(room - len(own) - len(front), room // 4))
        before = max(room - len(own) - behind, 0)
        front = front if len(front) <= before else f"…{front[len(front) - before + 1 :]}"
        end = end if len(end) <= behind else f"{end[: max(behind - 1, 0)]}…"
        return Text.assemble(front, (own, "bold red"), (end, "dim"))

    def _tell(self, label: str, text: Text, style: str = "", end: str = "\n") -> None:
        if self._pieces is not None:
            self._told = True
            line = Text.assemble((label.ljust(_LABEL), style or "dim"), text)
            self._console.print(line, end=end, no_wrap=True, crop=False, soft_wrap=True)
            self._console.file.flush()


def _whole(trajectory: Trajectory) -> bool:
    return trajectory.finished or len(trajectory) >= trajectory.sampling.max_new_tokens


def marked(piece: str, revised: bool) -> Text:
    """A token's text, brackets and colour around it if it was revised."""
    return Text(f"{OPEN}{piece}{CLOSE}", style="bold green") if revised else Text(piece)
