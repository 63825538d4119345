"""Kills evaluations, for test_kills.py: ``python -m tests.study.evaluation.kills FOLDER KILLS SEED``.

A process with everything loaded forks a child per attempt. Each child is ended by SIGKILL: either by this
process after a random time, or by itself in the middle of writing, when a random part of the bytes has
reached the file. A run that finishes all the same is set apart, and the next attempt begins a new one.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from nabla.study.evaluation import journal
from nabla.study.evaluation.runner import Evaluation
from nabla.study.evaluation.workshop import Workshop
from tests.study.evaluation.small import small


def main() -> None:
    """Prints how many kills hit a write, and how many runs finished."""
    folder, kills, chance = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    torch.set_num_threads(1)
    config = small(problems=2, shard=1)
    workshop = Workshop(config, torch.device("cpu"))
    Workshop.__init__ = lambda self, *_: vars(self).update(vars(workshop))  # type: ignore[method-assign]
    Evaluation(config, folder / "warm").run()  # imports, first passes
    begin = time.perf_counter()
    Evaluation(config, folder / "unbroken").run()
    usual = time.perf_counter() - begin
    done = torn = finished = 0
    while done < kills or not (folder / f"killed-{finished}" / journal.RECORDS).exists():
        current = folder / f"killed-{finished}"
        if (current / journal.RECORDS).exists():
            finished += 1
            continue
        tear = chance.random() < 0.5
        child = os.fork()
        if child == 0:
            attempt(config, current, random.Random(chance.random()) if tear and done < kills else None)
        if not tear and done < kills:
            time.sleep(chance.uniform(0, 0.5 * usual))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            done += 1
            torn += tear
        elif os.WEXITSTATUS(status):
            raise SystemExit("a child failed")
    print(done, torn, finished + 1)


def attempt(config: object, folder: Path, chance: random.Random | None) -> None:
    """The child: runs, or kills itself in one of its first writes."""
    real, countdown = os.write, chance.randrange(3) if chance else -1

    def write(descriptor: int, data: bytes) -> int:
        nonlocal countdown
        countdown -= 1
        if chance is not None and countdown < 0:
            real(descriptor, data[: chance.randrange(len(data) + 1)])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(descriptor, data)

    if chance is not None:
        journal.os.write = write  # type: ignore[attr-defined]
    code = 1
    try:
        Evaluation(config, folder).run()  # type: ignore[arg-type]
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
