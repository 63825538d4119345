"""One problem, whatever task it is of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One problem of a task.

    Args:
        id: unique within the task, and the same in every run.
        prompt: the user's turn, the template filled in.
        gold: the right answer, as it is compared; for the sandbox one response that is right. None where
            there is none: the task's own grader says what is right.
        metadata: whatever else the source says of the problem.
    """

    id: str
    prompt: str
    gold: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict, compare=False)
