"""The engine: the one place that touches models, counts cost, keeps caches and seeds requests.

A method is sequential code for one problem that awaits a :class:`Session`. The engine advances all live
problems until each is done or waits, then runs what most of them wait for in padded batches (rollouts last),
in the order of the problems. There is no event loop and no thread: the same requests always meet in the same
batches, and a row's randomness depends on (run seed, problem, request number) alone.
"""

from __future__ import annotations

import time
from abc import ABC
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.budget import Budget
from nabla.core.costs import Account, Cost, CostMeter, Usage
from nabla.core.errors import ComponentError, ConfigError, NablaError, NumericalError
from nabla.core.prompt import Prompt
from nabla.core.random import derive_key, generator
from nabla.core.sampling import Sampling
from nabla.core.solution import Checkpoint, Solution
from nabla.core.trajectory import Trajectory
from nabla.engine.events import Events
from nabla.engine.gradient.stages import GradientComputer, GradientTask, TermGradient, TrajectoryGradient
from nabla.engine.initial_rows import Reference, RowCache, RowsWanted, references
from nabla.models.body import Chunk
from nabla.models.causal_lm import CausalLM
from nabla.models.prefixes import PrefixStore
from nabla.models.runner import Runner
from nabla.objectives.base import Objective, Term, trajectory_terms
from nabla.rewards.base import Response, Reward, SoftTokens
from nabla.rollouts.base import Continuation, Opening, Rollout, rollouts
from nabla.rollouts.boundaries.base import Boundary
from nabla.schedulers.base import Step

R = TypeVar("R")

#: Texts whose objective values are remembered per problem (a few numbers each).
KEPT_VALUES = 4096


@dataclass(frozen=True, eq=False)
class Request(ABC):
    """Something a session asks of the engine. ``group`` requests of a kind run together."""

    kind: ClassVar[str]
    account: Account

    @property
    def group(self) -> Any:
        """Requests run in one batch only with those of an equal group."""
        return None


@dataclass(frozen=True, eq=False)
class RolloutRequest(Request):
    """Write a response, or continue one."""

    kind = "rollout"
    opening: Opening


@dataclass(frozen=True, eq=False)
class ReadRequest(Request):
    """Run the language model over a given response."""

    kind = "read"
    prompt: Int[Tensor, " prompt"]
    tokens: Int[Tensor, " length"]


@dataclass(frozen=True, eq=False)
class ScoreRequest(Request):
    """Score a response."""

    kind = "score"
    response: Response


@dataclass(frozen=True, eq=False)
class GradientRequest(Request):
    """Differentiate an objective at a text."""

    kind = "gradient"
    terms: tuple[Term, ...]
    task: GradientTask

    @property
    def group(self) -> Any:
        return identity(self.terms)


@dataclass(frozen=True, eq=False)
class ValueRequest(GradientRequest):
    """Say what an objective is at a hard text; forward passes only."""

    kind = "value"


@dataclass(frozen=True, eq=False)
class JointRequest(Request):
    """Arithmetic of a component that runs once for all problems that wait for it."""

    kind = "joint"
    function: Callable[[Sequence[Any]], Sequence[Any]]
    task: Any

    @property
    def group(self) -> Any:
        return self.function


