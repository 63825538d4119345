"""Forward passes over texts: the language model over their free part, and values of terms.

:class:`Passes` keeps graphs where a gradient will be pulled back through them, and none where only values
are wanted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nabla.core.costs import Usage
from nabla.core.errors import ConfigError, NablaError, NumericalError
from nabla.engine.gradient.again import Again
from nabla.engine.gradient.graphs import FreeText, Graphs, Key, backward_usage
from nabla.engine.gradient.values import GradientTask
from nabla.models.body import Chunk
from nabla.models.causal_lm import CausalLM
from nabla.models.precision import work_dtype
from nabla.models.runner import Runner
from nabla.objectives.base import Term, TrajectoryObjective, TrajectoryView
from nabla.rewards.base import Reward, expected_flops, expected_log_likelihood


@dataclass(eq=False)
class LanguagePass:
    """One LM pass over the free part of a text, or over more of it: ``before`` positions before that part.
    ``backward`` is what its backward pass uses, None where no layer ran; ``kept`` whose kept graph it is."""

    leaf: Tensor
    backward: Usage | None
    values: Tensor
    normalisers: Tensor
    hidden: Tensor
    before: int = 0
    kept: FreeText | None = None


class Passes:
    """Forward passes over many texts in padded batches.

    Args:
        lm: the language model.
        reward: judges texts; None if no term needs it.
        runner: counts and batches.
        graphs: that earlier passes have kept.
    """

    def __init__(self, lm: CausalLM, reward: Reward | None, runner: Runner, graphs: Graphs) -> None:
        self.lm, self.reward, self.runner, self.graphs = lm, reward, runner, graphs
        self.again = Again(lm, reward, runner, graphs)

    def language(
        self, tasks: Sequence[GradientTask], *, differentiate: bool = True
    ) -> list[LanguagePass]:
        """The LM over the free part of each text; with ``differentiate``, a graph down to its embeddings."""
        found: list[LanguagePass | None] = [None] * len(tasks)
        if differentiate:
            taken: set[Key] = set()
            for i, task in enumerate(tasks):
                key = task.free.key("states")
                found[i] = None if key in taken else self._kept(task)  # a graph serves one
                taken.add(key)
        todo = [i for i, done in enumerate(found) if done is None]
        for i, done in zip(todo, self._run([tasks[i] for i in todo], differentiate), strict=True):
            found[i] = done
        return [done for done in found if done is not None]

    def _kept(self, task: GradientTask) -> LanguagePass | None:
        """From the graph of the pass that read the text, if it is kept: no layer runs again."""
        if task.soft is not None or task.start == len(task.tokens) - 1:  # a last token predicts nothing
            return None
        self.again.states(task)
        kept = self.graphs.states(task.free)
        if kept is None:
            return None
        before = task.start - kept.start
        first = task.trajectory.hidden[task.start : task.start + 1].to(kept.leaf)
        with torch.enable_grad():
            hidden = torch.cat([first, kept.hidden[before:-1]])
            values, normalisers = self._judged(hidden, task)
        hidden = hidden.detach()
        return LanguagePass(kept.leaf, kept.backward, values, normalisers, hidden, before, task.free)

    def _judged(self, hidden: Tensor, task: GradientTask) -> tuple[Tensor, Tensor]:
        account = task.account
        head, free = self.lm.head, task.tokens[task.start :]
        values, normalisers = expected_log_likelihood(head, hidden, free, task.soft, task.start)
        account.meter.add(account.phase, Usage(flops=expected_flops(head, len(hidden), task.soft)))
        return values, normalisers

    def _run(self, tasks: Sequence[GradientTask], differentiate: bool) -> list[LanguagePass]:
        if not tasks:
            return []
        body = self.lm.body
        embedded = [t.relaxed().embeddings(self.lm.table).detach() for t in tasks]
        leaves = [leaf.requires_grad_(differentiate) for leaf in embedded]
        # The last token predicts nothing, and the first free token is predicted by the prefix.
        run = [i for i, leaf in enumerate(leaves) if len(leaf) > 1]
        prefixes = self.runner.prefixes(
            body,
            [torch.cat([tasks[i].prompt_ids, tasks[i].tokens[: tasks[i].start]]) for i in run],
            [tasks[i].account for i in run],
        )
        with torch.set_grad_enabled(differentiate):
            chunks = {
                i: Chunk(prefix, leaves[i][:-1]) for i, prefix in zip(run, prefixes, strict=True)
            }
            outputs = self.runner.forward(
                body, list(chunks.values()), [tasks[i].account for i in run]
            )
            states = dict(zip(run, outputs, strict=True))
            hidden = []
            for i, (task, leaf) in enumerate(zip(tasks, leaves, strict=True)):
                first = task.trajectory.hidden[task.start : task.start + 1].to(leaf)
                hidden.append(torch.cat([first, states[i].hidden]) if i in states else first)
            judged = self._all_judged(hidden, tasks)
        return [
            LanguagePass(
                leaves[i],
                backward_usage(body, chunks[i]) if i in chunks else None,
                *judged[i],
                hidden[i].detach(),
            )
            for i in range(len(tasks))
        ]

    def _all_judged(
        self, hidden: Sequence[Tensor], tasks: Sequence[GradientTask]
    ) -> list[tuple[Tensor, Tensor]]:
        """Log-likelihoods and log-normalisers of each text; hard ones go through the head together."""
        hard = [i for i, task in enumerate(tasks) if task.soft is None]
        found = {i: self._judged(hidden[i], task) for i, task in enumerate(tasks) if task.soft is not None}
        if hard:
            for i in hard:
                account = tasks[i].account
                account.meter.add(account.phase, Usage(flops=self.lm.head.flops(len(hidden[i]))))
            tokens = torch.cat([tasks[i].tokens[tasks[i].start :] for i in hard])
            every = expected_log_likelihood(self.lm.head, torch.cat([hidden[i] for i in hard]), tokens, None)
            lengths = [len(hidden[i]) for i in hard]
            parts = (torch.split(rows, lengths) for rows in every)
            found.update(zip(hard, zip(*parts, strict=True), strict=True))
        return [found[i] for i in range(len(tasks))]

    def log_likelihoods(self, task: GradientTask, done: LanguagePass | None) -> Tensor:
        """Of the free tokens: from a pass, or what the rollout knows of its own text."""
        if done is not None:
            return done.values.detach()
        dtype = work_dtype(self.lm.body.dtype)
        return task.trajectory.log_probs[task.start :].to(self.lm.head.device, dtype)

    @torch.no_grad()
    def values(
        self, terms: Sequence[Term], tasks: Sequence[GradientTask]
    ) -> list[dict[str, float] | NablaError]:
        """Unweighted values of trajectory terms at hard texts, by forward passes alone.

        The reward need not be differentiable. Raises ConfigError if a needed reward is missing.
        """
        rewards: list[float | None] = [None] * len(tasks)
        if any(t.objective.needs_reward for t in terms):
            if self.reward is None:
                raise ConfigError(
                    "The objective needs a reward, and there is none",
                    fix="Pass a reward (rm=...), or choose an objective without a reward term, "
                    "e.g. objective='likelihood'.",
                )
            # A trajectory that has been judged is not judged again (SPEC 7.6).
            rewards = [task.trajectory.reward if task.known else None for task in tasks]
            todo = [i for i, reward in enumerate(rewards) if reward is None]
            if todo:
                judged = self.reward.score([tasks[i].relaxed().response for i in todo], self.runner)
                for i, reward in zip(todo, judged, strict=True):
                    rewards[i] = reward.value
        passes: list[LanguagePass | None] = [None] * len(tasks)
        if any(t.objective.needs_likelihood for t in terms):
            unknown = [i for i, task in enumerate(tasks) if not task.known]
            found = self.language([tasks[i] for i in unknown], differentiate=False)
            for i, done in zip(unknown, found, strict=True):
                passes[i] = done
        return [
            self._evaluate(terms, task, done, reward)
            for task, done, reward in zip(tasks, passes, rewards, strict=True)
        ]

    def _evaluate(
        self,
        terms: Sequence[Term],
        task: GradientTask,
        done: LanguagePass | None,
        reward: float | None,
    ) -> dict[str, float] | NablaError:
        rows = self.log_likelihoods(task, done)
        view = TrajectoryView(rows, rows, None if reward is None else rows.new_tensor(reward))
        found: dict[str, float] = {}
        for term in terms:
            if not isinstance(term.objective, TrajectoryObjective):
                raise ConfigError("Not a trajectory term", got=term.name)
            found[term.name] = float(term.objective.value(view))
            if not math.isfinite(found[term.name]):
                return NumericalError(
                    f"The {term.name} term is NaN or infinite",
                    got=found[term.name],
                    fix="Check the model's dtype (try float32) and its weights, or your reward function.",
                )
        return found
