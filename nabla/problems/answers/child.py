"""The loop of a child process in which code runs that is not trusted to end: a grader, a verifier.

``python child.py PROGRAM.py`` runs alone, imports nothing of nabla and speaks JSON lines. PROGRAM.py has

- ``MEMORY``: address space of the process, bytes;
- ``start()``: what answers a request, a dict, with a reply, a dict; ImportError says what is not installed.

The first line is ``{"value": "ready"}``, or ``{"error": ...}`` for such an ImportError; from then on each
request, which holds ``seconds``, gives one line. Whatever a request does (loop, exhaust memory, overflow the
stack), only this process dies; the kernel ends it when a request has used its CPU seconds, also within C
code, and for CPU time, unlike wall time, the verdict does not depend on how busy the machine is.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from contextlib import suppress
from types import ModuleType
from typing import Any

try:
    import resource
except ImportError:  # no such limits on this platform: the caller's deadline remains
    resource = None  # type: ignore[assignment]


def limit(kind: str, value: int) -> None:
    """Lowers one of this process's limits, where the platform has it and lets it be lowered."""
    if resource is not None:
        number = getattr(resource, kind)
        hard = resource.getrlimit(number)[1]
        soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with suppress(ValueError, OSError):  # macOS has the constant for memory but not the limit
            resource.setrlimit(number, (soft, hard))


def load(path: str) -> ModuleType:
    """A program by its file."""
    spec = importlib.util.spec_from_file_location("program", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(path: str) -> None:
    """Serves requests until standard input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # nothing that a library prints can be taken for a reply
    limit("RLIMIT_CORE", 0)

    def reply(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message, default=str) + "\n")
        replies.flush()

    try:
        program = load(path)
        limit("RLIMIT_AS", program.MEMORY)
        answer = program.start()
    except ImportError as error:
        reply({"error": str(error)})
        return
    reply({"value": "ready"})
    for line in sys.stdin.buffer:
        request = json.loads(line)
        # Whole seconds of CPU time since the start; the kernel ends a process that has used them.
        limit("RLIMIT_CPU", int(time.process_time()) + request["seconds"] + 1)
        try:
            found = answer(request)
        except MemoryError:
            os._exit(1)  # a fresh process is safer than one that ran out of memory
        reply(found)


if __name__ == "__main__":
    main(sys.argv[1])
