"""The program of the process in which reasoning-gym runs: it draws problems and grades answers.

It runs alone (``python gym_worker.py``), imports nothing of nabla and speaks JSON lines. A request holds
``do``, ``dataset``, ``arguments`` and ``seconds``; one line ``{"value": ...}`` answers it. Whatever a
verifier does with what a model wrote (some parse it, some search), only this process dies; the kernel ends
it when a request has used its CPU seconds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from functools import lru_cache
from typing import Any

try:
    import resource
except ImportError:  # no such limits on this platform: the caller's deadline remains
    resource = None  # type: ignore[assignment]

#: Address space of the process, bytes.
MEMORY = 4 << 30


def limit(kind: str, value: int) -> None:
    """Lowers one of this process's limits, where the platform has it and lets it be lowered."""
    if resource is not None:
        number = getattr(resource, kind)
        hard = resource.getrlimit(number)[1]
        soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(number, (soft, hard))


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
        os._exit(1)  # a fresh process is safer than one that ran out of memory
    except Exception as error:
        # A verifier that chokes on an answer says that it is wrong; not so a data set that cannot be drawn.
        wrong = {"error": f"{type(error).__name__}: {error}"} if request["do"] == "draw" else 0.0
        return {"value": wrong}


def main() -> None:
    """Serves requests until standard input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # nothing that a library prints can be taken for a reply
    limit("RLIMIT_CORE", 0)
    limit("RLIMIT_AS", MEMORY)

    def reply(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message, default=str) + "\n")
        replies.flush()

    try:
        import reasoning_gym  # noqa: F401
    except ImportError as error:
        reply({"error": str(error)})
        return
    reply({"value": "ready"})
    for line in sys.stdin.buffer:
        request = json.loads(line)
        # Whole seconds of CPU time since the start; the kernel ends a process that has used them.
        limit("RLIMIT_CPU", int(time.process_time()) + request["seconds"] + 1)
        reply(answer(request))


if __name__ == "__main__":
    main()
