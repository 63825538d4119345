"""What one problem's method sees of the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from nabla.core.costs import Account, Cost, CostMeter
from nabla.core.errors import require_together
from nabla.core.prompt import Prompt
from nabla.core.random import derive_key, generator
from nabla.core.sampling import Sampling
from nabla.core.solution import Checkpoint
from nabla.core.trajectory import Score, Trajectory
from nabla.engine.completion import Text, readings, with_scores, with_states
from nabla.engine.edits import joined, replaced, trajectory_from, trajectory_of
from nabla.engine.gradient.values import TermGradient, TrajectoryGradient
from nabla.engine.initial_rows import InitialRows, RowCache, RowsWanted
from nabla.engine.judgements import Judgements, with_values
from nabla.engine.memory import Memory
from nabla.engine.progress import Progress
from nabla.engine.requests import JointRequest, RolloutRequest, Wait
from nabla.engine.workspace import Workspace
from nabla.objectives.base import Objective, require_trajectory_terms, trajectory_terms
from nabla.rewards.base import SoftTokens, require_reward
from nabla.rollouts.base import Continuation, Opening
from nabla.rollouts.boundaries.base import Boundary
from nabla.schedulers.base import Step


class Session:
    """What one problem's method sees of the engine. Awaits return when the batch has run."""

    def __init__(self, workspace: Workspace, prompt: Prompt) -> None:
        self.workspace = workspace
        self.vocabulary = workspace.vocabulary
        self.prompt = prompt
        self.meter = CostMeter()
        self.events = workspace.events
        self.prompt_ids = self.vocabulary.encode(prompt)
        self.progress = Progress(workspace.budgets, self.meter)
        self.memory = Memory(self.prompt_ids, self.meter, workspace.kept_gradients)
        self.rows = RowCache()
        #: What the method minimises, for selectors that look at its gradient; None if it minimises nothing.
        self.objective: Objective | None = None
        #: Responses and continuations asked for so far.
        self.written = 0
        self._encoded = {prompt: self.prompt_ids}
        self._scores: dict[Text, Score] = {}
        self._judged = Judgements()
        self._requests = 0

    # -- randomness ------------------------------------------------------------------------------

    def generator(self, *labels: object) -> torch.Generator:
        """A generator for (run seed, problem, labels): the same whatever else runs."""
        return generator(self.workspace.seed, self.prompt.source, "method", *labels)

    @property
    def requests(self) -> int:
        """Number of rollouts asked for so far."""
        return self._requests

    def _next_key(self) -> int:
        self._requests += 1
        return derive_key(self.workspace.seed, self.prompt.source, "request", self._requests)

    def account(self, phase: str) -> Account:
        """Who pays for a request of a phase."""
        return Account(self.prompt.id, self.meter, phase)

    # -- the language model writes ---------------------------------------------------------------

    async def rollout(
        self, sampling: Sampling, n: int = 1, *,
        prompt: Prompt | None = None, until: Boundary | None = None, phase: str = "rollout",
    ) -> list[Trajectory]:
        """``n`` responses, in one batch.

        Args:
            sampling: how tokens are drawn.
            n: number of responses.
            prompt: another than the problem's (a critique of an answer, say). Raises PromptError.
            until: stop each response at the end of its first step.
            phase: who pays.
        """
        self.written += require_together(n)
        start = (prompt or self.prompt, torch.empty(0, dtype=torch.long), sampling, until)
        trajectories = await self._write([start] * n, phase)
        for trajectory in trajectories:
            self.events.on_rollout(self.prompt, trajectory)
        return trajectories

    async def extend(
        self, trajectories: Sequence[Trajectory], *,
        until: Boundary | None = None, sampling: Sampling | None = None, phase: str = "rollout",
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
        return await self._extend(trajectories, [until] * len(trajectories), sampling, phase)

    async def _extend(
        self, texts: Sequence[Trajectory], until: Sequence[Boundary | None], how: Sampling | None, phase: str
    ) -> list[Trajectory]:
        self.written += len(texts)
        grown = list(texts)
        going = [i for i, t in enumerate(texts) if not (self.ended(t) or self._full(t, how))]
        starts = [(texts[i].prompt, texts[i].tokens, how or texts[i].sampling, until[i]) for i in going]
        for i, tail in zip(going, await self._write(starts, phase), strict=True):
            grown[i] = joined(grown[i], tail)
            self.events.on_rollout(self.prompt, grown[i])
        return grown

    async def _write(
        self, starts: Sequence[tuple[Prompt, Tensor, Sampling, Boundary | None]], phase: str
    ) -> list[Trajectory]:
        """What comes after each (prompt, tokens written so far), all in one batch."""
        accounts = self.account(phase).branches(len(starts))
        openings = [
            Opening(self._ids(prompt), tokens, sampling, self._next_key(), account, until)
            for (prompt, tokens, sampling, until), account in zip(starts, accounts, strict=True)
        ]
        requests = [RolloutRequest(opening.account, opening) for opening in openings]
        found: list[Continuation] = await Wait(requests) if requests else []
        prompts = [prompt for prompt, *_ in starts]
        return [trajectory_of(*written) for written in zip(found, openings, prompts, strict=True)]

    def ended(self, trajectory: Trajectory) -> bool:
        """Whether a response is at its end-of-sequence token or at its length limit."""
        return trajectory.finished or self._full(trajectory, trajectory.sampling)

    def _full(self, trajectory: Trajectory, sampling: Sampling | None) -> bool:
        """Whether a response has all the tokens that a setting allows."""
        ids = self._ids(trajectory.prompt)
        limit = None if sampling is None else self.vocabulary.room(len(ids), sampling.max_new_tokens)
        return limit is not None and len(trajectory) >= limit

    async def read(
        self,
        texts: Sequence[Int[Tensor, " length"]],
        sampling: Sampling,
        *, committed: int = 0, phase: str = "gradient", keep_graph: bool = False,
    ) -> list[Trajectory]:
        """Trajectories of given responses to the problem, by one forward pass of the language model each.

        Their Gumbel keys are fresh: their tokens were not drawn from the language model.

        Args:
            texts: response ids, at least one each.
            sampling: what later continuations draw with.
            committed: leading tokens of each that are final.
            phase: who pays.
            keep_graph: as of :meth:`score`.
        """
        start = committed if keep_graph else None
        found = await readings(texts, self.prompt, self.prompt_ids, self.account(phase), start)
        return [trajectory_from(p, self.prompt, sampling, self._next_key(), committed) for p in found]

    def _ids(self, prompt: Prompt) -> Int[Tensor, " prompt"]:
        if prompt not in self._encoded:
            self._encoded[prompt] = self.vocabulary.encode(prompt)
        return self._encoded[prompt]

    async def fork(
        self, trajectory: Trajectory, edits: Sequence[tuple[int, int]], *,
        until: Boundary | None = None, phase: str = "rollout",
    ) -> list[Trajectory]:
        """For each (position, token): ``y_<position``, the token, and a fresh continuation; all in one batch.

        Nothing is written behind an end-of-sequence token or at the length limit. The new trajectories keep
        ``committed`` and are not scored yet. Arguments as of :meth:`extend`; a step changed in its middle
        ends where it would have. Raises ConfigError for a position outside the response or a committed one.
        """
        heads = [replaced(self.vocabulary, self.workspace.lm, trajectory, *edit) for edit in edits]
        own = self.vocabulary
        ends = [until.within(h.tokens.tolist(), own) if until and not self.ended(h) else None for h in heads]
        return await self._extend(heads, ends, None, phase)

    async def states(
        self, trajectories: Sequence[Trajectory], *, phase: str = "selection", keep_graph: bool = False
    ) -> list[Trajectory]:
        """The trajectories with the language model's states; one that has them stays as it is.
        A response that a server wrote is read by the local language model, one forward pass each
        (``keep_graph`` as of :meth:`score`). Raises ConfigError where there is none.
        """
        return await with_states(trajectories, self._ids, self.account(phase), keep_graph)

    # -- the reward model judges -----------------------------------------------------------------

    async def score(
        self, trajectories: Sequence[Trajectory], *, keep_graph: bool = False
    ) -> list[Trajectory]:
        """The trajectories with their scores; one that has a score is never scored again.

        A text has one score per problem, the first: sums run in another order in another batch, and in half
        precision the same text would beat itself.

        ``keep_graph`` says that gradients at these texts, from their first uncommitted positions on, may be
        asked for: with the engine's ``keep_graph`` the pass keeps its graph, until :meth:`drop_graphs`.
        """
        reward, account = self.workspace.reward, self.account("reward")
        scored = await with_scores(trajectories, self._scores, reward, account, keep_graph)
        return self._told([t.with_score(self._judged.agreed(t, reward, account)) for t in scored])

    def _told(self, judged: list[Trajectory]) -> list[Trajectory]:
        for trajectory in judged:
            self.events.on_score(self.prompt, trajectory)
        return judged

    def drop_graphs(self, but: Sequence[Trajectory] = ()) -> None:
        """No gradients will be asked for any more, but at these texts."""
        self.workspace.graphs.drop(self.prompt.id, [(t.prompt, t.tokens) for t in but])

    async def judge(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        """The trajectories, finished or not, with rewards and the values (``steps``) at the tokens ``ends``;
        an open one's reward is its prefix's. What begins alike is judged once."""
        known = self._judged, self._scores, require_reward(self.workspace.reward, "Values are asked for")
        return self._told(await with_values(trajectories, *known, self.ended, self.account("reward")))

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
        own = tokens is None and soft is None
        (trajectory,) = await self.states([trajectory], phase=phase, keep_graph=own)
        where: dict[str, Any] = {"start": start, "tokens": tokens, "soft": soft}
        plan = self.memory.plan_gradient(trajectory, objective, self.account(phase), **where)
        if isinstance(plan, TrajectoryGradient):
            return plan
        (found,) = await Wait([plan])
        return self.memory.keep_gradient(plan, found)

    async def values(
        self, trajectory: Trajectory, objective: Objective, texts: Sequence[Int[Tensor, " length"]], *,
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
        (trajectory,) = await self.states([trajectory], phase=phase)
        plan = self.memory.plan_values(trajectory, objective, texts, self.account(phase))
        found: list[dict[str, float]] = await Wait(plan.requests) if plan.requests else []
        return self.memory.keep_values(plan, found)

    async def jointly(self, function: Callable[[Sequence[Any]], Sequence[Any]], task: Any) -> Any:
        """``function``'s result for ``task``: it is called once with the tasks of all problems that wait for
        it, and returns one result (or NablaError) per task. Its own time is counted as phase "method".

        If it fails with several tasks (or for want of memory) it is called again: it must not change them,
        and draws from generators that it makes or copies itself."""
        remembered = self.memory.checkpoint, self.rows.checkpoint
        (found,) = await Wait([JointRequest(self.account("method"), function, task, remembered)])
        return found

    def gradient_rows(
        self,
        gradient: TrajectoryGradient,
        part: TermGradient,
        reference: InitialRows,
        phase: str = "gradient",
    ) -> Float[Tensor, "rows k"]:
        """``∂/∂y`` of one term (or a weighted total) over the reference's support."""
        return self.workspace.gradients.rows(
            gradient, part, reference.positions, reference.candidates, self.account(phase)
        )

    async def gradient_norms(
        self, trajectory: Trajectory, objective: Objective | None = None
    ) -> tuple[Float[Tensor, " length"], Float[Tensor, " length"]]:
        """``||∂L/∂y_i||`` per position of the response, plain and centred; NaN at committed ones.

        Args:
            trajectory: the current response.
            objective: the method's own by default.

        Raises ConfigError where there is no objective, or none of its terms needs the models.
        """
        objective = require_trajectory_terms(objective or self.objective, "Gradient norms need an objective")
        gradient = await self.gradient(trajectory, objective, phase="selection")
        total = gradient.total(trajectory_terms(objective), Step())
        found = self.workspace.gradients.norms(gradient, total, self.account("selection"))
        before = (gradient.start, 0)
        plain, centred = (pad(norms.cpu(), before, value=float("nan")) for norms in found)
        self.events.on_norms(self.prompt, trajectory, plain, centred)
        return plain, centred

    def reference(
        self,
        trajectory: Trajectory,
        positions: slice,
        support: int | None = None,
        ahead: Sequence[int] = (),
    ) -> InitialRows:
        """Initial logits of rows, from the states the rollout kept: no pass through the model.

        Args:
            trajectory: the current response.
            positions: rows, contiguous.
            support: most likely candidates kept per row (the row's own token always is); None: all.
            ahead: positions that will probably be asked for next.
        """
        (found,) = self.workspace.references([self.rows_wanted(trajectory, positions, support, ahead)])
        return found

    def rows_wanted(
        self, trajectory: Trajectory, positions: slice, support: int | None, ahead: Sequence[int] = ()
    ) -> RowsWanted:
        """The request behind :meth:`reference`."""
        return RowsWanted(trajectory, positions, support, ahead, self.account("gradient"), self.rows)

    # -- the answer ------------------------------------------------------------------------------

    def decode(self, tokens: Int[Tensor, " n"]) -> str:
        """Text of response ids, exactly as they continue the prompt."""
        return self.vocabulary.response(tokens)

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
        return self.progress.proceed(wanted)

    @property
    def budgeted(self) -> bool:
        """Whether there are budgets."""
        return self.progress.budgeted

    @property
    def judged(self) -> bool:
        """Whether there is a reward."""
        return self.workspace.reward is not None

    @property
    def spent(self) -> bool:
        """Whether a round should end now: an answer is held, and no later one counts at any budget."""
        return self.progress.spent

    def report(self, trajectory: Trajectory) -> None:
        """Hands in the answer so far: what counts if the budget ends here."""
        self.progress.report(trajectory, self.decode)

    @property
    def checkpoints(self) -> Sequence[Checkpoint]:
        """The answers handed in so far."""
        return self.progress.checkpoints
