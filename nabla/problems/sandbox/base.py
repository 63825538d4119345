"""The interface of a sandbox family: prompts with an exact checker.

A family knows how to draw problems, how to tell its own prompts from other text, and how to grade a
response without evaluating anything that was written in it.
"""

from __future__ import annotations

import hashlib
import random
from abc import ABC, abstractmethod
from typing import Literal

from nabla.core.errors import NablaError
from nabla.problems.problem import Problem

Split = Literal["train", "test"]

#: One problem in this many belongs to the test split.
TEST_SHARE = 8

_TRIES_PER_PROBLEM = 1000
#: Problems that may be drawn at once: a larger number would be drawn for hours, and fill the memory.
MOST = 1_000_000


def digest(text: str) -> str:
    """A stable hexadecimal digest of a text (the same in every process and on every machine)."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def split_of(task: str, prompt: str) -> Split:
    """The split a problem belongs to, a function of its text alone.

    Training and test problems are therefore disjoint whatever seeds and sizes were asked for.
    """
    return "test" if int(digest(f"{task}:{prompt}"), 16) % TEST_SHARE == 0 else "train"


class Family(ABC):
    """A family of problems with exact answers."""

    name: str

    @abstractmethod
    def sample(self, rng: random.Random) -> tuple[str, str]:
        """Draw one (prompt, solution), of either split."""

    @abstractmethod
    def matches(self, prompt: str) -> bool:
        """Whether the text is a prompt of this family."""

    @abstractmethod
    def progress(self, prompt: str, response: str) -> list[bool]:
        """For every character of the response: is everything up to it, itself included, right.

        Once false it stays false. All true does not imply that the response is complete. Raises
        `NablaError` if the prompt is not of this family.
        """

    @abstractmethod
    def check(self, prompt: str, response: str) -> bool:
        """Whether the entire response is right; anything malformed is wrong, never an error.

        Raises `NablaError` if the *prompt* is not of this family.
        """

    @abstractmethod
    def render(self, prompt: str, response: str) -> str:
        """A multi-line view for people, also of wrong and malformed responses."""

    def draw(self, rng: random.Random, split: Split) -> Problem:
        """Draw one problem of the given split."""
        for _ in range(_TRIES_PER_PROBLEM):
            prompt, solution = self.sample(rng)
            if split_of(self.name, prompt) == split:
                key = digest(f"{self.name}:{prompt}")
                return Problem(f"{self.name}-{split}-{key}", prompt, solution, {"family": self.name})
        raise NablaError(
            f"found no {self.name} problem of the {split} split in {_TRIES_PER_PROBLEM} draws",
            got=self,
            fix="widen the difficulty range",
        )

    def problems(self, split: Split, n: int, seed: int) -> list[Problem]:
        """`n` distinct problems of a split; the same arguments always give the same list."""
        if split not in ("train", "test"):
            raise NablaError("unknown split", got=split, fix='use "train" or "test"')
        if n < 0:
            raise NablaError("the number of problems is negative", got=n, fix="use n >= 0")
        if n > MOST:
            raise NablaError(
                "so many problems of the sandbox are not drawn", got=n, fix=f"use at most {MOST:,}"
            )
        rng = random.Random(f"{self.name}:{split}:{seed}")
        found: dict[str, Problem] = {}
        repeats = 0
        while len(found) < n and repeats < _TRIES_PER_PROBLEM:
            problem = self.draw(rng, split)
            repeats = repeats + 1 if problem.id in found else 0
            found[problem.id] = problem
        if len(found) < n:
            raise NablaError(
                f"there are too few distinct {self.name} problems in the {split} split",
                got=f"{len(found)} of {n}",
                fix="ask for fewer problems or widen the difficulty range",
            )
        return list(found.values())

    def _require_match(self, prompt: str) -> None:
        if not self.matches(prompt):
            raise NablaError(
                f"this is not a prompt of the task {self.name!r}",
                got=prompt,
                fix="choose the task with nabla.problems.sandbox.task_for(prompt)",
            )
