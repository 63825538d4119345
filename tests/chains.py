"""Markov chains on texts that can be enumerated: production steps against matrices that are written out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import torch

from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.engine.engine import Engine
from nabla.engine.session import Session
from nabla.theory.problems.text import SequenceSpace
from tests.toy import p_value

#: One step of a chain from a text, given the number of the step.
Step = Callable[[Session, Trajectory, int], Awaitable[Trajectory]]
#: Starts of one problem, one after another: a problem costs more than a step.
TOGETHER = 25


def log_rows(space: SequenceSpace, temperature: float) -> list[list[float]]:
    """``log q`` of each token of each response, at a temperature."""
    found = []
    for y in space.responses:
        rows = (space.log_rows(space.one_hot(y)) / temperature).log_softmax(-1)
        found.append(rows.gather(-1, y.unsqueeze(-1))[:, 0].tolist())
    return found


def suffix_chain(
    space: SequenceSpace,
    log_target: np.ndarray,
    temperature: float,
    *,
    lengths: bool = True,
    fixed_end: bool = False,
) -> np.ndarray:
    """The matrix of Metropolis-Hastings that draws a suffix anew from a uniform position on, by a sampler of
    a temperature; mutants leave out the lengths, or never draw the last position."""
    texts, rows = [tuple(y.tolist()) for y in space.responses], log_rows(space, temperature)
    matrix = np.zeros((len(texts), len(texts)))
    for a, old in enumerate(texts):
        positions = range(max(len(old) - 1, 1) if fixed_end else len(old))
        for i in positions:
            for b, new in enumerate(texts):
                if new[:i] != old[:i] or len(new) <= i:
                    continue
                forward, backward = sum(rows[b][i:]), sum(rows[a][i:])
                ratio = np.exp(log_target[b] - log_target[a] + backward - forward)
                ratio *= len(old) / len(new) if lengths else 1.0
                matrix[a, b] += np.exp(forward) / len(positions) * min(1.0, ratio)
    matrix[np.arange(len(texts)), np.arange(len(texts))] += 1 - matrix.sum(1)
    return matrix


def gap(law: np.ndarray, other: np.ndarray) -> float:
    """Total variation."""
    return float(np.abs(law - other).sum() / 2)


def ends(
    space: SequenceSpace, step: Step, starts: Sequence[int], sampling: Sampling, *, steps: int = 1
) -> list[int]:
    """Where production chains from these texts stand after so many steps, by their places in the space."""
    groups = [starts[i : i + TOGETHER] for i in range(0, len(starts), TOGETHER)]
    prompts = [Prompt(str(i), space.prompt.messages) for i in range(len(groups))]
    found: dict[str, list[int]] = {}

    async def solve(session: Session) -> Solution:
        group = groups[int(session.prompt.id)]
        texts = await session.read([space.responses[a] for a in group], sampling)
        if session.judged:
            texts = await session.score(texts)
        reached = []
        for number, text in enumerate(texts):
            for i in range(steps):
                text = await step(session, text, number * steps + i)
            reached.append(space.index[tuple(text.tokens.tolist())])
        found[session.prompt.id] = reached
        return Solution(session.prompt, "", (), None, True, "chain", session.cost)

    for _, outcome in Engine(space.lm, space.rm, seed=11).run(solve, prompts):
        if isinstance(outcome, Exception):
            raise outcome
    return [end for prompt in prompts for end in found[prompt.id]]


def draws(law: np.ndarray, count: int, seed: int = 0) -> list[int]:
    """Exact draws."""
    generator = torch.Generator().manual_seed(seed)
    chosen: list[int] = torch.multinomial(torch.tensor(law), count, True, generator=generator).tolist()
    return chosen


def step_p(law: np.ndarray, matrix: np.ndarray, starts: Sequence[int], reached: Sequence[int]) -> float:
    """χ² of (start, end) pairs: starts drawn from a law, ends by one step of a matrix."""
    counts = np.zeros_like(matrix)
    np.add.at(counts, (list(starts), list(reached)), 1)
    return p_value(counts.flatten(), (law[:, None] * matrix).flatten())


def law_p(law: np.ndarray, reached: Sequence[int]) -> float:
    """χ² of draws."""
    return p_value(np.bincount(reached, minlength=len(law)).astype(float), law)
