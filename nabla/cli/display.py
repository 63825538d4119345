"""Solutions for people."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nabla.core.solution import Solution
from nabla.core.text import pieces, token_text
from nabla.launch.callbacks.stream import marked
from nabla.launch.records import graded
from nabla.models.vocabulary import Vocabulary
from nabla.problems.checker import Checker
from nabla.problems.sandbox.latin import SIZE, LatinSquare


def show_solution(
    console: Console, solution: Solution, words: Vocabulary, task: Checker | None, *, streamed: bool = False
) -> None:
    """The response with its revised tokens marked, the checker's verdict, the reward, the proposals.

    ``streamed`` says that the response has been printed already.
    """
    if not streamed:
        console.print(Text(solution.prompt.text, style="bold"))
        console.print(marked_response(solution, words))
    if task is not None:
        console.print(verdict(solution, task))
    if not solution.finished:
        console.print(Text("The length limit cut the response off.", style="yellow"))
    if solution.reward is not None:
        first = solution.revisions[0].old_reward if solution.revisions else None
        before = f" (first response {first:.3f})" if first is not None else ""
        console.print(f"reward {solution.reward:.3f}{before}")
    if solution.revisions:
        console.print(revision_table(solution, words.tokenizer))


def marked_response(solution: Solution, words: Vocabulary) -> Text:
    """The response, revised tokens marked."""
    text = Text()
    for position, piece in enumerate(pieces(words.tokenizer, solution.tokens, words.lead, words.eos_ids)):
        text.append_text(marked(piece, position in solution.revised_positions))
    return text


def verdict(solution: Solution, task: Checker) -> Text:
    """The task's own view (a grid, steps on lines) and what the checker says; a star marks revised cells."""
    right = graded(solution, task)
    if right is None:
        return Text("not graded", style="yellow")
    lines = task.render(solution.prompt.text, solution.response).splitlines()
    view = lines[:-1]
    if isinstance(task, LatinSquare):
        view = starred(view, solution.revised_positions)
    return Text.assemble("\n".join(view), "\n", (lines[-1], "bold green" if right else "bold red"))


def starred(grid: list[str], positions: tuple[int, ...]) -> list[str]:
    """Latin squares have one token per character, so a position is a cell: three characters of a line."""
    lines = [list(line.ljust(3 * SIZE)) for line in grid]
    for position in positions:
        row, column = divmod(position, SIZE + 1)
        if row < SIZE and column < SIZE and lines[row][3 * column + 2] == " ":
            lines[row][3 * column + 2] = "*"
    return ["".join(line).rstrip() for line in lines]


def revision_table(solution: Solution, tokenizer: Any) -> Table:
    """Every proposal: where, which token for which, the rewards, and what became of it."""
    accepted = sum(revision.accepted for revision in solution.revisions)
    table = Table(
        title=f"Proposals: {accepted} accepted, {len(solution.revisions) - accepted} rejected",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
    )
    for name in ("position", "old → new", "reward", "proposed", ""):
        table.add_column(name, justify="left" if name in ("old → new", "") else "right")
    for revision in solution.revisions:
        old, new = (token_text(tokenizer, t) for t in (revision.old_token, revision.new_token))
        table.add_row(
            str(revision.position),
            Text(f"{old} → {new}"),
            _number(revision.old_reward),
            _number(revision.new_reward),
            Text("accepted", style="green") if revision.accepted else Text("rejected", style="dim"),
        )
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
