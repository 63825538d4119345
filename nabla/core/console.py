"""The console everything for people is printed to."""

from __future__ import annotations

from rich.console import Console

#: Columns where there is no terminal to ask (files, pipes, CI).
WIDTH = 110


def make_console(*, stderr: bool = False) -> Console:
    """As wide as the terminal, or 110 columns; no guessing at what to colour."""
    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(
        stderr=stderr, highlight=False, soft_wrap=True, width=WIDTH
    )
