"""The gradient of an objective with respect to a response's tokens.

``∂L/∂y`` is never formed as an L×V matrix. One forward and one input-backward pass of each model over
the response give ``∂L/∂e`` per position (L×H numbers); a row of ``∂L/∂y`` follows on demand as
``E_LM ∂L/∂e_LM + E_RM ∂L/∂e_RM + (∂L/∂ℓ_i) log π_i`` (SPEC section 7, facts 1-3), and norms of all rows
from Gram matrices.

The backward pass has two stages. The objective is a function of a few numbers (a log-likelihood ℓ_i per
token, a reward r): first its derivatives with respect to those, then one pull-back through each model
that a derivative reaches. ∂L/∂ℓ_i is δ_prefix of Prop. C.1, the pull-back through the LM δ_postfix, that
through the RM δ_reward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nabla.core.costs import Account, Usage
from nabla.core.errors import ConfigError, NablaError, NumericalError
from nabla.engine.gradient.graphs import KeptBatch, KeptReward
from nabla.engine.gradient.passes import LanguagePass, Passes
from nabla.engine.gradient.values import GradientTask, TermGradient, TrajectoryGradient, channels
from nabla.models.channels import Pull
from nabla.models.runner import Runner
from nabla.objectives.base import Term, TrajectoryObjective, TrajectoryView
from nabla.rewards.base import RelaxedReward, expected_flops


class Stages:
    """The two stages, for many texts of the same objective in padded batches.

    Args:
        passes: the forward passes, and with them the models.
        runner: counts and batches.
    """

    def __init__(self, passes: Passes, runner: Runner) -> None:
        self.passes, self.runner = passes, runner
        self.lm, self.reward = passes.lm, passes.reward

    def compute(
        self, terms: Sequence[Term], tasks: Sequence[GradientTask]
    ) -> list[TrajectoryGradient | NablaError]:
        """Gradients of trajectory terms. Raises ConfigError if a needed reward is missing.

        Terms that look at one model only are done with before the other model is run: the graphs of the
        two are never held at once.
        """
        merged: list[TrajectoryGradient | NablaError] = []
        for group in _groups(terms):
            found = self._compute(group, tasks)
            merged = [_merged(a, b, terms) for a, b in zip(merged, found, strict=True)] if merged else found
        return merged

    def _compute(
        self, terms: Sequence[Term], tasks: Sequence[GradientTask]
    ) -> list[TrajectoryGradient | NablaError]:
        needs_reward = any(t.objective.needs_reward for t in terms)
        needs_likelihood = any(t.objective.needs_likelihood for t in terms)
        if needs_reward and (self.reward is None or not self.reward.differentiable):
            raise ConfigError(
                "The objective needs a differentiable reward",
                got=None if self.reward is None else type(self.reward).__name__,
                fix="Pass a reward model (rm=...), or choose an objective without a reward term, "
                "e.g. objective='likelihood'.",
            )
        rewards = self._rewards(tasks) if needs_reward else []

        passes: list[LanguagePass | None] = [None] * len(tasks)
        if needs_likelihood:
            unknown = [i for i, task in enumerate(tasks) if not task.known]
            for i, done in zip(unknown, self.passes.language([tasks[i] for i in unknown]), strict=True):
                passes[i] = done

        # Stage 1: derivatives with respect to the numbers the models returned.
        stages = [
            [self._derive(term, task, passes[i], rewards[i] if rewards else None) for term in terms]
            for i, task in enumerate(tasks)
        ]
        # Stage 2: only texts whose contexts matter go through the LM (none where they are detached).
        needed = [
            i
            for i, rows in enumerate(stages)
            if passes[i] is None and any(bool((row.context != 0).any()) for row in rows)
        ]
        for i, done in zip(needed, self.passes.language([tasks[i] for i in needed]), strict=True):
            passes[i] = done
        paid = self._differentiate(tasks, stages, rewards)
        found = self._pull_back(terms, tasks, stages, passes, rewards)
        # Not before: what fails is asked again, and its counts are taken back.
        for known in passes:
            if known is not None and known.kept is not None:
                self.passes.graphs.spend(known.kept)
        for reward in paid:
            reward.paid = True
        return found

    def _rewards(self, tasks: Sequence[GradientTask]) -> list[RelaxedReward | KeptReward]:
        """Each text's reward: from the graph of the pass that scored it, if it is kept, else from a pass."""
        self.passes.again.rewards(tasks)
        found: list[RelaxedReward | KeptReward | None] = [
            self.passes.graphs.reward(task.free) if task.soft is None else None for task in tasks
        ]
        todo = [i for i, reward in enumerate(found) if reward is None]
        if todo:
            assert self.reward is not None
            passed = self.reward.relaxed([tasks[i].relaxed() for i in todo], self.runner)
            for i, reward in zip(todo, passed, strict=True):
                found[i] = reward
        return [reward for reward in found if reward is not None]

    def _differentiate(
        self,
        tasks: Sequence[GradientTask],
        stages: Sequence[Sequence[_Derivative]],
        rewards: Sequence[RelaxedReward | KeptReward],
    ) -> list[KeptReward]:
        """Backward passes through kept graphs, one for each batch that they were made in; the rows that were
        asked for."""
        payers: dict[KeptBatch, list[Account]] = {}
        asked = []
        for task, rows, reward in zip(tasks, stages, rewards, strict=False):
            if isinstance(reward, KeptReward) and any(row.reward != 0 for row in rows):
                payers.setdefault(reward.batch, []).append(task.account)
                reward.pay(task.account)
                asked.append(reward)
        for batch, accounts in payers.items():
            with self.runner.timed(accounts, [1.0] * len(accounts)):
                batch.differentiate()
        return asked

    def _derive(
        self,
        term: Term,
        task: GradientTask,
        done: LanguagePass | None,
        reward: RelaxedReward | KeptReward | None,
    ) -> _Derivative:
        values = self.passes.log_likelihoods(task, done)
        context = values.clone().requires_grad_()
        fixed = values.clone().requires_grad_()
        leaf = reward.value.detach().clone().requires_grad_() if reward is not None else None
        if not isinstance(term.objective, TrajectoryObjective):
            raise ConfigError("Not a trajectory term", got=term.name)
        with torch.enable_grad():
            value = term.objective.value(TrajectoryView(context, fixed, leaf))
        inputs = [x for x in (context, fixed, leaf) if x is not None]
        found = torch.autograd.grad(value, inputs, allow_unused=True)
        grads = [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]
        reward_derivative = float(grads[2]) if leaf is not None else 0.0
        return _Derivative(float(value.detach()), grads[0], grads[1], reward_derivative)

    def _pull_back(
        self,
        terms: Sequence[Term],
        tasks: Sequence[GradientTask],
        stages: Sequence[Sequence[_Derivative]],
        passes: Sequence[LanguagePass | None],
        rewards: Sequence[RelaxedReward | KeptReward],
    ) -> list[TrajectoryGradient | NablaError]:
        places = channels(self.lm, self.reward)
        found: list[list[list[Pull | None]]] = [[[None] * len(places) for _ in terms] for _ in tasks]
        finite = [[True] * len(terms) for _ in tasks]

        def arrived(i: int, k: int, channel: int, slope: Tensor) -> None:
            finite[i][k] &= bool(torch.isfinite(slope).all())
            found[i][k][channel] = places[channel].pull(slope)

        for k in range(len(terms)):
            sources: list[Tensor] = []
            cotangents: list[Tensor] = []
            leaves: list[Tensor] = []
            slots: list[tuple[int, int, int]] = []
            for i, task in enumerate(tasks):
                derivative, done = stages[i][k], passes[i]
                if done is not None and done.backward is not None and bool((derivative.context != 0).any()):
                    sources.append(done.values)
                    cotangents.append(derivative.context.to(done.values))
                    leaves.append(done.leaf)
                    slots.append((i, 0, done.before))
                    flops = expected_flops(self.lm.head, len(done.values), task.soft, slope=True)
                    task.account.add(done.backward + Usage(flops=flops))
                if not rewards or derivative.reward == 0:
                    continue
                reward = rewards[i]
                if isinstance(reward, KeptReward):
                    for channel, slope in enumerate(reward.slopes(task.start)):
                        arrived(i, k, channel + 1, derivative.reward * slope)
                    continue
                sources.append(reward.value)
                cotangents.append(torch.full_like(reward.value, derivative.reward))
                for channel, leaf in enumerate(reward.leaves):
                    leaves.append(leaf)
                    slots.append((i, channel + 1, 0))
                for body, chunk in reward.passes:
                    self.runner.count_backward(body, chunk, task.account)
            if not sources:
                continue
            # A kept graph outlives a pass that fails: the next try differentiates it.
            keep = k + 1 < len(terms) or any(p is not None and p.kept is not None for p in passes)
            shares = [float(len(t.tokens) - t.start) for t in tasks]
            with self.runner.timed([t.account for t in tasks], shares):
                grads = torch.autograd.grad(sources, leaves, cotangents, retain_graph=keep, allow_unused=True)
            for (i, channel, before), leaf, grad in zip(slots, leaves, grads, strict=True):
                arrived(i, k, channel, (torch.zeros_like(leaf) if grad is None else grad)[before:])
        return [
            self._finish(
                terms, task, stages[i], found[i], finite[i], passes[i], rewards[i] if rewards else None
            )
            for i, task in enumerate(tasks)
        ]

    def _finish(
        self,
        terms: Sequence[Term],
        task: GradientTask,
        derivatives: Sequence[_Derivative],
        pulls: list[list[Pull | None]],
        finite: list[bool],
        done: LanguagePass | None,
        reward: RelaxedReward | KeptReward | None,
    ) -> TrajectoryGradient | NablaError:
        results = {}
        for term, derivative, grads, sound in zip(terms, derivatives, pulls, finite, strict=True):
            direct = derivative.context + derivative.fixed
            if not (sound and math.isfinite(derivative.value) and bool(torch.isfinite(direct).all())):
                return NumericalError(
                    f"The {term.name} term or its gradient is NaN or infinite",
                    got=derivative.value,
                    fix="Check the model's dtype (try float32) and its weights.",
                )
            results[term.name] = TermGradient(derivative.value, tuple(grads), direct)
        hidden = normalisers = None
        if any(bool((r.direct != 0).any()) for r in results.values()):
            if done is not None:
                hidden, normalisers = done.hidden, done.normalisers.detach()
            else:
                hidden = task.trajectory.hidden[task.start :]
        known = None if reward is None else float(reward.value.detach())
        hard = task.soft is None
        return TrajectoryGradient(task.tokens, task.start, results, hidden, normalisers, known, hard)


@dataclass(frozen=True, eq=False)
class _Derivative:
    """A term's value and its derivatives: ∂/∂ℓ with and without context, ∂/∂r."""

    value: float
    context: Tensor
    fixed: Tensor
    reward: float


def _groups(terms: Sequence[Term]) -> list[list[Term]]:
    """Terms that need the reward alone, and the others; one group if a term needs both models."""
    alone = [t for t in terms if t.objective.needs_reward and not t.objective.needs_likelihood]
    others = [t for t in terms if t not in alone]
    if not alone or not others or any(t.objective.needs_reward for t in others):
        return [list(terms)]
    return [alone, others]


def _merged(
    one: TrajectoryGradient | NablaError, other: TrajectoryGradient | NablaError, terms: Sequence[Term]
) -> TrajectoryGradient | NablaError:
    """Both groups' terms as one gradient, or the first error."""
    if isinstance(one, NablaError):
        return one
    if isinstance(other, NablaError):
        return other
    found = {**one.terms, **other.terms}
    return replace(
        other,
        terms={term.name: found[term.name] for term in terms},
        reward=one.reward if other.reward is None else other.reward,
    )
