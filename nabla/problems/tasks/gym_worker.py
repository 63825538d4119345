"""What the process runs in which reasoning-gym is: it draws problems and grades answers.

A program of ``nabla/problems/answers/child.py``; it imports nothing of nabla. A request holds ``do``,
``dataset`` and ``arguments``; ``{"value": ...}`` answers it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

#: Address space of the process, bytes.
MEMORY = 4 << 30


@lru_cache(maxsize=64)
def dataset(name: str, arguments: str, seed: int) -> Any:
    """One problem of a data set: each has a seed of its own, and where it stands among others changes
    nothing."""
    import reasoning_gym

    return reasoning_gym.create_dataset(name, seed=seed, size=1, **json.loads(arguments))


def names() -> list[str]:
    """Of all data sets."""
    from reasoning_gym.factory import DATASETS

    return sorted(DATASETS)


def draw(request: dict[str, Any]) -> list[Any]:
    """[question, answer, metadata] of each seed."""
    found = []
    for seed in request["seeds"]:
        entry = dataset(request["dataset"], request["arguments"], seed)[0]
        answer = entry.get("answer")
        found.append([entry["question"], None if answer is None else str(answer), entry.get("metadata", {})])
    return found


def score(request: dict[str, Any]) -> float:
    """What the data set's verifier gives to an answer, 0 to 1."""
    source = dataset(request["dataset"], request["arguments"], request["seed"])
    return float(source.score_answer(answer=request["answer"], entry=source[0]))


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """A reply: what was asked for, or why it cannot be."""
    try:
        if request["do"] == "names":
            return {"value": names()}
        if request["do"] == "draw":
            return {"value": {"drawn": draw(request)}}
        return {"value": score(request)}
    except MemoryError:
        raise
    except Exception as error:
        # A verifier that chokes on an answer says that it is wrong; not so a data set that cannot be drawn.
        wrong = {"error": f"{type(error).__name__}: {error}"} if request["do"] == "draw" else 0.0
        return {"value": wrong}


def start() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What answers requests. Raises ImportError without reasoning-gym."""
    import reasoning_gym  # noqa: F401

    return answer
