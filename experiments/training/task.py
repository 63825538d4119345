"""What is trained for: sums of six or seven digits, every running sum written out; what is right in one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from nabla.core.errors import ConfigError
from nabla.problems.tasks.base import Problem
from nabla.problems.tasks.reasoning_gym import ReasoningGym

#: The benchmark says what the task is; training reads it there.
CONFIG = Path(__file__).parents[1] / "configs" / "real.yaml"
#: Tokens of the longest right answer, and some.
MOST_TOKENS = 56

_EXPRESSION = re.compile(r"([-+]?\d+(?:\s*[-+]\s*\d+)+)\s*=?\s*$")
_TERM = re.compile(r"([-+]?)\s*(\d+)")


def build(split: str, **changes: Any) -> ReasoningGym:
    """The benchmark's task, which is the same under all its verifiers.

    Args:
        split: ``train`` or ``test``.
        changes: to its arguments.
    """
    return first_task(CONFIG, split, **changes)


def first_task(config: Path, split: str, **changes: Any) -> ReasoningGym:
    """The first task of a benchmark's configuration.

    Args:
        config: the file.
        split: ``train`` or ``test``.
        changes: to its arguments.
    """
    spec = next(iter(yaml.safe_load(config.read_text(encoding="utf-8"))["tasks"].values()))["task"]
    return ReasoningGym(**{**{k: v for k, v in spec.items() if k != "name"}, "split": split, **changes})


def training(n: int, seed: int = 0) -> list[Problem]:
    """``n`` training problems, none of which asks what a test problem of the benchmark asks.

    Args:
        n: how many.
        seed: of the first one; each is its own.
    """
    return untested(build, n, seed)


def untested(build: Callable[..., ReasoningGym], n: int, seed: int) -> list[Problem]:
    """``n`` different training problems, none of which asks what a test problem asks.

    Args:
        build: a task, of a split and with changes to its arguments.
        n: how many.
        seed: of the first one; each is its own.
    """
    tested = {p.prompt for p in build("test").problems()}
    found: list[Problem] = []
    at = seed
    while len(found) < n:
        more = build("train", seed=at, size=n).problems()
        at += n
        seen = {p.prompt for p in found}
        found += [p for p in more if p.prompt not in tested and p.prompt not in seen]
    return found[:n]


def written(problem: Problem) -> str:
    """The one right answer to a problem of this task."""
    return solution(problem.metadata["question"])


def terms(question: str) -> list[int]:
    """The signed terms of a question. Raises ConfigError for one of another kind."""
    found = _EXPRESSION.search(question.strip())
    if found is None:
        raise ConfigError("This is no chain of sums", got=question)
    return [int(sign + digits) for sign, digits in _TERM.findall(found[1])]


def solution(question: str) -> str:
    """The one right answer: a line per running sum, ``5+2=7``."""
    first, *rest = terms(question)
    lines, total = [], first
    for term in rest:
        lines.append(f"{total}{term:+d}={total + term}")
        total += term
    return "\n".join(lines)


def right_pieces(question: str, pieces: Sequence[str]) -> list[bool]:
    """Of every token of an answer: whether the answer up to it can still become right. There is one right
    answer, so that is a matter of comparing.

    Args:
        question: as asked.
        pieces: texts of the answer's tokens; an empty one ends the answer.
    """
    return right_so_far(solution(question), pieces)


def right_so_far(gold: str, pieces: Sequence[str]) -> list[bool]:
    """As :func:`right_pieces`, with the one right answer given."""
    text, found = "", []
    good = True
    for piece in pieces:
        text += piece
        good = good and (text == gold if piece == "" else gold.startswith(text))
        found.append(good)
    return found


def batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Consecutive parts of a list."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
