"""The program of the grading process: reads and compares mathematical answers with math-verify.

It runs alone (``python worker.py``), imports nothing of nabla and speaks JSON lines: a request ``{"left":
..., "right": ..., "seconds": ...}`` gives one line ``{"value": ...}``: true, false, or null for what cannot
be read. Whatever an answer makes it do (loop, exhaust memory, overflow the stack), only
this process dies; the kernel ends it when a request has used its CPU seconds, also within C code, and for
CPU time, unlike wall time, the verdict does not depend on how busy the machine is.
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
MEMORY = 2 << 30


def limit(kind: str, value: int) -> None:
    """Lowers one of this process's limits, where the platform has it and lets it be lowered."""
    if resource is not None:
        number = getattr(resource, kind)
        hard = resource.getrlimit(number)[1]
        soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with suppress(ValueError, OSError):  # macOS has the constant for memory but not the limit
            resource.setrlimit(number, (soft, hard))


class Reader:
    """math-verify with its own timeouts off: they are wall time, and SIGALRM cannot stop C code."""

    def __init__(self) -> None:
        import logging

        from math_verify import LatexExtractionConfig, parse, verify  # type: ignore[import-untyped]

        logging.disable(logging.CRITICAL)
        configs = [LatexExtractionConfig(boxed_match_priority=0)]  # expressions would find a 1 in any prose

        @lru_cache(maxsize=4096)
        def read(answer: str) -> list[Any]:
            found: list[Any] = parse(
                f"\\boxed{{{answer}}}", configs, parsing_timeout=None, extraction_mode="first_match"
            )
            return found

        def equal(left: str, right: str) -> bool:
            return bool(verify(read(left), read(right), timeout_seconds=None))

        self.equal = equal


def main() -> None:
    """Serves requests until standard input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # nothing that a library prints can be taken for a reply
    limit("RLIMIT_CORE", 0)
    limit("RLIMIT_AS", MEMORY)

    def reply(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    try:
        reader = Reader()
    except ImportError as error:
        reply({"error": str(error)})
        return
    reply({"value": "ready"})
    for line in sys.stdin.buffer:
        request = json.loads(line)
        # Whole seconds of CPU time since the start; the kernel ends a process that has used them.
        limit("RLIMIT_CPU", int(time.process_time()) + request["seconds"] + 1)
        try:
            value: bool | None = reader.equal(request["left"], request["right"])
        except MemoryError:
            os._exit(1)  # a fresh process is safer than one that ran out of memory
        except Exception:  # text that sympy chokes on is no answer; RecursionError included
            value = None
        reply({"value": value})


if __name__ == "__main__":
    main()
