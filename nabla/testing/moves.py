"""Laws of moves (SPEC section 14)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from nabla.core.change_point import ChangePoint
from nabla.core.errors import ConfigError, NablaError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.engine.engine import Engine
from nabla.engine.session import Session
from nabla.moves.base import Law, Move, moves
from nabla.objectives.base import objectives
from nabla.testing.inputs import follows, seeded
from nabla.testing.laws import MAX_EXAMPLES, Kit, Violation, require, untouched_global_noise
from nabla.testing.optional import st
from nabla.testing.tiny import char_tokenizer, tiny_lm, tiny_process_reward

#: What the tiny language model may not write.
_FORBIDDEN = "d"
_DRAWS = 2000


@dataclass
class Lab:
    """A move and the tiny models that its laws are tried on."""

    move: Move
    tokenizer: Any = field(default_factory=lambda: char_tokenizer("abcd"))

    def __post_init__(self) -> None:
        self.forbidden = int(self.tokenizer.convert_tokens_to_ids(_FORBIDDEN))
        self.models = tiny_lm(self.tokenizer), tiny_process_reward(self.tokenizer)

    def at(
        self,
        text: str,
        committed: int,
        *,
        move: Move | None = None,
        bare: bool = False,
        objective: bool = True,
        twice: bool = False,
    ) -> tuple[Law, Trajectory]:
        """The law at a response to a prompt, and the response.

        Args:
            text: of the prompt.
            committed: leading tokens of the response that are final, at most all but one.
            move: another one.
            bare: without a reward.
            objective: the session has one, if there is a reward.
            twice: the law when it is asked for again, later in the session.
        """
        lm, reward = self.models
        engine = Engine(lm, None if bare else reward)
        assert engine.lm is not None
        engine.lm.head.block(torch.tensor([self.forbidden]))
        found: list[tuple[Law, Trajectory]] = []

        async def solve(session: Session) -> Solution:
            session.objective = objectives.build("reward") if objective and not bare else None
            (response,) = await session.rollout(Sampling(temperature=1.0, max_new_tokens=6))
            response = replace(response, committed=min(committed, len(response) - 1))
            found.append((await (move or self.move).law(response, session), response))
            if twice:
                await session.rollout(Sampling(temperature=1.0, max_new_tokens=3))
                found.append((await (move or self.move).law(response, session), response))
            return Solution(session.prompt, "", (), None, True, "law", session.cost)

        for _, outcome in engine.run(solve, [Prompt.of(text, id=text)]):
            if isinstance(outcome, NablaError):
                raise outcome
        return found[-1]


kit: Kit[Move] = Kit(moves, "a move", "check_move", Lab)

_texts = st.text("abc", min_size=1, max_size=6)
_committed = st.integers(0, 5)


def check_move(
    move: object,
    *,
    laws: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    max_examples: int = MAX_EXAMPLES,
    seed: int = 0,
) -> None:
    """Checks every law that a move declares (``needs_values``, ``needs_gradient``), on tiny models.

    Raises ContractError at the first law that is broken; the arguments are
    :func:`nabla.testing.check_estimator`'s.
    """
    kit.check(move, laws=laws, skip=skip, max_examples=max_examples, seed=seed)


def _pairs(law: Law) -> dict[tuple[int, int], float]:
    """(position, token) → log-density, of all pairs that may be drawn."""
    found = {}
    for row, column in (law.log_weights > -math.inf).nonzero().tolist():
        pair = law.first + row, int(law.candidates[row, column])
        found[pair] = law.log_density(*pair)
    return found


@kit.law(text=_texts, committed=_committed, examples=0.5)
def the_density_is_a_probability(lab: Lab, text: str, committed: int) -> None:
    """``log_density`` of all pairs that may be drawn adds up to one; of all others it is -inf."""
    law, response = lab.at(text, committed)
    pairs = _pairs(law)
    require(all(map(math.isfinite, pairs.values())), "a pair of finite weight has no finite density")
    total = sum(map(math.exp, pairs.values()))
    require(not pairs or abs(total - 1) < 1e-6, f"the densities add up to {total:.6g}")
    behind = law.log_density(len(response), int(response.tokens[0]))
    require(behind == -math.inf, f"behind the response a pair has the log-density {behind}")


@kit.law(text=_texts, committed=_committed, examples=0.2)
def draws_follow_the_density(lab: Lab, text: str, committed: int) -> None:
    """Frequencies of draws agree with ``log_density`` (chi-square)."""
    law, _ = lab.at(text, committed)
    pairs, source = _pairs(law), seeded(0)
    if not pairs:
        require(law.draw(source) is None, "it draws where nothing may be drawn")
        return
    places = {pair: i for i, pair in enumerate(pairs)}
    drawn = [law.draw(source) for _ in range(_DRAWS)]
    foreign = next((pair for pair in drawn if pair not in places), None)
    require(foreign is None, f"it draws {foreign}, whose density is zero")
    densities = torch.tensor([math.exp(log) for log in pairs.values()], dtype=torch.float64)
    counts = torch.tensor([places[pair] for pair in drawn if pair is not None])
    require(follows(counts, densities / densities.sum()), "draws do not follow the density")


@kit.law(text=_texts, committed=_committed, examples=0.5)
def nothing_is_drawn_that_changes_nothing(lab: Lab, text: str, committed: int) -> None:
    """A response's own token is no move, and a final position is not changed."""
    law, response = lab.at(text, committed)
    for position, token in _pairs(law):
        require(token != int(response.tokens[position]), f"the own token of position {position} may be drawn")
        require(position >= response.committed, f"position {position} is final and may be drawn")


