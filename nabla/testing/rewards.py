"""Laws of rewards (SPEC sections 1 and 2)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from nabla.core.costs import Account, CostMeter
from nabla.core.errors import ConfigError
from nabla.core.prompt import Prompt
from nabla.core.trajectory import Score
from nabla.models.causal_lm import CausalLM
from nabla.models.runner import Runner
from nabla.rewards.base import (
    Reading,
    RelaxedResponse,
    RelaxedReward,
    Response,
    Reward,
    SoftTokens,
    rewards,
)
from nabla.testing.inputs import INF, make_logits, seeded
from nabla.testing.laws import MAX_EXAMPLES, Kit, Violation, require, require_close, untouched_global_noise
from nabla.testing.optional import st
from nabla.testing.strategies import seeds, tokens
from nabla.testing.tiny import END, PAD, char_tokenizer, tiny_lm

_PROMPT = Prompt.of("ab")


@dataclass(frozen=True, eq=False)
class RewardBench:
    """A reward bound to a language model."""

    reward: Reward
    lm: CausalLM

    @classmethod
    def of(cls, reward: Reward, lm: CausalLM | None = None) -> RewardBench:
        if lm is None:
            tokenizer: Any = getattr(reward, "tokenizer", None)
            known = {} if tokenizer is None else tokenizer.get_vocab()
            shared = PAD in known and END in known
            lm = tiny_lm(tokenizer if shared else char_tokenizer("abcd"))
        reward = reward.written_by(lm).bind(lm.vocabulary)
        return cls(reward, lm)

    def text(self, draws: list[int]) -> Tensor:
        """Ids of candidates; none of them ends the answer."""
        usable = [i for i in self.lm.candidates.tolist() if i not in self.lm.eos_ids]
        special = set(getattr(self.lm.tokenizer, "all_special_ids", ()))
        usable = [i for i in usable if i not in special] or usable
        return torch.tensor([usable[d % len(usable)] for d in draws])

    def response(self, draws: list[int]) -> Response:
        return Response(_PROMPT, self.text(draws), Account("bench", CostMeter(), "reward"))

    def score(self, texts: list[list[int]]) -> list[Any]:
        found: Any = self.reward.score([self.response(t) for t in texts], Runner())
        count = len(found) if isinstance(found, list | tuple) else None
        require(count == len(texts), f"{len(texts)} responses gave {found!r}"[:200])
        wrong = [s for s in found if not isinstance(s, Score)]
        require(not wrong, f"score gave {wrong[:1]!r}, which is no nabla.core.trajectory.Score"[:200])
        return [s.value for s in found]

    def values(
        self, texts: list[list[int]], known: int = 0, runner: Runner | None = None
    ) -> list[list[float]]:
        """Of all texts, from ``known`` on."""
        readings = [Reading(self.response(text), min(known, len(text))) for text in texts]
        found: Any = self.reward.values(readings, runner or Runner())
        count = len(found) if isinstance(found, list | tuple) else None
        require(count == len(texts), f"values of {len(texts)} texts: {found!r}"[:200])
        for reading, row in zip(readings, found, strict=True):
            wanted = len(reading.response.tokens) - reading.known
            asked = f"{wanted} tokens behind {reading.known} known ones"
            require(len(row) == wanted, f"{asked} have {len(row)} values")
        return found  # type: ignore[no-any-return]

    def relaxed(self, draws: list[int], start: int = 0, y: Tensor | None = None) -> RelaxedReward:
        soft = None if y is None else SoftTokens(start, None, y)
        found = self.reward.relaxed([RelaxedResponse(self.response(draws), start, soft)], Runner())
        require(len(found) == 1, f"one relaxed response gave {len(found)} rewards")
        return found[0]

    @property
    def tolerance(self) -> float:
        """Relative: what the dtype of the reward's models allows; single precision where it names none."""
        bodies = self.reward.bodies()
        exact = all(body.dtype == torch.float64 for body in bodies)
        return 1e-9 if exact and (bodies or not self.reward.differentiable) else 1e-4


kit: Kit[Reward] = Kit(rewards, "a reward", "check_reward", prepare=RewardBench.of)

_texts = tokens(20, max_length=6)
_valued: dict[str, Any] = {"applies": lambda reward: reward.has_values, "examples": 0.5}
_differentiable: dict[str, Any] = {"applies": lambda reward: reward.differentiable, "examples": 0.3}