class _Wait(Awaitable[list[Any]]):
    """Hands requests to the engine and receives their results."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self.requests = list(requests)

    def __await__(self) -> Generator[list[Request], list[Any], list[Any]]:
        return (yield self.requests)


@dataclass(frozen=True, eq=False)
class ValuePlan:
    """Values of an objective at some texts: which are known, and requests for the rest.

    Args:
        terms: of the objective.
        keys: of all texts.
        new: of those that are not known.
        requests: for these.
    """

    terms: tuple[Term, ...]
    keys: list[Any]
    new: list[Any]
    requests: list[ValueRequest]


class Session:
    """What one problem's method sees of the engine. Awaits return when the batch has run."""

    def __init__(self, engine: Engine, prompt: Prompt) -> None:
        self.engine = engine
        self.prompt = prompt
        self.meter = CostMeter()
        self.events: Events = engine.events
        self.prompt_ids = engine.lm.encode(prompt)
        self.checkpoints: list[Checkpoint] = []
        self._encoded = {prompt: self.prompt_ids}
        self._requests = 0
        self._calls_before: int | None = None
        self._gradients: OrderedDict[Any, tuple[tuple[Term, ...], TrajectoryGradient]] = OrderedDict()
        self._values: OrderedDict[Any, tuple[tuple[Term, ...], dict[str, float]]] = OrderedDict()
        self.rows = RowCache()

    # -- randomness ------------------------------------------------------------------------------

    def generator(self, *labels: object) -> torch.Generator:
        """A generator for (run seed, problem, labels): the same whatever else runs."""
        return generator(self.engine.seed, self.prompt.id, "method", *labels)

    @property
    def requests(self) -> int:
        """Number of rollouts asked for so far."""
        return self._requests

    def _next_key(self) -> int:
        self._requests += 1
        return derive_key(self.engine.seed, self.prompt.id, "request", self._requests)

    def account(self, phase: str) -> Account:
        """Who pays for a request of a phase."""
        return Account(self.prompt.id, self.meter, phase)

    # -- the language model writes ---------------------------------------------------------------

    async def rollout(
        self,
        sampling: Sampling,
        n: int = 1,
        *,
        prompt: Prompt | None = None,
        until: Boundary | None = None,
        phase: str = "rollout",
    ) -> list[Trajectory]:
        """``n`` responses, in one batch.

        Args:
            sampling: how tokens are drawn.
            n: number of responses.
            prompt: another prompt than the problem's (a critique of an answer, say); the trajectories
                carry it. Raises PromptError if it does not fit.
            until: stop each response at the end of its first step.
            phase: who pays.
        """
        nothing = torch.empty(0, dtype=torch.long)
        prompt = prompt or self.prompt
        account = self.account(phase)
        ids = self._ids(prompt)
        requests = [
            RolloutRequest(account, Opening(ids, nothing, sampling, self._next_key(), account, until))
            for _ in range(n)
        ]
        found: list[Continuation] = await _Wait(requests)
        trajectories = [
            self._trajectory(part, request.opening, prompt)
            for part, request in zip(found, requests, strict=True)
        ]
        for trajectory in trajectories:
            self.events.on_rollout(self.prompt, trajectory)
        return trajectories

    async def extend(
        self,
        trajectories: Sequence[Trajectory],
        *,
        until: Boundary | None = None,
        sampling: Sampling | None = None,
        phase: str = "rollout",
    ) -> list[Trajectory]:
        """Each trajectory written further with fresh draws, all in one batch.

        One that is at its end stays as it is; the others lose their reward. The same trajectory may be
        given several times, for several continuations.

        Args:
            trajectories: responses, finished or not.
            until: stop at the end of the next step; None writes to the end.
            sampling: how tokens are drawn; the trajectory's own by default.
            phase: who pays.
        """
        account = self.account(phase)
        grown = list(trajectories)
        going = [i for i, t in enumerate(trajectories) if not self.ended(t)]
        requests = [
            RolloutRequest(
                account,
                Opening(
                    self._ids(grown[i].prompt),
                    grown[i].tokens,
                    sampling or grown[i].sampling,
                    self._next_key(),
                    account,
                    until,
                ),
            )
            for i in going
        ]
        found: list[Continuation] = await _Wait(requests) if requests else []
        for i, part, request in zip(going, found, requests, strict=True):
            tail = self._trajectory(part, request.opening, grown[i].prompt)
            grown[i] = replace(_joined(grown[i], tail), reward=None)
            self.events.on_rollout(self.prompt, grown[i])
        return grown

    def ended(self, trajectory: Trajectory) -> bool:
        """Whether a response is at its end-of-sequence token or at its length limit."""
        prompt = self._ids(trajectory.prompt)
        limit = self.engine.lm.room(len(prompt), trajectory.sampling.max_new_tokens)
        return trajectory.finished or len(trajectory) >= limit

    async def read(
        self,
        texts: Sequence[Int[Tensor, " length"]],
        sampling: Sampling,
        *,
        committed: int = 0,
        phase: str = "gradient",
    ) -> list[Trajectory]:
        """Trajectories of given responses to the problem, by one forward pass of the language model each.

        Their Gumbel keys are fresh: their tokens were not drawn from the language model.

        Args:
            texts: response ids, at least one each.
            sampling: what later continuations draw with.
            committed: leading tokens of each that are final.
            phase: who pays.
        """
        account = self.account(phase)
        requests = [ReadRequest(account, self.prompt_ids, text) for text in texts]
        found: list[Continuation] = await _Wait(requests) if requests else []
        trajectories = []
        for request, part in zip(requests, found, strict=True):
            opening = Opening(request.prompt, request.tokens[:0], sampling, self._next_key(), account)
            trajectories.append(replace(self._trajectory(part, opening, self.prompt), committed=committed))
        return trajectories

    def _ids(self, prompt: Prompt) -> Int[Tensor, " prompt"]:
        if prompt not in self._encoded:
            self._encoded[prompt] = self.engine.lm.encode(prompt)
        return self._encoded[prompt]

    @staticmethod
    def _trajectory(part: Continuation, opening: Opening, prompt: Prompt) -> Trajectory:
        return Trajectory(
            prompt=prompt,
            tokens=part.tokens,
            finished=part.finished,
            hidden=part.hidden,
            log_probs=part.log_probs,
            entropy=part.entropy,
            top1=part.top1,
            noise_keys=torch.full_like(part.tokens, opening.key),
            sampling=opening.sampling,
        )

    async def branches(
        self, trajectory: Trajectory, position: int, tokens: Sequence[int]
    ) -> list[Trajectory]:
        """Continuations of ``y_<position`` with each of ``tokens`` in place of ``y_position``.

        Nothing is written behind an end-of-sequence token or at the length limit. The branches keep
        ``committed`` and have no reward.
        """
        heads = [self._replaced(trajectory, position, token) for token in tokens]
        return await self.extend(heads)

    @torch.no_grad()
    def _replaced(self, trajectory: Trajectory, position: int, token: int) -> Trajectory:
        """``y_<position`` and ``token``; its log-probability follows from the row's known one."""
        head = self.engine.lm.head
        end = position + 1
        log_probs = trajectory.log_probs[:end].clone()
        old = int(trajectory.tokens[position])
        if token != old:
            pair = torch.tensor([token, old])
            new_logit, old_logit = head.logits(trajectory.hidden[position], pair).tolist()
            log_probs[position] += new_logit - old_logit
        tokens = trajectory.tokens[:end].clone()
        tokens[position] = token
        return replace(
            trajectory,
            tokens=tokens,
            finished=token in self.engine.lm.eos_ids,
            hidden=trajectory.hidden[:end],
            log_probs=log_probs,
            entropy=trajectory.entropy[:end],
            top1=trajectory.top1[:end],
            noise_keys=trajectory.noise_keys[:end],
            reward=None,
        )

    # -- the reward model judges -----------------------------------------------------------------

    async def score(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        """The trajectories with their rewards; one that has a reward is never scored again."""
        todo = [i for i, t in enumerate(trajectories) if t.reward is None]
        account = self.account("reward")
        requests = [
            ScoreRequest(account, Response(trajectories[i].prompt, trajectories[i].tokens, account))
            for i in todo
        ]
        values: list[float] = await _Wait(requests) if requests else []
        scored = list(trajectories)
        for i, value in zip(todo, values, strict=True):
            scored[i] = scored[i].with_reward(value)
        return scored

    # -- gradients -------------------------------------------------------------------------------

    async def gradient(
        self,
        trajectory: Trajectory,
        objective: Objective,
        *,
        start: int | None = None,
        tokens: Int[Tensor, " length"] | None = None,
        soft: SoftTokens | None = None,
        phase: str = "gradient",
    ) -> TrajectoryGradient:
        """Gradient of the trajectory terms at a hard text or at relaxed rows.

        The gradient at a hard text is a function of the text alone: it is kept and serves every later
        position of that text (SPEC section 7.1), also after a rejected proposal.

        Args:
            trajectory: gives the prefix.
            objective: its trajectory terms are differentiated.
            start: first position needed; the first uncommitted one by default.
            tokens: another hard text that agrees with the trajectory before ``start``.
            soft: relaxed rows.
            phase: who pays.
        """
        plan = self.plan_gradient(trajectory, objective, start=start, tokens=tokens, soft=soft, phase=phase)
        if isinstance(plan, TrajectoryGradient):
            return plan
        (found,) = await _Wait([plan])
        return self.keep_gradient(plan, found)

    def plan_gradient(
        self,
        trajectory: Trajectory,
        objective: Objective,
        *,
        start: int | None = None,
        tokens: Int[Tensor, " length"] | None = None,
        soft: SoftTokens | None = None,
        phase: str = "gradient",
    ) -> TrajectoryGradient | GradientRequest:
        """What :meth:`gradient` would return if it is kept, else the request for it."""
        terms = trajectory_terms(objective)
        start = trajectory.committed if start is None else start
        text = trajectory.tokens if tokens is None else tokens
        if soft is None:
            key = self._text_key(text, terms)
            _, kept = self._gradients.get(key, (None, None))
            if kept is not None and kept.start <= start:
                self._gradients.move_to_end(key)
                self.meter.count("gradients_reused")
                return kept
        account = self.account(phase)
        self.meter.count("gradients_computed")
        return GradientRequest(
            account, terms, GradientTask(self.prompt_ids, trajectory, text, start, soft, account)
        )

    def keep_gradient(self, request: GradientRequest, gradient: TrajectoryGradient) -> TrajectoryGradient:
        """Remembers the answer to a request, if it was at a hard text."""
        if request.task.soft is None:
            key = self._text_key(request.task.tokens, request.terms)
            self._gradients[key] = (request.terms, gradient)  # the terms keep their ids taken
            while len(self._gradients) > self.engine.kept_gradients:
                self._gradients.popitem(last=False)
        return gradient

    @staticmethod
    def _text_key(tokens: Tensor, terms: Sequence[Term]) -> tuple[Any, ...]:
        return tuple(tokens.tolist()), identity(terms)

    async def values(
        self,
        trajectory: Trajectory,
        objective: Objective,
        texts: Sequence[Int[Tensor, " length"]],
        *,
        phase: str = "gradient",
    ) -> dict[str, list[float]]:
        """Each trajectory term's unweighted value at each text, from the first uncommitted position on.

        Forward passes only, all new texts in one batch; a text's values are kept and never computed
        again. The reward need not be differentiable.

        Args:
            trajectory: gives the prefix.
            objective: its trajectory terms are evaluated.
            texts: hard texts that agree with the trajectory's committed tokens.
            phase: who pays.
        """
        plan = self.plan_values(trajectory, objective, texts, phase=phase)
        found: list[dict[str, float]] = await _Wait(plan.requests) if plan.requests else []
        return self.keep_values(plan, found)

    def plan_values(
        self,
        trajectory: Trajectory,
        objective: Objective,
        texts: Sequence[Int[Tensor, " length"]],
        *,
        phase: str = "gradient",
    ) -> ValuePlan:
        """The requests that :meth:`values` still needs."""
        terms = trajectory_terms(objective)
        start, account = trajectory.committed, self.account(phase)
        keys = [(start, *self._text_key(text, terms)) for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._values}
        self.meter.count("values_reused", len(texts) - len(new))
        if new:
            self.meter.count("values_computed", len(new))
        tasks = [GradientTask(self.prompt_ids, trajectory, t, start, None, account) for t in new.values()]
        requests = [ValueRequest(account, terms, task) for task in tasks]
        return ValuePlan(terms, keys, list(new), requests)

    def keep_values(self, plan: ValuePlan, answers: Sequence[dict[str, float]]) -> dict[str, list[float]]:
        """Remembers the answers to a plan's requests; all values that the plan was for, by term."""
        found = dict(zip(plan.new, answers, strict=True))
        rows = [found[key] if key in found else self._values[key][1] for key in plan.keys]
        if self.engine.kept_gradients:
            # The terms keep their ids taken.
            self._values.update({key: (plan.terms, row) for key, row in found.items()})
            while len(self._values) > KEPT_VALUES:
                self._values.popitem(last=False)
        return {term.name: [row[term.name] for row in rows] for term in plan.terms}

    async def jointly(self, function: Callable[[Sequence[Any]], Sequence[Any]], task: Any) -> Any:
        """``function``'s result for ``task``: it is called once with the tasks of all problems that wait for
        it, and returns one result (or NablaError) per task. Its own time is counted as phase "method"."""
        (found,) = await _Wait([JointRequest(self.account("method"), function, task)])
        return found

    def gradient_rows(
        self,
        gradient: TrajectoryGradient,
        part: TermGradient,
        reference: Reference,
        phase: str = "gradient",
    ) -> Float[Tensor, "rows k"]:
        """``∂/∂y`` of one term (or a weighted total) over the reference's support."""
        return self.engine.gradients.rows(
            gradient, part, reference.positions, reference.candidates, self.account(phase)
        )

    async def gradient_norms(
        self, trajectory: Trajectory, objective: Objective
    ) -> tuple[Float[Tensor, " length"], Float[Tensor, " length"]]:
        """``||∂L/∂y_i||`` per position of the response, plain and centred; NaN at committed ones.

        Raises ConfigError for an objective without trajectory terms.
        """
        if not trajectory_terms(objective):
            raise ConfigError(
                "Gradient norms need an objective with a reward or likelihood term",
                got=[term.name for term in objective.terms()],
                fix="Choose another selector, or add such a term.",
            )
        gradient = await self.gradient(trajectory, objective, phase="selection")
        total = gradient.total(trajectory_terms(objective), Step())
        found = self.engine.gradients.norms(gradient, total, self.account("selection"))
        padded = []
        for norms in found:
            row = torch.full((len(trajectory),), float("nan"), dtype=norms.dtype)
            row[gradient.start :] = norms.cpu()
            padded.append(row)
        return padded[0], padded[1]

    def reference(
        self,
        trajectory: Trajectory,
        positions: slice,
        support: int | None = None,
        ahead: Sequence[int] = (),
    ) -> Reference:
        """Initial logits of rows, from the states the rollout kept: no pass through the model.

        Args:
            trajectory: the current response.
            positions: rows, contiguous.
            support: most likely candidates kept per row (the row's own token always is); None: all.
            ahead: positions that will probably be asked for next.
        """
        (found,) = self.engine.references([self.rows_wanted(trajectory, positions, support, ahead)])
        return found

    def rows_wanted(
        self, trajectory: Trajectory, positions: slice, support: int | None, ahead: Sequence[int] = ()
    ) -> RowsWanted:
        """The request behind :meth:`reference`."""
        account = self.account("gradient")
        return RowsWanted(trajectory, positions, support, ahead, account, self.rows)

    # -- the answer ------------------------------------------------------------------------------

    def decode(self, tokens: Int[Tensor, " n"]) -> str:
        """Text of response ids."""
        return self.engine.lm.decode(tokens)

    @property
    def cost(self) -> Cost:
        """The cost so far."""
        return self.meter.snapshot()

    # -- budgets ---------------------------------------------------------------------------------

    def proceed(self, wanted: bool) -> bool:
        """Whether the method should do another round.

        Without budgets: ``wanted``, the method's own rule. With budgets: until the largest value of
        every one is reached, or a round has called no model (it would never end).

        Args:
            wanted: the method has not done yet what its settings ask for.
        """
        if not self.engine.budgets:
            return wanted
        calls = self.cost.total.calls
        idle = calls == self._calls_before
        self._calls_before = calls
        return not idle and not self.spent

    @property
    def spent(self) -> bool:
        """There are budgets, and the largest value of every one is reached."""
        usage = self.cost.total
        return bool(self.engine.budgets) and all(budget.spent(usage) for budget in self.engine.budgets)

    def report(self, trajectory: Trajectory) -> None:
        """Hands in the answer so far: what counts if the budget ends here."""
        last = self.checkpoints[-1] if self.checkpoints else None
        tokens = tuple(trajectory.tokens.tolist())
        if last is not None and (last.tokens, last.reward) == (tokens, trajectory.reward):
            return
        self.checkpoints.append(
            Checkpoint(
                self.cost.total,
                tokens,
                self.decode(trajectory.tokens),
                trajectory.reward,
                trajectory.finished,
            )
        )


def identity(terms: Sequence[Term]) -> tuple[tuple[str, int], ...]:
    """Equal for the same terms under the same names; weights apart, which are applied later."""
    return tuple((term.name, id(term.objective)) for term in terms)




def _joined(head: Trajectory, tail: Trajectory) -> Trajectory:
    names = ("tokens", "hidden", "log_probs", "entropy", "top1", "noise_keys")
    merged: dict[str, Any] = {
        name: torch.cat([getattr(head, name), getattr(tail, name).to(getattr(head, name).device)])
        for name in names
    }
    return replace(head, finished=tail.finished, **merged)


class Engine:
    """Runs methods on problems.

    Args:
        lm: the language model.
        reward: the reward, bound to the language model here; None for likelihood-only runs.
        rollout: how the language model is decoded.
        seed: of the run.
        batch_size: rows per padded batch of rewards and gradients.
        live: problems in flight at a time.
        reuse_prefixes: keep keys and values between requests; False recomputes (for measurements).
        kept_gradients: gradients remembered per problem (0 recomputes, values of texts too).
        kept_prefixes: sequences whose keys and values are kept per problem and model.
        budgets: what a problem may cost; methods run until all are spent.
        split_padding: tokens of padding at which a batch of passes is cut in two (infinity: never).
        checkpoint_activations: in passes with a gradient, keep the layers' inputs only and run them again
            on the way back: one more forward pass, a fraction of the memory.
        compile_layers: run the feed-forward parts and norms of all layers through ``torch.compile``: tens of
            seconds once per process, then faster or slower by the batch (experiments/benchmarks/README.md).
        rows_ahead: rows of logits and gradient formed at once for positions that come next (1: none).
        fullest_first: serve the kind of request that most problems wait for, rollouts when there is nothing
            else, so that problems that are out of step meet again; otherwise all that wait, kind by kind.
        events: callbacks that hear of everything.
    """

    def __init__(
        self,
        lm: CausalLM,
        reward: Reward | None = None,
        *,
        rollout: Rollout | str | dict[str, Any] = "huggingface",
        seed: int = 0,
        batch_size: int = 64,
        live: int = 64,
        reuse_prefixes: bool = True,
        kept_gradients: int = 4,
        kept_prefixes: int = 3,
        budgets: Sequence[Budget] = (),
        split_padding: float = 128.0,
        checkpoint_activations: bool = False,
        compile_layers: bool = False,
        rows_ahead: int = 12,
        fullest_first: bool = True,
        events: Events | None = None,
    ) -> None:
        counts = {"batch_size": batch_size, "live": live, "kept_prefixes": kept_prefixes}
        for name, value in {**counts, "rows_ahead": rows_ahead}.items():
            if value < 1:
                raise ConfigError(f"{name} must be at least 1", got=value)
        self.lm, self.reward = lm, reward
        lm.head.blocked = None  # of an earlier engine's reward
        if reward is not None:
            reward.bind(lm)
        for body in (lm.body, *(reward.bodies() if reward is not None else ())):
            body.checkpoint = checkpoint_activations
            body.compile(compile_layers)
        self.rollout = rollouts.build(rollout)
        self.seed, self.live, self.kept_gradients = seed, live, kept_gradients
        self.events = events or Events()
        self.budgets, self.rows_ahead = tuple(budgets), rows_ahead
        self.fullest_first = fullest_first
        self.store = PrefixStore(entries=kept_prefixes if reuse_prefixes else 0)
        self.runner = Runner(batch_size, self.store, split_padding)
        self.gradients = GradientComputer(lm, reward, self.runner)
        self._handlers: dict[str, Callable[[Sequence[Any]], list[Any]]] = {
            "rollout": self._run_rollouts,
            "read": self._run_reads,
            "score": self._run_scores,
            "gradient": self._run_gradients,
            "value": self._run_values,
            "joint": self._run_joint,
        }

    # -- scheduling --------------------------------------------------------------------------------

    def run(
        self,
        method: Callable[[Session], Coroutine[Any, Any, Solution]],
        prompts: Iterable[Prompt],
    ) -> Iterator[tuple[Prompt, Solution | NablaError]]:
        """(prompt, solution or its error), as problems finish; up to ``live`` problems at a time.

        A failing problem does not touch the others. Closing the iterator stops the run.
        """
        waiting = iter(prompts)
        active: list[_Problem] = []
        try:
            while True:
                while len(active) < self.live:
                    prompt = next(waiting, None)
                    if prompt is None:
                        break
                    problem = self._start(method, prompt)
                    if isinstance(problem, NablaError):
                        self.events.on_exception(prompt, problem)
                        yield prompt, problem
                    else:
                        active.append(problem)
                if not active:
                    return
                pending = [p for p in active if p.requests is not None]
                self._flush(_fullest(pending) if self.fullest_first else pending)
                for problem in active:
                    if problem.result is not None:
                        self.store.release(problem.prompt.id)
                        if isinstance(problem.result, NablaError):
                            self.events.on_exception(problem.prompt, problem.result)
                        else:
                            self.events.on_solution(problem.result)
                        yield problem.prompt, problem.result
                active = [p for p in active if p.result is None]
        finally:
            for problem in active:
                problem.coroutine.close()
                self.store.release(problem.prompt.id)

    def _start(
        self, method: Callable[[Session], Coroutine[Any, Any, Solution]], prompt: Prompt
    ) -> _Problem | NablaError:
        try:
            session = Session(self, prompt)
        except NablaError as error:
            return error
        problem = _Problem(session, method(session))
        problem.advance(None)
        return problem

    def _flush(self, problems: Sequence[_Problem]) -> None:
        """Runs all requests, kind by kind and group by group, then advances every problem."""
        entries: dict[tuple[str, Any], list[tuple[_Problem, int, Request]]] = {}
        for problem in problems:
            for index, request in enumerate(problem.requests or ()):
                entries.setdefault((request.kind, request.group), []).append((problem, index, request))
        results: dict[tuple[int, int], Any] = {}
        for (kind, _), rows in entries.items():
            found = self._attempt(self._handlers[kind], [request for _, _, request in rows])
            for (problem, index, _), value in zip(rows, found, strict=True):
                results[(id(problem), index)] = value
        for problem in problems:
            values = [results[(id(problem), i)] for i in range(len(problem.requests or ()))]
            problem.advance(values)

    def _attempt(
        self, handler: Callable[[Sequence[Any]], list[Any]], requests: Sequence[Request]
    ) -> list[Any]:
        """A batch's results; if the batch fails, each request alone, so that one does not sink all."""
        try:
            return handler(requests)
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
        return [self._attempt(handler, [request])[0] for request in requests]

    # -- for components that work on many problems at once ---------------------------------------

    def references(self, wanted: Sequence[RowsWanted]) -> list[Reference]:
        """Initial logits of rows of several problems, all of the same support."""
        return references(self.lm.head, wanted, self.rows_ahead)

    def answer(self, requests: Sequence[Request]) -> list[Any]:
        """Runs requests of one kind and group now; a result or NablaError for each."""
        return self._attempt(self._handlers[requests[0].kind], requests) if requests else []

    # -- handlers ----------------------------------------------------------------------------------

    def _run_rollouts(self, requests: Sequence[RolloutRequest]) -> list[Any]:
        return list(self.rollout.generate(self.lm, [request.opening for request in requests], self.runner))

    @torch.no_grad()
    def _run_reads(self, requests: Sequence[ReadRequest]) -> list[Any]:
        body, head = self.lm.body, self.lm.head
        chunks = []
        for request in requests:
            sequence = torch.cat([request.prompt, request.tokens])
            known = self.store.get(request.account.problem, body, request.prompt[:-1])
            chunks.append(Chunk(known, body.embed(sequence[len(known) :])))
        outputs = self.runner.forward(body, chunks, [r.account for r in requests], keep=True)
        found = []
        for request, output in zip(requests, outputs, strict=True):
            account, length = request.account, len(request.tokens)
            self.store.put(account.problem, body, torch.cat([request.prompt, request.tokens]), output.keys)
            hidden = output.hidden[-length - 1 : -1]
            account.meter.add(account.phase, Usage(flops=head.flops(length)))
            rows = head.partition(hidden, moments=True)
            own = head.logits(hidden, request.tokens.unsqueeze(-1))[:, 0]
            log_probs = (own - rows.log_z).cpu()
            entropy = (rows.log_z - rows.mean).clamp_min(0).cpu()
            top1 = (rows.top - rows.log_z).exp().cpu()
            finished = int(request.tokens[-1]) in self.lm.eos_ids
            found.append(Continuation(request.tokens, finished, hidden, log_probs, entropy, top1))
        return found

    def _run_scores(self, requests: Sequence[ScoreRequest]) -> list[Any]:
        if self.reward is None:
            raise ConfigError(
                "A reward is needed here, and there is none",
                fix="Pass a reward model (rm=...) or a Python reward, or choose acceptance 'always' "
                "or 'never'.",
            )
        values = self.reward.score([request.response for request in requests], self.runner)
        return [
            value
            if torch.isfinite(torch.tensor(value))
            else NumericalError(
                "The reward is NaN or infinite",
                got=value,
                fix="Check the reward: a model's dtype (try float32) and weights, or your function.",
            )
            for value in values
        ]

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


def _fullest(problems: Sequence[_Problem]) -> Sequence[_Problem]:
    """The most problems that wait for the same kinds of request, the longest alive first among equals;
    those that wait for rollouts when nobody waits for anything else.

    The others go on waiting: whoever has been served comes round to what they wait for and runs in one
    batch with them. Serving all at once would leave problems that started at different times in batches
    of a few rows for good. A rollout is by far the longest chain of steps, and a step costs almost the same
    whatever the number of rows: it pays most to have them all together.
    """
    waiting: dict[frozenset[str], list[_Problem]] = {}
    for problem in problems:
        kinds = frozenset(request.kind for request in problem.requests or ())
        waiting.setdefault(kinds, []).append(problem)
    # Among equals max takes the first: whoever has been alive longest.
    chosen = max(waiting, key=lambda kinds: ("rollout" not in kinds, len(waiting[kinds])), default=None)
    return () if chosen is None else waiting[chosen]


class _Problem:
    """A live problem: its coroutine, what it waits for, and in the end its result."""

    def __init__(self, session: Session, coroutine: Coroutine[Any, Any, Solution]) -> None:
        self.session, self.prompt, self.coroutine = session, session.prompt, coroutine
        self.requests: list[Request] | None = None
        self.result: Solution | NablaError | None = None

    def advance(self, values: list[Any] | None) -> None:
        """Runs the method up to its next await; its own arithmetic is timed as phase "method"."""
        self.requests = None
        begin = time.perf_counter()
        try:
            failure = next((v for v in values or () if isinstance(v, NablaError)), None)
            if failure is not None:
                self.requests = self.coroutine.throw(failure)
            else:
                self.requests = self.coroutine.send(values)
        except StopIteration as stop:
            self.result = stop.value
            if self.result is None:  # would look like a problem that is still alive
                self.result = ComponentError("The method returned no solution", got=self.prompt.id)
        except NablaError as error:
            self.result = error
        except Exception as error:
            self.result = ComponentError.of(error, f"Solving problem {self.prompt.id!r}")
        finally:
            self.session.meter.add("method", Usage(seconds=time.perf_counter() - begin))
            if isinstance(self.result, Solution):
                self.result = replace(self.result, cost=self.session.cost)
            elif isinstance(self.result, NablaError):
                self.result.cost = self.session.cost
