"""Passes whose graphs a fault has cost, run once more when their gradients are asked for.

A graph that is kept is a promise: its text's gradient is a backward pass. Where a device has run out of
memory all kept graphs are let go of (:meth:`~nabla.engine.gradient.graphs.Graphs.clear`); the forward passes
that this costs are repeated work, which is counted apart: what a problem costs does not depend on faults, its
own or a neighbour's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from nabla.core.costs import Account, CostMeter
from nabla.engine.gradient.graphs import Graphs, KeptStates
from nabla.engine.gradient.values import GradientTask
from nabla.models.body import Chunk
from nabla.models.causal_lm import CausalLM
from nabla.models.runner import Runner
from nabla.rewards.base import RelaxedResponse, Response, Reward


class Again:
    """Makes lost graphs anew.

    Args:
        lm: the language model.
        reward: judges texts.
        runner: counts and batches.
        graphs: that are kept, and those that are lost.
    """

    def __init__(self, lm: CausalLM, reward: Reward | None, runner: Runner, graphs: Graphs) -> None:
        self.lm, self.reward, self.runner, self.graphs = lm, reward, runner, graphs

    def rewards(self, tasks: Sequence[GradientTask]) -> None:
        """The graphs of these texts' rewards, as far as they are lost."""
        lost = {}
        for task in tasks:
            kept = self.graphs.lost_reward(task.free) if task.soft is None else None
            if kept is not None:
                lost[task.free.key("reward")] = task.free, kept
        if not lost:
            return
        assert self.reward is not None
        texts, kept_ones = zip(*lost.values(), strict=True)
        with self._apart([text.account for text in texts]) as accounts:
            responses = [
                RelaxedResponse(Response(text.prompt, text.tokens, account), kept.start)
                for text, kept, account in zip(texts, kept_ones, accounts, strict=True)
            ]
            made = self.reward.relaxed(responses, self.runner)
        self.graphs.remade_rewards(texts, kept_ones, made)

    def states(self, task: GradientTask) -> None:
        """The graph of the text's states, if it is lost."""
        lost = self.graphs.lost_states(task.free)
        if lost is None:
            return
        body, start = self.lm.body, lost.start
        with self._apart([task.account]) as accounts:
            before = torch.cat([task.prompt_ids, task.tokens[:start]])
            (prefix,) = self.runner.prefixes(body, [before], accounts)
            leaf = body.embed(task.tokens[start:]).requires_grad_()
            with torch.enable_grad():
                (output,) = self.runner.forward(body, [Chunk(prefix, leaf)], accounts)
        self.graphs.remade_states(task.free, KeptStates(leaf, output.hidden, lost.backward, start))

    @contextmanager
    def _apart(self, accounts: Sequence[Account]) -> Iterator[list[Account]]:
        """Accounts for work that these have paid once; it leaves no trace among the prefixes."""
        meters = [CostMeter() for _ in accounts]
        with self.runner.frozen(keep=False):
            yield [Account(a.problem, meter, a.phase) for a, meter in zip(accounts, meters, strict=True)]
        for account, meter in zip(accounts, meters, strict=True):
            account.meter.repeat(meter.snapshot().total)