def check_reward(
    reward: object,
    lm: CausalLM | None = None,
    *,
    laws: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    max_examples: int = MAX_EXAMPLES,
    seed: int = 0,
) -> None:
    """Checks every law of rewards.

    Args:
        reward: an instance, or a class that needs no arguments; it is bound to the language model.
        lm: the language model whose tokens it scores; None: a tiny one that writes with the reward's own
            tokenizer if that is a :func:`~nabla.testing.char_tokenizer`, or else "a", "b", "c" and "d".
        laws: these and the rest as in :func:`nabla.testing.check_estimator`.

    Raises ContractError at the first law that is broken.
    """
    kit.check(
        reward,
        laws=laws,
        skip=skip,
        max_examples=max_examples,
        seed=seed,
        prepare=lambda component: RewardBench.of(component, lm),
    )


def _near(found: float, expected: float, what: str, tolerance: float) -> None:
    gap = abs(found - expected)
    require(gap <= tolerance * (1 + abs(expected)), f"{what}: {found!r} instead of {expected!r}")


@kit.law(texts=st.lists(_texts, min_size=1, max_size=3))
def a_score_is_a_finite_number(on: RewardBench, texts: list[list[int]]) -> None:
    """``score`` gives one finite float per response: NaN and infinity stop a run."""
    for text, value in zip(texts, on.score(texts), strict=True):
        require(isinstance(value, float | int), f"the score is {value!r}, a {type(value).__name__}")
        require(abs(value) < INF, f"the score of {text} is {value}")


@kit.law(texts=st.lists(_texts, min_size=1, max_size=3))
def steps_end_in_the_response(on: RewardBench, texts: list[list[int]]) -> None:
    """A score has as many steps as ends, and these are positions of the response (of the last token of each
    step), in order."""
    responses = [on.response(text) for text in texts]
    for response, score in zip(responses, on.reward.score(responses, Runner()), strict=True):
        steps, ends = score.steps, score.ends
        require(len(steps) == len(ends), f"{len(steps)} steps and {len(ends)} ends")
        inside = all(0 <= end < len(response.tokens) for end in ends)
        require(inside, f"ends {ends} of a response of {len(response.tokens)} tokens")
        require(list(ends) == sorted(set(ends)), f"ends {ends} do not ascend")


@kit.law(texts=st.lists(_texts, min_size=1, max_size=3))
def steps_imply_values(on: RewardBench, texts: list[list[int]]) -> None:
    """A reward whose scores have steps says ``has_values``: searches that read steps ask for that first."""
    responses = [on.response(text) for text in texts]
    stepped = any(score.steps for score in on.reward.score(responses, Runner()))
    require(on.reward.has_values or not stepped, "its scores have steps, but has_values is False")


@kit.law(texts=st.lists(_texts, min_size=1, max_size=3))
def scores_are_deterministic(on: RewardBench, texts: list[list[int]]) -> None:
    """Equal responses have equal scores, and torch's global generator is not used (SPEC section 9)."""
    with untouched_global_noise():
        first, second = on.score(texts), on.score(texts)
    require(first == second, f"the same responses scored {first} and then {second}")


@kit.law(texts=st.lists(_texts, min_size=2, max_size=4))
def other_responses_do_not_matter(on: RewardBench, texts: list[list[int]]) -> None:
    """A score is the same alone, in a batch and in any order of it."""
    together, backwards = on.score(texts), on.score(texts[::-1])[::-1]
    for text, value, other in zip(texts, together, backwards, strict=True):
        (alone,) = on.score([text])
        _near(value, alone, f"score of {text} in a batch against alone", max(on.tolerance, 1e-6))
        _near(other, alone, f"score of {text} in reverse order against alone", max(on.tolerance, 1e-6))


def _same(found: list[float], expected: list[float], what: str, tolerance: float) -> None:
    """Equal numbers, and none at the same tokens."""
    for place, (one, other) in enumerate(zip(found, expected, strict=True)):
        if math.isnan(one) or math.isnan(other):
            both = math.isnan(one) and math.isnan(other)
            require(both, f"{what}: {one!r} instead of {other!r} at token {place}")
        else:
            _near(one, other, f"{what}, at token {place}", max(tolerance, 1e-6))


@kit.law(text=_texts, known=st.integers(0, 6), **_valued)
def what_is_known_is_left_out(on: RewardBench, text: list[int], known: int) -> None:
    """``values`` says one number per token from ``known`` on, the same as without anything known, also where
    the text's beginning has been read by the same runner before."""
    known %= len(text) + 1
    (whole,) = on.values([text])
    runner = Runner()
    if known:
        on.values([text[:known]], runner=runner)
    (rest,) = on.values([text], known, runner)
    _same(rest, whole[known:], f"values of {text} behind {known} known tokens", on.tolerance)


