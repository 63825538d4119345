"""A search problem small enough to enumerate: responses of at most three tokens, each a step of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy.stats import chisquare

from nabla.core.budget import Budget
from nabla.core.prompt import Prompt
from nabla.core.random import derive_key
from nabla.core.sampling import Sampling
from nabla.engine.engine import Engine
from nabla.rewards.function import FunctionReward
from nabla.testing.tiny import char_tokenizer, tiny_lm

LM = tiny_lm(char_tokenizer("abc", special=("<|im_end|>", "<|im_start|>", "<|pad|>", "<|unk|>")))
PROMPT = Prompt.of("ab")
#: Nearly uniform, so that a few dozen draws hold every token.
FLAT = Sampling(temperature=20.0, max_new_tokens=3)
#: A step is one token.
SINGLE = {"name": "length", "tokens": 1}


def hashed(prompt: str, response: str) -> float:
    """Some number in [-2, 2] for every text, of a partial response too."""
    return derive_key(prompt, response) / 2**61 - 2


class Counted:
    """A reward that remembers what it was asked."""

    def __init__(self, function: Callable[[str, str], float] = hashed) -> None:
        self.function, self.seen = function, list[str]()

    def __call__(self, prompt: str, response: str) -> float:
        self.seen.append(response)
        return self.function(prompt, response)


def engine(function: Callable[[str, str], float] = hashed, **arguments: Any) -> Engine:
    """The toy's engine."""
    return Engine(LM, FunctionReward(function), **arguments)


def calls(*values: float) -> dict[str, Any]:
    """A budget of model calls, as an engine's argument."""
    return {"budgets": [Budget("calls", values)]}


def responses() -> Iterator[tuple[int, ...]]:
    """All complete responses."""
    others = [i for i in range(LM.head.usable) if i not in LM.eos_ids]
    for length in range(1, FLAT.max_new_tokens + 1):
        last = range(LM.head.usable) if length == FLAT.max_new_tokens else LM.eos_ids
        yield from itertools.product(*[others] * (length - 1), last)


def highest() -> float:
    """The best reward of all complete responses."""
    return max(hashed(PROMPT.text, LM.decode(list(tokens))) for tokens in responses())


def p_value(found: np.ndarray, law: np.ndarray) -> float:
    """χ² over texts, rare ones together; impossible ones refute a law by themselves."""
    expected = law * found.sum()
    if found[expected == 0].any():
        return 0.0
    common, rare = expected >= 5, (expected > 0) & (expected < 5)
    pairs = [np.append(x[common], x[rare].sum() if rare.any() else []) for x in (found, expected)]
    return float(chisquare(pairs[0], pairs[1] * pairs[0].sum() / pairs[1].sum()).pvalue)
