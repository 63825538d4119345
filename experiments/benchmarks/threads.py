"""One thread of torch beside two, on models of several sizes: where the second begins to pay.

``python experiments/benchmarks/threads.py`` measures a language model and a reward of each size in turn, with
random weights in float32: a decoding step of one row and of eight, and a gradient of the default objective at
a response of 48 tokens behind a prompt of 64. Both numbers of threads take turns. The rule that follows from
it is ``nabla.launch.threads.LARGE``. It wants two free cores; beside other work a second thread waits.
"""

from __future__ import annotations

import argparse
import time

import torch

from nabla.core.costs import Account, CostMeter
from nabla.engine.session import Session
from nabla.models.runner import Runner
from nabla.rollouts.base import Opening
from nabla.rollouts.decoder import Decoder
from nabla.study.benchmark.bench import Stand, drive
from nabla.study.benchmark.models import Workbench
from nabla.study.benchmark.settings import Setting, Shape
from nabla.study.benchmark.targets.first_row import fresh
from nabla.study.benchmark.timing import median, ratio

#: (name, hidden, layers, heads, key/value heads, width of the MLP); the last has SmolLM2-135M's shape.
SIZES = (
    ("1M", 128, 5, 2, 1, 384),
    ("5M", 256, 6, 4, 2, 768),
    ("20M", 512, 6, 8, 4, 1536),
    ("60M", 768, 8, 12, 6, 2304),
    ("135M", 576, 30, 9, 3, 1536),
)
VOCABULARY = 4096
PROMPT, RESPONSE, ROWS = 64, 48, 8


def workbench(hidden: int, layers: int, heads: int, kv_heads: int, intermediate: int) -> Workbench:
    """A language model that never ends a response, and a reward of its shape."""
    shape = Shape(VOCABULARY, hidden, layers, heads, kv_heads, 64, intermediate)
    found = Workbench(Setting("threads", shape, shape, prefix=PROMPT, response=RESPONSE))
    found.lm.vocabulary.eos_ids = ()
    return found


def decoding(bench: Workbench, rows: int, steps: int) -> float:
    """Seconds per step."""
    prompt, empty = bench.lm.encode(bench.prompt()), torch.empty(0, dtype=torch.long)
    decoder = Decoder(bench.lm, Runner(), rows)
    accounts = [Account(f"p{i}", CostMeter(), "rollout") for i in range(rows)]
    decoder.submit([Opening(prompt, empty, bench.sampling, i, a) for i, a in enumerate(accounts)])
    decoder.advance(1, rows)  # reads the prompt
    begin = time.perf_counter()
    decoder.advance(steps, rows)
    return (time.perf_counter() - begin) / steps


def gradient(stand: Stand, turn: int) -> float:
    """Seconds of a gradient at a response that has been read and scored."""
    objective = stand.workbench.dto().objective

    async def work(session: Session) -> float:
        trajectory = await fresh(session, stand, turn)
        begin = time.perf_counter()
        await session.gradient(trajectory, objective)
        return time.perf_counter() - begin

    (found,) = drive(stand.workbench.engine(), [stand.workbench.prompt()], work)
    return found


def measure(name: str, shape: tuple[int, int, int, int, int], repeats: int, counts: tuple[int, ...]) -> None:
    """Prints a row for each kind of work."""
    bench = workbench(*shape)
    stand = Stand(bench.setting)
    vars(stand)["workbench"] = bench
    works = {
        "step, 1 row": lambda _: decoding(bench, 1, 24),
        f"step, {ROWS} rows": lambda _: decoding(bench, ROWS, 24),
        "gradient": lambda turn: gradient(stand, turn),
    }
    weights = bench.lm.body.parameters
    for kind, work in works.items():
        found: dict[int, list[float]] = {count: [] for count in counts}
        for turn in range(repeats + 1):  # the first to warm up
            for count in counts if turn % 2 else counts[::-1]:
                torch.set_num_threads(count)
                seconds = work(turn)
                if turn:
                    found[count].append(seconds)
        one, more = (found[count] for count in counts)
        speed = ratio(one, more)
        ms = [f"{1e3 * median(seconds).value:.2f}" for seconds in (one, more)]
        interval = f"{speed.value:.2f} [{speed.low:.2f}, {speed.high:.2f}]"
        print(f"| {name} ({weights / 1e6:.1f}M) | {kind} | {' | '.join(ms)} | {interval} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default=",".join(name for name, *_ in SIZES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="Beside one.")
    given = parser.parse_args()
    print("| weights (without embedding and head) | work | ms, 1 thread | ms, more | one / more |")
    print("|---|---|---|---|---|")
    for name, *shape in SIZES:
        if name in given.sizes.split(","):
            measure(name, tuple(shape), given.repeats, (1, given.threads))


if __name__ == "__main__":
    main()
