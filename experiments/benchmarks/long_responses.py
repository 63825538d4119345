"""Long responses on tiny shapes: seconds per token, and bytes, as the response grows.

``python experiments/benchmarks/long_responses.py`` writes eight rows of 2,048 tokens and prints, for each
stretch of 256 tokens, milliseconds per decoding step beside a bare step of the model at that length
(attention's own growth is in both), and the memory at the end. A difference that grows is work that goes with
the square of the length.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Sequence

import torch

from nabla.core.costs import Account, CostMeter
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.models.body import EMPTY, Chunk
from nabla.models.causal_lm import CausalLM
from nabla.models.runner import Runner
from nabla.rollouts.base import Opening
from nabla.rollouts.decoder import Decoder
from nabla.rollouts.slots import CacheSlots
from nabla.study.benchmark.models import random_model, word_tokenizer
from nabla.study.benchmark.settings import Shape

SHAPE = Shape(vocab=512, hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, intermediate=192)


def tiny(positions: int) -> CausalLM:
    """A model of random weights that never ends a response."""
    model = random_model(SHAPE, "ForCausalLM", positions=positions, dtype=torch.float32, device="cpu")
    lm = CausalLM(model, word_tokenizer(SHAPE.vocab))
    lm.vocabulary.eos_ids = ()
    return lm


def openings(lm: CausalLM, rows: int, tokens: int) -> list[Opening]:
    """One a problem."""
    sampling = Sampling(temperature=1.0, max_new_tokens=tokens)
    prompt = lm.encode(Prompt.of("w1 w2 w3"))
    empty = torch.empty(0, dtype=torch.long)
    accounts = [Account(f"p{i}", CostMeter(), "rollout") for i in range(rows)]
    return [Opening(prompt, empty, sampling, 7 * i, account) for i, account in enumerate(accounts)]


def decoding(lm: CausalLM, rows: int, tokens: int, stretch: int) -> list[float]:
    """Seconds per step of each stretch."""
    decoder = Decoder(lm, Runner(), rows)
    decoder.submit(openings(lm, rows, tokens))
    found = []
    for _ in range(0, tokens, stretch):
        begin = time.process_time()
        decoder.advance(stretch, rows)
        found.append((time.process_time() - begin) / stretch)
    assert not decoder.busy
    return found


@torch.no_grad()
def bare(lm: CausalLM, rows: int, tokens: int, stretch: int) -> list[float]:
    """Seconds of a step of the body alone in the middle of each stretch."""
    found, steps = [], 24
    for first in range(0, tokens, stretch):
        length = first + stretch // 2
        text = lm.body.embed(torch.ones(length, dtype=torch.long))
        (output,) = lm.body.run([Chunk(EMPTY, text)], keep=True)
        assert output.keys is not None
        slots = CacheSlots(lm.body)
        slots.arrange([], [output.keys] * rows)
        slots.step(torch.ones(rows, dtype=torch.long))
        begin = time.process_time()
        for _ in range(steps):
            slots.step(torch.ones(rows, dtype=torch.long))
        found.append((time.process_time() - begin) / steps)
    return found


def table(lm: CausalLM, rows: int, tokens: int, stretch: int) -> Sequence[tuple[int, float, float]]:
    """(tokens written, seconds per step, seconds of a bare step), after a warm-up."""
    decoding(lm, rows, 2 * stretch, stretch)
    ours, floor = decoding(lm, rows, tokens, stretch), bare(lm, rows, tokens, stretch)
    ends = range(stretch, tokens + 1, stretch)
    return list(zip(ends, ours, floor, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--stretch", type=int, default=256)
    given = parser.parse_args()
    torch.set_num_threads(1)
    lm = tiny(given.tokens + 64)
    print(f"{'tokens':>8} {'ms a step':>10} {'bare':>8} {'beyond it':>10}")
    for end, ours, floor in table(lm, given.rows, given.tokens, given.stretch):
        print(f"{end:8d} {1e3 * ours:10.3f} {1e3 * floor:8.3f} {1e3 * (ours - floor):10.3f}", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cache = given.rows * lm.body.cache_bytes(given.tokens) / 2**20
    print(f"peak resident size {peak:.0f} MB, of these keys and values of all rows {cache:.1f} MB")


if __name__ == "__main__":
    main()