@kit.law(text=_texts, committed=_committed, examples=0.5)
def forbidden_tokens_are_never_drawn(lab: Lab, text: str, committed: int) -> None:
    """A token of logit -inf has no density, whatever the weights are."""
    law, _ = lab.at(text, committed)
    wrong = [position for position, token in _pairs(law) if token == lab.forbidden]
    require(not wrong, f"a token that may not be written may be drawn at {wrong}")


@kit.law(text=_texts, committed=_committed, examples=0.3)
def nothing_comes_twice(lab: Lab, text: str, committed: int) -> None:
    """Drawn without replacement every pair of positive density comes once, and then none."""
    law, _ = lab.at(text, committed)
    pairs, source = _pairs(law), seeded(1)
    tried: set[tuple[int, int]] = set()
    for _ in pairs:
        pair = law.draw(source, tried=tried)
        if pair is None:  # too improbable beside the others for a float
            return
        require(pair not in tried, f"{pair} comes twice")
        tried.add(pair)
    left = law.draw(source, tried=tried)
    require(left is None, f"{left} comes behind all others")


@kit.law(text=_texts, committed=_committed, examples=0.4)
def equal_responses_have_equal_laws(lab: Lab, text: str, committed: int) -> None:
    """The law follows from the response and the session's generators; no global noise, no state."""
    with untouched_global_noise():
        first, _ = lab.at(text, committed)
        lab.at(text + "ab", 0)
        second, _ = lab.at(text, committed)
    same = first.first == second.first and torch.equal(first.log_weights, second.log_weights)
    require(same, "the same response had two laws")


@kit.law(text=_texts, committed=_committed, applies=lambda move: move.has_densities, examples=0.3)
def densities_are_of_the_response_alone(lab: Lab, text: str, committed: int) -> None:
    """With ``has_densities`` a response has the same law whenever it is asked for: a way back is as probable
    as the law says then. A move that draws noise for its law says that it has none."""
    first, _ = lab.at(text, committed)
    later, _ = lab.at(text, committed, twice=True)
    same = torch.allclose(first.log_weights, later.log_weights, rtol=1e-6, atol=1e-9)
    require(same, "later in the same session the response has another law, but has_densities is True")


@kit.law(text=_texts, applies=lambda move: not move.needs_values and not move.needs_gradient, examples=0.3)
def it_needs_values_as_declared(lab: Lab, text: str) -> None:
    """Without ``needs_values`` it works on a response that nobody has judged, without any reward."""
    try:
        lab.at(text, 0, bare=True)
    except NablaError as error:
        raise Violation(f"needs_values is False, but without a reward it fails: {error}") from error


@kit.law(text=_texts, examples=0.3)
def it_needs_an_objective_as_declared(lab: Lab, text: str) -> None:
    """Without ``needs_gradient`` it works where the method has no objective; with it that is a
    ConfigError."""
    try:
        lab.at(text, 0, objective=False)
    except ConfigError as error:
        if not lab.move.needs_gradient:
            raise Violation(f"needs_gradient is False, but without an objective: {error}") from error
    except NablaError as error:
        raise Violation(f"without an objective it raised {error!r} instead of a ConfigError") from error


@kit.law(text=_texts, examples=0.3)
def the_weights_of_a_gate_make_another_move(lab: Lab, text: str) -> None:
    """``with_change_point`` gives a move that needs what this one needs, and changes nothing in this one."""
    before, _ = lab.at(text, 0)
    found: Any = lab.move.with_change_point(ChangePoint(centre=1.0, scale=2.0, hazard=0.1, surprise=0.5))
    require(isinstance(found, Move), f"with_change_point returned {found!r}"[:200])
    needs = (found.needs_values, found.needs_gradient) == (lab.move.needs_values, lab.move.needs_gradient)
    require(needs, "the other move needs something else")
    lab.at(text, 0, move=found)
    after, _ = lab.at(text, 0)
    require(torch.equal(before.log_weights, after.log_weights), "the move itself has changed")