@kit.law(text=_texts, **_valued)
def values_are_those_of_the_score(on: RewardBench, text: list[int]) -> None:
    """A score's steps are the values at their tokens, and what ``together`` makes of all values is the
    score."""
    (values,) = on.values([text])
    response = on.response(text)
    (score,) = on.reward.score([response], Runner())
    if score.steps:
        steps = score.by_token(len(text))
        _same(values, steps, f"values of {text} against the steps of its score", on.tolerance)
    total = on.reward.together(values, response)
    if total is not None:
        _near(total, score.value, f"the values of {text} together", max(on.tolerance, 1e-6))


@kit.law(texts=st.lists(_texts, min_size=2, max_size=3), **_valued)
def other_texts_do_not_matter_to_values(on: RewardBench, texts: list[list[int]]) -> None:
    """Values are the same alone, in a batch and in any order of it."""
    together, backwards = on.values(texts), on.values(texts[::-1])[::-1]
    for text, row, other in zip(texts, together, backwards, strict=True):
        (alone,) = on.values([text])
        _same(row, alone, f"values of {text} in a batch against alone", on.tolerance)
        _same(other, alone, f"values of {text} in reverse order against alone", on.tolerance)


@kit.law(
    text=_texts,
    end=st.integers(1, 5),
    applies=lambda reward: reward.has_values and reward.reads_every_token,
    examples=0.5,
)
def a_prefix_keeps_its_values(on: RewardBench, text: list[int], end: int) -> None:
    """Where each value is that of the prefix which ends at its token (``reads_every_token``), it is the same
    whatever follows."""
    end = 1 + end % len(text)
    (whole,), (begun,) = on.values([text]), on.values([text[:end]])
    _same(begun, whole[:end], f"values of the first {end} tokens of {text}", on.tolerance)


@kit.law(applies=lambda reward: not reward.differentiable)
def without_a_gradient_it_says_so(on: RewardBench) -> None:
    """A reward that is not differentiable raises a ConfigError when its gradient is asked for."""
    try:
        on.reward.relaxed([RelaxedResponse(on.response([0, 1]), 0)], Runner())
    except ConfigError:
        return
    except Exception as error:
        raise Violation(f"relaxed raised {error!r} instead of a ConfigError") from error
    raise Violation("differentiable is False, but relaxed works")


@kit.law(text=_texts, start=st.integers(0, 5), **_differentiable)
def the_value_at_one_hot_rows_is_the_score(on: RewardBench, text: list[int], start: int) -> None:
    """A relaxed response is worth its score where no row is relaxed and where the rows are one-hot."""
    start %= len(text)
    (score,) = on.score([text])
    y = one_hot(on.text(text)[start:], on.lm.head.usable).double()
    for what, rows in (("one-hot rows", y), ("no relaxed row", None)):
        _near(float(on.relaxed(text, start, rows).value.detach()), score, f"reward at {what}", on.tolerance)


@kit.law(text=_texts, start=st.integers(0, 5), seed=seeds, **_differentiable)
def the_gradient_is_the_slope(on: RewardBench, text: list[int], start: int, seed: int) -> None:
    """``∂r/∂y``, from the leaves and their channels, against differences in the relaxed rows."""
    if on.tolerance > 1e-6:
        return  # differences say nothing in single precision
    start %= len(text)
    shape = len(text) - start, on.lm.head.usable
    y = make_logits("normal", *shape, seed, torch.float64, False).softmax(-1)
    direction = torch.randn(shape, generator=seeded(seed + 1), dtype=torch.float64)
    found = on.relaxed(text, start, y)
    channels = on.reward.channels()
    require(len(channels) == len(found.leaves), f"{len(channels)} channels and {len(found.leaves)} leaves")
    gradients = torch.autograd.grad(found.value, found.leaves, allow_unused=True)
    slope = torch.zeros((), dtype=torch.float64)
    for channel, leaf, gradient in zip(channels, found.leaves, gradients, strict=True):
        require(len(leaf) == shape[0], f"a leaf has {len(leaf)} rows for {shape[0]} free positions")
        if gradient is not None:
            rows = channel.pull(gradient).rows(torch.arange(len(leaf)), None)
            slope = slope + (rows * direction).sum()
    size = 1e-6
    ahead, behind = (on.relaxed(text, start, y + s * size * direction).value.detach() for s in (1, -1))
    difference = (ahead - behind).double() / (2 * size)
    require_close(slope, difference, "slope by the gradient", rtol=1e-5, atol=1e-6)
