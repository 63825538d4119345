"""Where requests are answered: an engine's models, caches and batches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from nabla.core.budget import Budget
from nabla.core.costs import Usage
from nabla.core.errors import NumericalError
from nabla.core.trajectory import Score
from nabla.engine.events import Events
from nabla.engine.gradient.computer import GradientComputer
from nabla.engine.gradient.graphs import Graphs
from nabla.engine.initial_rows import InitialRows, RowsWanted, references
from nabla.engine.judging import read, score
from nabla.engine.remote import at_once
from nabla.engine.requests import (
    GradientRequest,
    JointRequest,
    JudgeRequest,
    ReadRequest,
    Request,
    RolloutRequest,
    ScoreRequest,
    ValueRequest,
)
from nabla.engine.retries import answered
from nabla.models.causal_lm import CausalLM, require_lm
from nabla.models.prefixes import PrefixStore
from nabla.models.runner import Runner
from nabla.models.vocabulary import Vocabulary
from nabla.rewards.base import Reward, not_finite, require_reward
from nabla.rollouts.base import Resources, Rollout, Writer


class Workspace:
    """Answers requests, a batch of one kind at a time. Knows nothing of who asks, or when.

    Args:
        vocabulary: of the language model.
        lm: the engine's own view of the language model; None where it runs elsewhere.
        reward: bound to the vocabulary; None for likelihood-only runs.
        rollout: how the language model is decoded.
        runner: batches and counts passes; holds the prefixes.
        seed, budgets, kept_gradients, rows_ahead, rollout_bytes, keep_graph, events: see
            :class:`~nabla.engine.engine.Engine`.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        lm: CausalLM | None,
        reward: Reward | None,
        rollout: Rollout,
        runner: Runner,
        *,
        seed: int = 0,
        budgets: Sequence[Budget] = (),
        kept_gradients: int = 4,
        rows_ahead: int = 12,
        rollout_bytes: float | None = None,
        keep_graph: bool = False,
        events: Events | None = None,
    ) -> None:
        self.vocabulary, self.lm, self.reward = vocabulary, lm, reward
        self.rollout, self.runner = rollout, runner
        self.resources = Resources(vocabulary, runner, lm, rollout_bytes=rollout_bytes)
        self.seed, self.kept_gradients, self.rows_ahead = seed, kept_gradients, rows_ahead
        self.budgets = tuple(budgets)
        self.events = events or Events()
        self.graphs = Graphs(runner.store.budget, on=keep_graph)
        self._gradients = None if lm is None else GradientComputer(lm, reward, runner, self.graphs)
        self.handlers: dict[str, Callable[[Sequence[Any]], list[Any]]] = {
            "rollout": self._run_rollouts,
            "read": self._run_reads,
            "score": self._run_scores,
            "judge": self._run_judgements,
            "gradient": self._run_gradients,
            "value": self._run_values,
            "joint": self._run_joint,
        }

    @property
    def store(self) -> PrefixStore:
        """Prefixes of the live problems."""
        return self.runner.store

    @property
    def weights(self) -> CausalLM:
        """The language model. Raises ConfigError where it runs elsewhere."""
        return require_lm(self.lm, "States, rows and gradients come from passes of the language model")

    @property
    def gradients(self) -> GradientComputer:
        """All about gradients. Raises ConfigError where the language model runs elsewhere."""
        if self._gradients is None:
            require_lm(None, "Gradients go through the language model")
        assert self._gradients is not None
        return self._gradients

    def answer(self, requests: Sequence[Request]) -> list[Any]:
        """Runs requests of one kind and group now; a result or NablaError for each.

        If the batch fails, it runs again in halves, so that one does not sink all.
        """
        if not requests:
            return []
        handler = self.handlers[requests[0].kind]
        if isinstance(requests[0], JointRequest):  # its own requests are answered one after another
            return answered(handler, requests, self.runner, self.graphs)
        # Gradients and values run so many at a time. What one part stores the next one does not find: where
        # requests are cut must not show in what they cost.
        differentiated = isinstance(requests[0], GradientRequest)
        size = self.runner.batch_size if differentiated else len(requests)
        found: list[Any] = []
        with self.runner.frozen():
            for i in range(0, len(requests), size):
                found += answered(handler, requests[i : i + size], self.runner, self.graphs)
        return found

    def writer(self) -> Writer | None:
        """Of rollouts whose rows join while others are written; None where each batch runs to its end."""
        if self.rollout.remote:
            return None
        return self.rollout.writer(self.resources)

    def references(self, wanted: Sequence[RowsWanted]) -> list[InitialRows]:
        """Initial logits of rows of several problems, all of the same support."""
        return references(self.weights.head, wanted, self.rows_ahead)

    def release(self, problem: str) -> None:
        """Forgets a problem."""
        self.store.release(problem)
        self.graphs.drop(problem)

    # -- one handler a kind ------------------------------------------------------------------------

    def _run_rollouts(self, requests: Sequence[RolloutRequest]) -> list[Any]:
        openings = [request.opening for request in requests]
        return list(at_once(self.rollout.generate(openings, self.resources), self.rollout))

    def _run_reads(self, requests: Sequence[ReadRequest]) -> list[Any]:
        return read(self.weights, self.vocabulary, self.runner, self.graphs, requests)

    def _run_scores(self, requests: Sequence[ScoreRequest]) -> list[Any]:
        reward = require_reward(self.reward, "A response is to be scored here")
        return [_finite(found) for found in score(reward, self.runner, self.graphs, requests)]

    def _run_judgements(self, requests: Sequence[JudgeRequest]) -> list[Any]:
        reward = require_reward(self.reward, "A response is to be judged here")
        found = reward.values([request.reading for request in requests], self.runner)
        return [_without_infinity(row) for _, row in zip(requests, found, strict=True)]

    def _run_gradients(self, requests: Sequence[GradientRequest]) -> list[Any]:
        return list(self.gradients.compute(requests[0].terms, [request.task for request in requests]))

    def _run_values(self, requests: Sequence[ValueRequest]) -> list[Any]:
        return list(self.gradients.values(requests[0].terms, [request.task for request in requests]))

    def _run_joint(self, requests: Sequence[JointRequest]) -> list[Any]:
        """The function's own time goes to its problems in equal shares; its model runs are timed apart."""
        begin, busy = time.perf_counter(), self.runner.busy
        try:
            return list(requests[0].function([request.task for request in requests]))
        finally:
            own = time.perf_counter() - begin - (self.runner.busy - busy)
            for request in requests:
                request.account.meter.add("method", Usage(seconds=max(own, 0.0) / len(requests)))


def _finite(score: Score) -> Score | NumericalError:
    return score if math.isfinite(score.value) else not_finite(score.value)


def _without_infinity(values: Sequence[float]) -> list[float] | NumericalError:
    """Values at tokens, NaN where a reward says nothing."""
    infinite = next((value for value in values if math.isinf(value)), None)
    return [float(value) for value in values] if infinite is None else not_finite(infinite)
