"""Supervised fine-tuning on a task of words: legs of animals, each kind on a line with the running total.

python -m experiments.training.words --steps 100 --out runs/training/words
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from experiments.training.running import finished, options_of
from experiments.training.sft import supervise
from experiments.training.task import first_task, untested
from nabla.core.extras import require_extra
from nabla.problems.tasks.base import Problem
from nabla.problems.tasks.reasoning_gym import ReasoningGym

#: The benchmark says what the task is; training reads it there.
CONFIG = Path(__file__).parents[1] / "configs" / "real_words.yaml"
#: Tokens of the longest right answer, and some.
MOST_TOKENS = 80


def main(arguments: list[str] | None = None) -> None:
    parser = options_of(__doc__, 16, 4, "smollm2")
    parser.add_argument("--examples", type=int, default=480)
    parser.add_argument("--steps", type=int, default=None, help="stop behind so many; the schedule stays")
    options = parser.parse_args(arguments)
    if not finished("words", options):
        fit(options)


def build(split: str, **changes: Any) -> ReasoningGym:
    """The task, with changes to its arguments."""
    return first_task(CONFIG, split, **changes)


def training(n: int, seed: int = 0) -> list[Problem]:
    """``n`` training problems from a seed on, none of which asks what a test problem asks."""
    return untested(build, n, seed)


@cache
def legs() -> Mapping[str, int]:
    """Of one animal, by its name. Raises ConfigError where reasoning-gym is not installed."""
    require_extra("gym", purpose="Worked solutions of leg_counting")
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    return dict(ANIMALS)


def solution(animals: Mapping[str, int]) -> str:
    """The worked solution: ``tiger: 4*4=16, total 30``, a line per animal."""
    lines, total = [], 0
    for animal, count in animals.items():
        each = legs()[animal]
        total += count * each
        lines.append(f"{animal}: {count}*{each}={count * each}, total {total}")
    return "\n".join(lines)


def written(problem: Problem) -> str:
    """The worked solution of a problem of this task."""
    return solution(problem.metadata["animals"])


def fit(options: argparse.Namespace) -> None:
    """Trains one adapter."""
    supervise(options, [(p.prompt, written(p)) for p in training(options.examples)])


if __name__ == "__main__":
    main()
