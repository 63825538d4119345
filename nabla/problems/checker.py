"""What can tell right from wrong: a sandbox family by its prompts, or a task by its problems."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Checker(Protocol):
    """Grades responses to prompts."""

    @property
    def name(self) -> str:
        """Of the family or task, for records."""

    def check(self, prompt: str, response: str) -> bool:
        """Whether the entire response is right; anything malformed is wrong, never an error."""

    def render(self, prompt: str, response: str) -> str:
        """A view for people whose last line is the verdict."""
