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
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.costs import Account, Usage
from nabla.core.errors import ConfigError, NablaError, NumericalError
from nabla.engine.gradient.passes import _LanguagePass, _log_likelihood
from nabla.engine.gradient.values import GradientTask, RowsRequest, TermGradient, TrajectoryGradient
from nabla.models.body import Chunk
from nabla.models.causal_lm import CausalLM
from nabla.models.head import CHUNK_ELEMENTS, EmbeddingTable, cross_gram, work_dtype
from nabla.models.runner import Runner
from nabla.objectives.base import Term, TrajectoryObjective, TrajectoryView
from nabla.rewards.base import RelaxedReward, Reward


class GradientComputer:
    """Computes gradients for many tasks of the same objective in padded batches.

    Args:
        lm: the language model.
        reward: differentiable, or None if no term needs it.
        runner: counts and batches.
    """

    def __init__(self, lm: CausalLM, reward: Reward | None, runner: Runner) -> None:
        self.lm, self.reward, self.runner = lm, reward, runner
        self._grams: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}
        self._head_grams: dict[tuple[int, ...], tuple[Tensor, Tensor, Tensor]] = {}

    def tables(self) -> tuple[EmbeddingTable, ...]:
        """Embedding tables of all channels, LM first."""
        extra = self.reward.channels() if self.reward is not None and self.reward.differentiable else ()
        return (self.lm.table, *extra)

    # -- one forward and one backward pass per model --------------------------------------------

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
        rewards: list[RelaxedReward] = []
        if needs_reward and self.reward is not None:
            rewards = self.reward.relaxed([task.relaxed() for task in tasks], self.runner)

        passes: list[_LanguagePass | None] = [None] * len(tasks)
        if needs_likelihood:
            unknown = [i for i, task in enumerate(tasks) if not task.known]
            for i, done in zip(unknown, self._language([tasks[i] for i in unknown]), strict=True):
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
        for i, done in zip(needed, self._language([tasks[i] for i in needed]), strict=True):
            passes[i] = done
        return self._pull_back(terms, tasks, stages, passes, rewards)

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
        passes: list[_LanguagePass | None] = [None] * len(tasks)
        if any(t.objective.needs_likelihood for t in terms):
            unknown = [i for i, task in enumerate(tasks) if not task.known]
            found = self._language([tasks[i] for i in unknown], differentiate=False)
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
        done: _LanguagePass | None,
        reward: float | None,
    ) -> dict[str, float] | NablaError:
        rows = self._log_likelihoods(task, done)
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

    def _log_likelihoods(self, task: GradientTask, done: _LanguagePass | None) -> Tensor:
        """Of the free tokens: from a pass, or what the rollout knows of its own text."""
        if done is not None:
            return done.values.detach()
        dtype = work_dtype(self.lm.body.dtype)
        return task.trajectory.log_probs[task.start :].to(self.lm.head.device, dtype)

    def _derive(
        self,
        term: Term,
        task: GradientTask,
        done: _LanguagePass | None,
        reward: RelaxedReward | None,
    ) -> _Derivative:
        values = self._log_likelihoods(task, done)
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

    def _language(
        self, tasks: Sequence[GradientTask], *, differentiate: bool = True
    ) -> list[_LanguagePass]:
        """The LM over the free part of each text; with ``differentiate``, a graph down to its embeddings."""
        if not tasks:
            return []
        head, body = self.lm.head, self.lm.body
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
            passes = []
            for i, (task, leaf) in enumerate(zip(tasks, leaves, strict=True)):
                first = task.trajectory.hidden[task.start : task.start + 1].to(leaf)
                hidden = torch.cat([first, states[i].hidden]) if i in states else first
                values, normalisers = _log_likelihood(head, hidden, task)
                account = task.account
                account.meter.add(account.phase, Usage(flops=head.flops(len(hidden))))
                passes.append(
                    _LanguagePass(leaf, chunks.get(i), values, normalisers, hidden.detach())
                )
        return passes

    def _pull_back(
        self,
        terms: Sequence[Term],
        tasks: Sequence[GradientTask],
        stages: Sequence[Sequence[_Derivative]],
        passes: Sequence[_LanguagePass | None],
        rewards: Sequence[RelaxedReward],
    ) -> list[TrajectoryGradient | NablaError]:
        count = len(self.tables())
        found: list[list[list[Tensor | None]]] = [
            [[None] * count for _ in terms] for _ in tasks
        ]
        for k in range(len(terms)):
            sources: list[Tensor] = []
            cotangents: list[Tensor] = []
            leaves: list[Tensor] = []
            slots: list[tuple[int, int]] = []
            for i, task in enumerate(tasks):
                derivative, done = stages[i][k], passes[i]
                if done is not None and done.chunk is not None and bool((derivative.context != 0).any()):
                    sources.append(done.values)
                    cotangents.append(derivative.context.to(done.values))
                    leaves.append(done.leaf)
                    slots.append((i, 0))
                    self.runner.count_backward(self.lm.body, done.chunk, task.account)
                    flops = self.lm.head.flops(len(done.values))
                    task.account.meter.add(task.account.phase, Usage(flops=flops))
                if rewards and derivative.reward != 0:
                    sources.append(rewards[i].value)
                    cotangents.append(torch.full_like(rewards[i].value, derivative.reward))
                    for channel, leaf in enumerate(rewards[i].leaves):
                        leaves.append(leaf)
                        slots.append((i, channel + 1))
                    for body, chunk in rewards[i].passes:
                        self.runner.count_backward(body, chunk, task.account)
            if not sources:
                continue
            accounts = [task.account for task in tasks]
            with self.runner.timed(accounts, [float(len(t.tokens) - t.start) for t in tasks]):
                grads = torch.autograd.grad(
                    sources, leaves, cotangents, retain_graph=k + 1 < len(terms), allow_unused=True
                )
            for (i, channel), leaf, grad in zip(slots, leaves, grads, strict=True):
                found[i][k][channel] = torch.zeros_like(leaf) if grad is None else grad
        return [
            self._finish(terms, task, stages[i], found[i], passes[i], rewards[i] if rewards else None)
            for i, task in enumerate(tasks)
        ]

    def _finish(
        self,
        terms: Sequence[Term],
        task: GradientTask,
        derivatives: Sequence[_Derivative],
        channels: list[list[Tensor | None]],
        done: _LanguagePass | None,
        reward: RelaxedReward | None,
    ) -> TrajectoryGradient | NablaError:
        results = {}
        for term, derivative, grads in zip(terms, derivatives, channels, strict=True):
            direct = derivative.context + derivative.fixed
            tensors = [direct, *(g for g in grads if g is not None)]
            value = torch.tensor(derivative.value)
            if not all(bool(torch.isfinite(t).all()) for t in [value, *tensors]):
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

    # -- rows on demand -------------------------------------------------------------------------

    @torch.no_grad()
    def rows(
        self,
        gradient: TrajectoryGradient,
        part: TermGradient,
        positions: slice,
        candidates: Int[Tensor, "*rows_or_not k"] | None,
        account: Account,
    ) -> Float[Tensor, "rows k"]:
        """``∂L/∂y_i`` over ``candidates`` (all usable ids if None) for a slice of positions."""
        count = positions.stop - positions.start
        places = torch.arange(positions.start - gradient.start, positions.stop - gradient.start)
        if candidates is not None and candidates.dim() == 1:
            candidates = candidates.expand(count, -1)
        (found,) = self.rows_of([gradient.rows_wanted(part, places, candidates, account)])
        return found

    @torch.no_grad()
    def rows_of(self, wanted: Sequence[RowsRequest]) -> list[Float[Tensor, "rows k"]]:
        """``∂L/∂y_i`` for every entry; one product per embedding table for all of them, since it reads the
        whole table however few rows are asked for. All entries have supports of one size."""
        head = self.lm.head
        dtype = work_dtype(self.lm.body.dtype)
        sizes = [len(entry.places) for entry in wanted]
        supports = [entry.candidates for entry in wanted]
        width = head.usable if supports[0] is None else supports[0].shape[-1]
        total = torch.zeros(sum(sizes), width, dtype=dtype, device=head.device)
        parts = list(torch.split(total, sizes))
        for index, table in enumerate(self.tables()):
            reached = [
                (entry, channel, part)
                for entry, part in zip(wanted, parts, strict=True)
                if (channel := entry.part.channels[index]) is not None
            ]
            if not reached:
                continue
            vectors = torch.cat([channel[entry.places] for entry, channel, _ in reached])
            ids = None
            if supports[0] is not None:
                ids = torch.cat([e.candidates for e, _, _ in reached if e.candidates is not None])
            products = table.products(vectors, ids).to(total)
            for (entry, _, part), found in zip(
                reached, torch.split(products, [len(e.places) for e, _, _ in reached]), strict=True
            ):
                part += found
                entry.account.meter.add(
                    entry.account.phase, Usage(flops=table.flops(len(entry.places), width))
                )
        for entry, part in zip(wanted, parts, strict=True):
            direct = entry.part.direct[entry.places].to(total)
            if entry.hidden is not None and bool((direct != 0).any()):
                part += direct.unsqueeze(-1) * self._log_pi(entry)
        return parts

    def _log_pi(self, entry: RowsRequest) -> Float[Tensor, "rows k"]:
        """``log π(.|y_<i)`` over the entry's support; 0 at masked tokens, which have no weight."""
        head, account = self.lm.head, entry.account
        logits, normalisers = entry.logits, entry.normalisers
        if logits is None:
            assert entry.hidden is not None
            logits = head.logits(entry.hidden, entry.candidates)
            flops = 2.0 * logits.numel() * entry.hidden.shape[-1]
            account.meter.add(account.phase, Usage(flops=flops))
        if normalisers is None and entry.candidates is None:
            normalisers = logits.logsumexp(-1)
        elif normalisers is None:
            assert entry.hidden is not None
            normalisers = head.partition(entry.hidden).log_z
            account.meter.add(account.phase, Usage(flops=head.flops(len(logits))))
        log_pi = logits - normalisers.to(logits).unsqueeze(-1)
        if head.blocked is not None:
            log_pi = log_pi.masked_fill_(logits.isinf(), 0.0)
        return log_pi

    @torch.no_grad()
    def norms(
        self, gradient: TrajectoryGradient, part: TermGradient, account: Account
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """``||∂L/∂y_i||_2`` over all usable ids per position, and the same after centring.

        The embedding part costs H×H per position (Gram matrices, SPEC section 7.2), the ``log π`` part
        one pass over the head and the tables in chunks of rows.
        """
        present = [c is not None for c in part.channels]
        tables = [t for t, p in zip(self.tables(), present, strict=True) if p]
        vectors = [c for c in part.channels if c is not None]
        device, dtype = self.lm.head.device, work_dtype(self.lm.body.dtype)
        count = len(part.direct)
        usable = self.lm.head.usable
        squared = torch.zeros(count, dtype=dtype, device=device)
        summed = torch.zeros(count, dtype=dtype, device=device)
        flops = 0.0
        joint = None
        if vectors:
            joint = torch.cat([v.to(device, dtype) for v in vectors], -1)
            gram, mean = self._joint_gram(tables)
            squared += ((joint @ gram) * joint).sum(-1)
            summed += usable * (joint @ mean)
            flops += 2.0 * count * gram.numel()
        direct = part.direct.to(device, dtype)
        if gradient.hidden is not None and bool((direct != 0).any()):
            moments = self._linear_moments if self.lm.head.linear else self._moments
            square, total, cross, extra = moments(gradient, tables, joint)
            squared += direct**2 * square + 2 * direct * cross
            summed += direct * total
            flops += extra
        account.meter.add(account.phase, Usage(flops=flops))
        centred = squared - summed**2 / usable
        return squared.clamp_min(0).sqrt(), centred.clamp_min(0).sqrt()

    def _moments(
        self, gradient: TrajectoryGradient, tables: Sequence[EmbeddingTable], joint: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, float]:
        """Per row ``Σ_v log² π_v``, ``Σ_v log π_v`` and ``Σ_v log π_v (E g)_v``, and the FLOPs spent, from
        the logits in chunks of rows: for heads with a soft cap or masked tokens."""
        head, hidden = self.lm.head, gradient.hidden
        assert hidden is not None
        squares, totals, crosses, flops = [], [], [], 0.0
        for rows in head.chunks(len(hidden)):
            logits = head.logits(hidden[rows])
            log_pi = logits.log_softmax(-1).masked_fill_(logits.isinf(), 0.0)
            flops += head.flops(len(log_pi))
            squares.append((log_pi**2).sum(-1))
            totals.append(log_pi.sum(-1))
            cross = torch.zeros_like(totals[-1])
            if joint is not None:
                back = torch.cat([t.transposed(log_pi).to(cross.device) for t in tables], -1)
                cross = (back * joint[rows]).sum(-1)
                flops += sum(t.flops(len(log_pi)) for t in tables)
            crosses.append(cross)
        return torch.cat(squares), torch.cat(totals), torch.cat(crosses), flops

    def _linear_moments(
        self, gradient: TrajectoryGradient, tables: Sequence[EmbeddingTable], joint: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, float]:
        """The same where ``log π = W h - log Z`` is linear in h: Gram matrices again, no number per token
        of the vocabulary. The logits are centred first (a softmax does not see a shift): squares of
        numbers around zero keep their digits."""
        head, hidden = self.lm.head, gradient.hidden
        assert hidden is not None
        gram, mean, crosses = self._head_gram(tables)
        h = hidden.to(head.device, gram.dtype)
        if head.module.bias is not None:
            h = torch.cat([h, h.new_ones(len(h), 1)], -1)
        if gradient.normalisers is not None:
            log_z = gradient.normalisers.to(h)
            flops = 0.0
        else:
            log_z, flops = head.partition(hidden).log_z.to(h), head.flops(len(h))
        shift = h @ mean - log_z  # mean of log π over the vocabulary
        square = ((h @ gram) * h).sum(-1) + head.usable * shift**2
        total = head.usable * shift
        cross = torch.zeros_like(total)
        if joint is not None:
            sums = torch.cat([t.mean().to(h) for t in tables]) * head.usable
            cross = ((h @ crosses) * joint.to(h)).sum(-1) + shift * (joint.to(h) @ sums)
        flops += 2.0 * len(h) * (gram.numel() + crosses.numel())
        dtype = work_dtype(self.lm.body.dtype)
        return square.to(dtype), total.to(dtype), cross.to(dtype), flops

    def _head_gram(self, tables: Sequence[EmbeddingTable]) -> tuple[Tensor, Tensor, Tensor]:
        """Of the head's centred rows (scaled, with the bias as one more column): their Gram matrix, the
        mean row, and the product with the tables' embeddings; computed once, summed up in float64."""
        head = self.lm.head
        key = (-1, *(id(t) for t in tables))
        if key not in self._head_grams:
            columns = head.weight.shape[-1] + (head.module.bias is not None)
            size = max(1, CHUNK_ELEMENTS // columns)
            parts = [slice(i, min(i + size, head.usable)) for i in range(0, head.usable, size)]
            mean = sum(
                (head.affine(p).sum(0, dtype=torch.float64) for p in parts),
                torch.zeros(columns, dtype=torch.float64, device=head.device),
            ) / head.usable
            width = sum(t.hidden_size for t in tables)
            gram = torch.zeros(columns, columns, dtype=torch.float64, device=head.device)
            cross = torch.zeros(columns, width, dtype=torch.float64, device=head.device)
            for part in parts:
                rows = head.affine(part)
                centred = rows - mean.to(rows)
                gram += centred.mT @ centred
                if tables:
                    ids = torch.arange(part.start, part.stop)
                    cross += centred.mT @ torch.cat([t.rows(ids).to(centred) for t in tables], -1)
            self._head_grams[key] = (gram, mean, cross)
        return self._head_grams[key]

    def _joint_gram(self, tables: Sequence[EmbeddingTable]) -> tuple[Tensor, Tensor]:
        key = tuple(id(t) for t in tables)
        if key not in self._grams:
            device, dtype = self.lm.head.device, work_dtype(self.lm.body.dtype)
            blocks = [
                torch.cat(
                    [
                        (a.gram() if a is b else cross_gram(a, b)).to(device, dtype)
                        for b in tables
                    ],
                    -1,
                )
                for a in tables
            ]
            mean = torch.cat([t.mean().to(device, dtype) for t in tables])
            self._grams[key] = (torch.cat(blocks), mean)
        return self._grams[key]


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


