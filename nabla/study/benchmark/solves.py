"""Whole solves on the embedded tasks."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch

from nabla.core.costs import Cost
from nabla.core.errors import NablaError
from nabla.core.processes import spawned
from nabla.core.prompt import Prompt
from nabla.core.solution import Solution
from nabla.engine.engine import Engine
from nabla.engine.gradient.values import GradientTask
from nabla.launch.config.presets import SANDBOX_RUNS
from nabla.models.causal_lm import CausalLM
from nabla.models.runner import Occupancy
from nabla.objectives.base import Term
from nabla.problems.sandbox import TASKS
from nabla.rewards.base import Reward
from nabla.study.benchmark.full_batches import Work, recorded, replay
from nabla.study.benchmark.timing import now, settle

FAMILIES = tuple(SANDBOX_RUNS)


@dataclass(frozen=True)
class Solves:
    """Solutions of a family's problems, in their order, the wall-clock they took, seconds, and how full the
    batches of decoding were."""

    solutions: tuple[Solution, ...]
    seconds: float
    occupancy: Occupancy

    @property
    def cost(self) -> Cost:
        """Of all problems together."""
        return Cost.sum(s.cost for s in self.solutions)

    @property
    def answers(self) -> list[tuple[int, ...]]:
        """Response ids."""
        return [s.tokens for s in self.solutions]


class Spread:
    """The same problems over processes of one thread each, all of them loaded and warm, which end with it.

    Small models gain nothing from a second thread: its share of a product is over before it has started.

    Args:
        family, problems: as for :class:`Sandbox`.
        workers: processes; each takes the next problem when it has room for one.
        live: problems at a time, of all processes together.
    """

    def __init__(self, family: str, problems: int, workers: int, live: int) -> None:
        self.live, self.problems = max(1, live // workers), problems
        self.taken = multiprocessing.get_context("spawn").Value("i", 0)
        self._stack = ExitStack()
        self.pools = [
            self._stack.enter_context(spawned(1, _load, (family, problems, rank, workers, self.taken)))
            for rank in range(workers)
        ]
        for pool in self.pools:
            pool.submit(_warm_up, self.live).result()

    def solve(self) -> tuple[list[tuple[int, ...]], float]:
        """Answers in the problems' order, and the wall-clock, seconds."""
        self.taken.value = 0
        begin = now()
        parts = [future.result() for future in [pool.submit(_solve, self.live) for pool in self.pools]]
        spent = now() - begin
        found = {index: answer for part in parts for index, answer in part.items()}
        return [found[index] for index in range(self.problems)], spent

    def replay(self) -> float:
        """The longest of the processes' times for their models' work alone, in full batches, all at once."""
        return max(future.result() for future in [pool.submit(_replay, self.live) for pool in self.pools])

    def __enter__(self) -> Spread:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)


@dataclass
class _Loaded:
    """What a process holds: its own share of the problems for a replay, and all of them to take from."""

    own: Sandbox
    every: list[Prompt]
    taken: Any


_LOADED: list[_Loaded] = []


def _load(family: str, problems: int, rank: int, workers: int, taken: Any) -> None:
    torch.set_num_threads(1)
    sandbox = Sandbox(family, problems)
    every = sandbox.prompts
    sandbox.prompts = every[rank::workers]
    _LOADED.append(_Loaded(sandbox, every, taken))


def _warm_up(live: int) -> None:
    _LOADED[0].own.solve(live=live)


def _solve(live: int) -> dict[int, tuple[int, ...]]:
    loaded = _LOADED[0]
    numbers = {prompt.id: number for number, prompt in enumerate(loaded.every)}
    engine = Engine(loaded.own.lm, loaded.own.reward, live=live)
    return {numbers[s.prompt.id]: s.tokens for s in loaded.own.solutions(engine, _taken(loaded))}


def _taken(loaded: _Loaded) -> Iterator[Prompt]:
    """The next problem that no process has taken, until there is none."""
    while True:
        with loaded.taken.get_lock():
            number = loaded.taken.value
            loaded.taken.value += 1
        if number >= len(loaded.every):
            return
        yield loaded.every[number]


def _replay(live: int) -> float:
    return _LOADED[0].own.replay(live)


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
        compute = engine.workspace.gradients.compute

        def noted(terms: Sequence[Term], tasks: Sequence[GradientTask]) -> Any:
            found.extend(tasks)
            return compute(terms, tasks)

        engine.workspace.gradients.compute = noted
        self._solve(engine, self.prompts)
        return found

    def solutions(
        self, engine: Engine, prompts: Iterable[Prompt], dto: dict[str, Any] | None = None
    ) -> Iterator[Solution]:
        """Of given problems, as they finish. Raises NablaError if one fails."""
        method = self.config.changed({"dto": dto} if dto else None).build_method()
        for _, outcome in engine.run(method.solve, prompts):
            if isinstance(outcome, NablaError):
                raise outcome
            yield outcome

    def _solve(self, engine: Engine, prompts: Sequence[Prompt], dto: dict[str, Any] | None = None) -> Solves:
        begin = now()
        found = {s.prompt.id: s for s in self.solutions(engine, prompts, dto)}
        spent = now() - begin
        return Solves(tuple(found[p.id] for p in prompts), spent, engine.workspace.runner.occupancy)
