"""Markov chains on texts that can be enumerated: production steps against matrices that are written out.

``python -m tests.chains --starts 200000`` (``make chains``) takes so many steps of each chain from exact
draws of its target; the tests take 3,000.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.engine.engine import Engine
from nabla.engine.session import Session
from nabla.methods.searches.power_sampling import PowerSampling
from nabla.methods.searches.qalign import QAlign
from nabla.theory.problems.text import SequenceSpace
from tests.toy import p_value

#: One step of a chain from a text, given the number of the step.
Step = Callable[[Session, Trajectory, int], Awaitable[Trajectory]]
#: Starts of one problem, one after another: a problem costs more than a step.
TOGETHER = 25
#: Steps from exact draws of the target in the tests.
STARTS = 3000
MUTANTS = {"lengths": {"lengths": False}, "end": {"fixed_end": True}}


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


@dataclass(frozen=True)
class Chain:
    """A production chain, its target, and its matrix written out.

    Args:
        space: its texts.
        log_target: of each text, unnormalised.
        temperature: of the sampler that draws suffixes.
        step: one production step.
        sampling: of the texts.
    """

    space: SequenceSpace
    log_target: np.ndarray
    temperature: float
    step: Step
    sampling: Sampling

    @property
    def target(self) -> np.ndarray:
        """Probabilities of the texts."""
        law = np.exp(self.log_target - self.log_target.max())
        return np.asarray(law / law.sum())

    def matrix(self, **mutant: bool) -> np.ndarray:
        """Of the chain, or of a mutant of it."""
        return suffix_chain(self.space, self.log_target, self.temperature, **mutant)

    def p_values(self, starts: Sequence[int], reached: Sequence[int]) -> dict[str, float]:
        """Of one step from exact draws: of where it ends (``law``), of the pairs of start and end under the
        chain (``chain``) and under each mutant."""
        found = {"law": law_p(self.target, reached)}
        for name, changes in {"chain": {}, **MUTANTS}.items():
            found[name] = step_p(self.target, self.matrix(**changes), starts, reached)
        return found

    def holds(self, found: dict[str, float]) -> bool:
        """Whether the chain's χ² passes, and no mutant's."""
        return min(found["law"], found["chain"]) > 1e-3 and max(found[name] for name in MUTANTS) < 1e-3

    def run(self, starts: Sequence[int], steps: int = 1) -> list[int]:
        """Where production chains from these texts end."""
        return ends(self.space, self.step, starts, self.sampling, steps=steps)


def qalign(weight: float = 1.0) -> Chain:
    """QAlign's, at a temperature of one and the weight of the space's reward."""
    space = SequenceSpace(length=3, weight=weight, seed=3)
    made = QAlign(beta=1 / space.weight, sampling=Sampling(temperature=1.0, max_new_tokens=space.length))
    log_target = space.log_pi.double().numpy() + space.weight * space.reward.double().numpy()
    return Chain(space, log_target, 1.0, made.step, made.sampling)


def power_sampling(alpha: float = 2.0, temperature: float = 0.7) -> Chain:
    """Power sampling's in one block, towards π^α."""
    space = SequenceSpace(length=3, seed=3)
    made = PowerSampling(alpha, sampling=Sampling(temperature=temperature, max_new_tokens=space.length))

    async def step(session: Session, text: Trajectory, number: int) -> Trajectory:
        return await made.step(session, text, space.length, number)

    return Chain(space, alpha * space.log_pi.double().numpy(), temperature, step, made.sampling)


CHAINS: dict[str, Callable[[], Chain]] = {"qalign": qalign, "power-sampling": power_sampling}


def assert_leaves_its_target(chain: Chain) -> None:
    """The matrix leaves the target, and no mutant's does."""
    assert gap(chain.target @ chain.matrix(), chain.target) < 1e-12
    for changes in MUTANTS.values():
        assert gap(chain.target @ chain.matrix(**changes), chain.target) > 1e-3


def assert_steps_follow(chain: Chain) -> None:
    """Production steps from exact draws of the target are the chain's, and no mutant's."""
    starts = draws(chain.target, STARTS)
    found = chain.p_values(starts, chain.run(starts))
    assert chain.holds(found), found


def assert_reaches_its_target(chain: Chain) -> None:
    """From the model's own texts two hundred steps reach the noise floor, and an idle chain does not."""
    apart, idle, floor, noise = noise_floor(chain)
    assert abs(apart - floor) < noise
    assert idle - floor > noise


def noise_floor(chain: Chain, count: int = 40, steps: int = 200) -> tuple[float, float, float, float]:
    """From the model's own texts, so many steps: mean total variation of the ends from exact samples, the
    same of an idle chain, that of two exact samples, and three standard deviations of the last."""
    starts = draws(np.exp(chain.space.log_pi.double().numpy()), count, seed=1)
    reached = chain.run(starts, steps)

    def law(drawn: Sequence[int]) -> np.ndarray:
        return np.bincount(drawn, minlength=len(chain.target)) / count

    exact = [law(draws(chain.target, count, seed=seed)) for seed in range(2, 42)]
    floor = [gap(one, other) for one, other in zip(exact[::2], exact[1::2], strict=True)]
    apart = [gap(law(reached), one) for one in exact]
    idle = [gap(law(starts), one) for one in exact]
    return float(np.mean(apart)), float(np.mean(idle)), float(np.mean(floor)), float(3 * np.std(floor))


def report(names: Sequence[str], starts: int) -> Iterator[tuple[str, bool]]:
    """A line for each chain, and whether it holds: the chain's χ² passes, and each mutant's does not."""
    for name in names:
        begin, chain = time.process_time(), CHAINS[name]()
        drawn = draws(chain.target, starts)
        found = chain.p_values(drawn, chain.run(drawn))
        values = ", ".join(f"{key} {value:.3g}" for key, value in found.items())
        seconds = time.process_time() - begin
        line = f"{name}: {starts} steps, p of χ²: {values}; {seconds:.0f} s of the processor"
        yield line, chain.holds(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=200_000)
    parser.add_argument("--chains", nargs="+", choices=list(CHAINS), default=list(CHAINS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    verdicts = []
    for line, verdict in report(given.chains, given.starts):
        print(line if verdict else f"{line}: DOES NOT HOLD", flush=True)
        verdicts.append(verdict)
    sys.exit(not all(verdicts))
