"""A Markov chain over texts by any move that has densities (Hastings, 1970; SPEC section 15)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from nabla.acceptance.base import Densities
from nabla.acceptance.metropolis import MetropolisHastings
from nabla.core.errors import ConfigError, require_one_of, require_positive
from nabla.core.registry import construct
from nabla.core.sampling import Sampling
from nabla.core.solution import Revision, Solution
from nabla.core.trajectory import Trajectory
from nabla.methods.base import Method, methods, revision, tell
from nabla.methods.pools import better
from nabla.models.causal_lm import require_lm
from nabla.moves.base import Law, Move, moves
from nabla.objectives.base import Objective, objectives, trajectory_terms
from nabla.rewards.base import require_differentiable, require_reward, require_values

if TYPE_CHECKING:
    from nabla.engine.engine import Engine
    from nabla.engine.session import Session

#: Steps in a row that run no model after which a round ends.
FREE = 64


@methods.register("metropolis-chain")
class MetropolisChain(Method):
    """A pair of a position and a token is drawn from a law over all of them, with replacement, and the text
    goes on from there by the sampler π; it is accepted exactly, so that ``π e^{r/β}`` stays invariant.

    The ratio is ``e^{(r' - r)/β} · π(v')/π(v) · q(l, v | y') / q(l, v' | y)``, v being the old token of
    position l and v' the new one: the suffixes, drawn from π, cancel. With the move ``first-order`` at
    temperature 2 and the log target as objective this is the locally balanced proposal (arXiv 1711.07424),
    which pays a gradient at every text that is offered.

    Args:
        move: the law; of a text alone, so that the way back has a density.
        beta: β, in the reward's unit, > 0.
        sampling: π, at a positive temperature.
        objective: of moves by first-order gains.
        steps: of the chain, without a budget.
        answer: the chain's ``best`` text by reward, or its ``last`` one, which is the sample.

    Raises ConfigError for a move without densities.
    """

    def __init__(
        self,
        move: Move | str | dict[str, Any] = "policy",
        beta: float = 1.0,
        sampling: Sampling | dict[str, Any] | None = None,
        objective: Objective | str | dict[str, Any] | None = None,
        steps: int = 15,
        answer: Literal["best", "last"] = "best",
    ) -> None:
        require_positive(steps=steps)
        require_one_of(answer, ("best", "last"), "Unknown answer", "Answers")
        self.move, self.sampling = moves.build(move), construct(Sampling, sampling)
        self.acceptance = MetropolisHastings(beta)
        self.objective = None if objective is None else objectives.build(objective)
        self.beta, self.steps, self.answer = self.acceptance.temperature, steps, answer
        if not self.move.has_densities or self.sampling.temperature == 0:
            raise ConfigError(
                "An exact chain needs the densities of its proposals, and these have none",
                got=f"move {moves.name_of(self.move)!r}, temperature {self.sampling.temperature}",
                fix="Choose a move that is a function of the text and a positive temperature, or the method "
                "'pairs' with acceptance 'metropolis'.",
            )
        if self.move.needs_gradient and self.objective is None:
            raise ConfigError(
                "The move looks at a gradient, and there is no objective", fix="Pass an objective."
            )

    @property
    def keeps_best(self) -> bool:
        return self.answer == "best"

    def check(self, engine: Engine) -> None:
        require_lm(engine.lm, "Pairs are drawn from the language model's rows")
        require_reward(engine.reward, "The chain weighs texts by reward")
        if self.move.needs_values:
            require_values(engine.reward, "The move weighs positions by values")
        terms = () if self.objective is None else trajectory_terms(self.objective)
        if any(term.objective.needs_reward for term in terms):
            what, fix = "The move's objective has a reward term", "choose another move"
            require_differentiable(engine.reward, what, fix)

    async def solve(self, session: Session) -> Solution:
        session.objective = self.objective
        (current,) = await self._score(session, await session.rollout(self.sampling))
        held, steps, revisions = current, 0, list[Revision]()
        session.report(current)
        while session.proceed(steps < self.steps):
            calls = session.cost.total.calls
            for _ in range(FREE if session.budgeted else 1):  # a changed text may end at once
                current = await self.step(session, current, steps, revisions)
                held, steps = better(held, current), steps + 1
                if session.cost.total.calls > calls:
                    break
            session.report(held if self.answer == "best" else current)
        chosen = held if self.answer == "best" else current
        return self.solution(
            session, chosen.commit(len(chosen)), revisions=revisions, candidates=steps + 1
        )

    async def step(
        self, session: Session, current: Trajectory, number: int, revisions: list[Revision]
    ) -> Trajectory:
        """One step of the chain from a scored text; what was offered is added to the revisions."""
        generator = session.generator("metropolis-chain", number)
        law = await self.move.law(current, session)
        pair = law.draw(generator)
        if pair is None:  # no pair may be drawn here: the chain stays
            return current
        session.events.on_proposal(session.prompt, current, *pair)
        (new,) = await self._score(session, await session.fork(current, [pair]))
        densities = await self._densities(session, law, current, new, pair)
        accepted = self.acceptance.accept(current, new, generator, densities)
        tell(session, current, new, pair[0], accepted)
        revisions.append(revision(session, current, new, pair, accepted))
        return new if accepted else current

    async def _score(self, session: Session, texts: list[Trajectory]) -> list[Trajectory]:
        """With values where the move reads them: the same pass gives both."""
        return await (session.judge(texts) if self.move.needs_values else session.score(texts))

    async def _densities(
        self, session: Session, law: Law, current: Trajectory, new: Trajectory, pair: tuple[int, int]
    ) -> Densities:
        """Of the pair at the current text and of the way back at the new one; both texts share the row."""
        position, token = pair
        old = int(current.tokens[position])
        (current,) = await session.states([current])
        row = session.reference(current, slice(position, position + 1)).logits[0]
        own = self.sampling.filter(row).log_softmax(-1)
        back = await self.move.law(new, session)
        forward, backward = law.log_density(position, token), back.log_density(position, old)
        return Densities(forward, backward, float(own[token] - own[old]))
