"""What a setting of the engine does to whole solves: seconds of the processor a problem, rows a decoding
step, FLOPs, and bytes kept.

``python experiments/benchmarks/engine_settings.py latin live=1 live=64 "live=32 split_padding=48"`` solves
the same problems of the sandbox under each setting in turn, ``--repeats`` times over, and prints the least
of each (∇-Reasoner with N_max = 8, one thread). Seconds of the processor say the same on a machine that is
busy with other work, wall-clock does not.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import torch

from nabla.engine.engine import Engine
from nabla.launch.config.reader import parse_option
from nabla.study.benchmark.solves import Sandbox


def setting(text: str) -> dict[str, Any]:
    """``live=32 keep_graph=true`` → arguments of the engine."""
    pairs = (part.partition("=") for part in text.split())
    return {name: parse_option(value) for name, _, value in pairs}


def measure(sandbox: Sandbox, arguments: dict[str, Any]) -> tuple[float, str, tuple[Any, ...]]:
    """(seconds of the processor a problem, what else there is to tell, the answers)."""
    engine = Engine(sandbox.lm, sandbox.reward, **arguments)
    begin = time.process_time()
    solutions = {s.prompt.id: s for s in sandbox.solutions(engine, sandbox.prompts)}
    seconds = (time.process_time() - begin) / len(solutions)
    flops = sum(s.cost.total.flops for s in solutions.values())
    graphs = sum(s.cost.counts.get("graphs_used", 0) for s in solutions.values())
    rows, kept = engine.workspace.runner.occupancy, engine.workspace.store.budget.peak
    told = f"{flops / 1e9:.1f} GFLOP, {rows}, {kept / 1e6:.1f} MB kept"
    if graphs:
        told += f", {graphs} gradients from kept graphs"
    return seconds, told, tuple(solutions[p.id].tokens for p in sandbox.prompts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", choices=["latin", "arithmetic"])
    parser.add_argument("settings", nargs="+", help="arguments of the engine, with blanks between them")
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    sandbox = Sandbox(given.family, given.problems)
    measure(sandbox, {})  # warm up
    least: dict[str, float] = {}
    about: dict[str, tuple[str, tuple[Any, ...]]] = {}
    for _ in range(given.repeats):
        for text in given.settings:
            seconds, told, answers = measure(sandbox, setting(text))
            least[text] = min(seconds, least.get(text, seconds))
            about[text] = told, answers
    first = about[given.settings[0]][1]
    for text in given.settings:
        told, answers = about[text]
        same = "the same answers" if answers == first else "other answers"
        print(f"{text}: {1000 * least[text]:.1f} ms a problem, {told}, {same}")


if __name__ == "__main__":
    main()
