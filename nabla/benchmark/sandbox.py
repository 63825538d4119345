"""Whole solves on the embedded tasks."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch

from nabla.benchmark.full_batches import Work, recorded, replay
from nabla.benchmark.timing import now, settle
from nabla.config.sandbox import SANDBOX_RUNS
from nabla.costs import Cost
from nabla.engine import Engine
from nabla.errors import NablaError
from nabla.gradient import GradientTask
from nabla.models.causal_lm import CausalLM
from nabla.objectives.base import Term
from nabla.rewards.base import Reward
from nabla.sandbox import TASKS
from nabla.types import Prompt, Solution

FAMILIES = tuple(SANDBOX_RUNS)


@dataclass(frozen=True)
class Solves:
    """Solutions of a family's problems, in their order, and the wall-clock they took, seconds."""

    solutions: tuple[Solution, ...]
    seconds: float

    @property
    def cost(self) -> Cost:
        """Of all problems together."""
        return Cost.sum(s.cost for s in self.solutions)

    @property
    def answers(self) -> list[tuple[int, ...]]:
        """Response ids."""
        return [s.tokens for s in self.solutions]


class Spread:
    """The same problems over processes of one thread each, all of them loaded and warm.

    Small models gain nothing from a second thread: its share of a product is over before it has started.

    Args:
        family, problems: as for :class:`Sandbox`.
        workers: processes; problem i goes to process i modulo their number.
        live: problems at a time, of all processes together.
    """

    def __init__(self, family: str, problems: int, workers: int, live: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.live = max(1, live // workers)
        self.pools = [
            ProcessPoolExecutor(1, context, _load, (family, problems, rank, workers))
            for rank in range(workers)
        ]
        for pool in self.pools:
            pool.submit(_solve, self.live).result()

    def solve(self) -> tuple[list[tuple[int, ...]], float]:
        """Answers in the problems' order, and the wall-clock, seconds."""
        begin = now()
        parts = [future.result() for future in [pool.submit(_solve, self.live) for pool in self.pools]]
        spent = now() - begin
        count = sum(map(len, parts))
        return [parts[i % len(parts)][i // len(parts)] for i in range(count)], spent

    def replay(self) -> float:
        """The longest of the processes' times for their models' work alone, in full batches, all at once."""
        return max(future.result() for future in [pool.submit(_replay, self.live) for pool in self.pools])

    def close(self) -> None:
        """Ends the processes."""
        for pool in self.pools:
            pool.shutdown()


_LOADED: list[Sandbox] = []


def _load(family: str, problems: int, rank: int, workers: int) -> None:
    torch.set_num_threads(1)
    sandbox = Sandbox(family, problems)
    sandbox.prompts = sandbox.prompts[rank::workers]
    _LOADED.append(sandbox)


def _solve(live: int) -> list[tuple[int, ...]]:
    return _LOADED[0].solve(live=live).answers


def _replay(live: int) -> float:
    return _LOADED[0].replay(live)


class Sandbox:
    """A family's embedded models and held-out problems.

    Args:
        family: ``latin`` or ``arithmetic``.
        problems: how many.
        device: of the models.
    """

    def __init__(self, family: str, problems: int, device: str = "cpu") -> None:
        place = {"device": device}
        self.family = family
        self.config = replace(SANDBOX_RUNS[family], lm_arguments=place, rm_arguments=place)
        self.lm: CausalLM
        self.reward: Reward | None
        self.lm, self.reward = self.config.load_models()
        self.prompts = [Prompt.of(p.prompt, id=p.id) for p in TASKS[family].problems("test", problems, 0)]
        self._work: tuple[Work, int] | None = None
        settle()

    def solve(self, dto: dict[str, Any] | None = None, **engine: Any) -> Solves:
        """∇-Reasoner with N_max = 8 at the sandbox's settings; ``dto`` and ``engine`` are changed arguments.

        Raises NablaError if a problem fails.
        """
        return self._solve(Engine(self.lm, self.reward, **engine), self.prompts, dto)

    def in_turn(self, block: int) -> list[Solves]:
        """One problem at a time, and the wall-clock of each ``block`` of them."""
        return [
            self._solve(Engine(self.lm, self.reward, live=1), self.prompts[i : i + block])
            for i in range(0, len(self.prompts), block)
        ]

    def replay(self, rows: int) -> float:
        """Seconds of the models' work of :meth:`solve` in full batches of ``rows``, and nothing else."""
        if self._work is None:
            bodies = [self.lm.body, *(self.reward.bodies() if self.reward is not None else ())]
            with recorded(bodies) as work:
                steps = self.solve(live=rows).cost.total.decode_steps
            self._work = work, steps
            replay(work, self.lm.body, rows, steps)  # warm up
        work, steps = self._work
        return replay(work, self.lm.body, rows, steps)

    def differentiated(self) -> list[GradientTask]:
        """The texts at which the models are differentiated."""
        engine = Engine(self.lm, self.reward)
        found: list[GradientTask] = []
        compute = engine.gradients.compute

        def noted(terms: Sequence[Term], tasks: Sequence[GradientTask]) -> Any:
            found.extend(tasks)
            return compute(terms, tasks)

        engine.gradients.compute = noted  # type: ignore[method-assign]
        self._solve(engine, self.prompts)
        return found

    def _solve(self, engine: Engine, prompts: Sequence[Prompt], dto: dict[str, Any] | None = None) -> Solves:
        method = self.config.changed({"dto": dto} if dto else None).build_method()
        begin = now()
        found: dict[str, Solution] = {}
        for prompt, outcome in engine.run(method.solve, prompts):
            if isinstance(outcome, NablaError):
                raise outcome
            found[prompt.id] = outcome
        return Solves(tuple(found[p.id] for p in prompts), now() - begin)
