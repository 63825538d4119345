"""Where requests are answered: an engine's models, caches and batches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from nabla.core.budget import Budget
from nabla.core.costs import Usage
from nabla.core.errors import ComponentError, NablaError, NumericalError
from nabla.core.trajectory import Score, States
from nabla.engine.events import Events
from nabla.engine.gradient.computer import GradientComputer
from nabla.engine.initial_rows import InitialRows, RowsWanted, references
from nabla.engine.remote import at_once
from nabla.engine.requests import (
    GradientRequest,
    JointRequest,
    ReadRequest,
    Request,
    RolloutRequest,
    ScoreRequest,
    ValueRequest,
)
from nabla.models.body import Chunk
from nabla.models.causal_lm import CausalLM, require_lm
from nabla.models.runner import Runner
from nabla.models.vocabulary import Vocabulary
from nabla.rewards.base import Reward, require_reward
from nabla.rollouts.base import Continuation, Resources, Rollout


class Workspace:
    """Answers requests, a batch of one kind at a time. Knows nothing of who asks, or when.

    Args:
        vocabulary: of the language model.
        lm: the engine's own view of the language model; None where it runs elsewhere.
        reward: bound to the vocabulary; None for likelihood-only runs.
        rollout: how the language model is decoded.
        runner: batches and counts passes; holds the prefixes.
        seed, budgets, kept_gradients, rows_ahead, events: see :class:`~nabla.engine.engine.Engine`.
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
        events: Events | None = None,
    ) -> None:
        self.vocabulary, self.lm, self.reward = vocabulary, lm, reward
        self.rollout, self.runner = rollout, runner
        self.resources = Resources(vocabulary, runner, lm)
        self.store = runner.store
        self.seed, self.kept_gradients, self.rows_ahead = seed, kept_gradients, rows_ahead
        self.budgets = tuple(budgets)
        self.events = events or Events()
        self._gradients = None if lm is None else GradientComputer(lm, reward, runner)
        self.handlers: dict[str, Callable[[Sequence[Any]], list[Any]]] = {
            "rollout": self._run_rollouts,
            "read": self._run_reads,
            "score": self._run_scores,
            "gradient": self._run_gradients,
            "value": self._run_values,
            "joint": self._run_joint,
        }

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

        If the batch fails, each request runs alone, so that one does not sink all.
        """
        if not requests:
            return []
        try:
            return self.handlers[requests[0].kind](requests)
        except torch.OutOfMemoryError as error:
            failure: NablaError = NablaError(
                "The device is out of memory",
                got=str(error).splitlines()[0],
                fix="Lower batch_size or live, shorten max_new_tokens, or use a smaller dtype.",
            )
        except NablaError as error:
            failure = error
        except Exception as error:
            failure = ComponentError.of(error, f"A {requests[0].kind} request")
        if len(requests) == 1:
            return [failure]
        return [self.answer([request])[0] for request in requests]

    def references(self, wanted: Sequence[RowsWanted]) -> list[InitialRows]:
        """Initial logits of rows of several problems, all of the same support."""
        return references(self.weights.head, wanted, self.rows_ahead)

    # -- one handler a kind ------------------------------------------------------------------------

    def _run_rollouts(self, requests: Sequence[RolloutRequest]) -> list[Any]:
        openings = [request.opening for request in requests]
        return list(at_once(self.rollout.generate(openings, self.resources), self.rollout))

    @torch.no_grad()
    def _run_reads(self, requests: Sequence[ReadRequest]) -> list[Any]:
        body, head = self.weights.body, self.weights.head
        chunks = []
        for request in requests:
            sequence = torch.cat([request.prompt, request.tokens])
            known = self.runner.known(body, request.prompt[:-1], request.account)
            chunks.append(Chunk(known, body.embed(sequence[len(known) :])))
        outputs = self.runner.forward(body, chunks, [r.account for r in requests], keep=True)
        found = []
        for request, output in zip(requests, outputs, strict=True):
            account, length = request.account, len(request.tokens)
            self.store.put(account.problem, body, torch.cat([request.prompt, request.tokens]), output.keys)
            hidden = output.hidden[-length - 1 : -1].clone()  # a view would keep the whole batch's alive
            account.meter.add(account.phase, Usage(flops=head.flops(length)))
            rows = head.partition(hidden, moments=True)
            own = head.logits(hidden, request.tokens.unsqueeze(-1))[:, 0]
            log_probs = (own - rows.log_z).cpu()
            entropy = (rows.log_z - rows.mean).clamp_min(0).cpu()
            top1 = (rows.top - rows.log_z).exp().cpu()
            finished = int(request.tokens[-1]) in self.vocabulary.eos_ids
            states = States(hidden, entropy, top1)
            found.append(Continuation(request.tokens, finished, log_probs, states))
        return found

    def _run_scores(self, requests: Sequence[ScoreRequest]) -> list[Any]:
        reward = require_reward(self.reward, "A response is to be scored here")
        scores = reward.score([request.response for request in requests], self.runner)
        return [_finite(score) for score in scores]

    def _run_gradients(self, requests: Sequence[GradientRequest]) -> list[Any]:
        return self._in_batches(self.gradients.compute, requests)

    def _run_values(self, requests: Sequence[ValueRequest]) -> list[Any]:
        return self._in_batches(self.gradients.values, requests)

    def _run_joint(self, requests: Sequence[JointRequest]) -> list[Any]:
        """The function's own time goes to its problems in equal shares; its model runs are timed apart."""
        begin, busy = time.perf_counter(), self.runner.busy
        try:
            return list(requests[0].function([request.task for request in requests]))
        finally:
            own = time.perf_counter() - begin - (self.runner.busy - busy)
            for request in requests:
                request.account.meter.add("method", Usage(seconds=max(own, 0.0) / len(requests)))

    def _in_batches(
        self, compute: Callable[..., Sequence[Any]], requests: Sequence[GradientRequest]
    ) -> list[Any]:
        """``compute`` of requests with the same terms, ``batch_size`` tasks at a time."""
        found: list[Any] = []
        size = self.runner.batch_size
        for i in range(0, len(requests), size):
            part = requests[i : i + size]
            found += compute(part[0].terms, [request.task for request in part])
        return found


def _finite(score: Score) -> Score | NumericalError:
    if math.isfinite(score.value):
        return score
    return NumericalError(
        "The reward is NaN or infinite",
        got=score.value,
        fix="Check the reward: a model's dtype (try float32) and weights, or your function.",
    )
