"""Laws of rollouts: how the language model is run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from nabla.core.costs import Account, CostMeter, Usage
from nabla.core.errors import NablaError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.models.causal_lm import CausalLM
from nabla.models.runner import Runner
from nabla.rollouts.base import Continuation, Opening, Resources, Rollout, rollouts
from nabla.testing.inputs import at_once
from nabla.testing.laws import MAX_EXAMPLES, Kit, Violation, require, require_close, untouched_global_noise
from nabla.testing.optional import st
from nabla.testing.strategies import samplings, seeds
from nabla.testing.tiny import char_tokenizer, tiny_lm, tiny_trajectory

_PROMPTS = tuple(Prompt.of(text) for text in ("ab", "d", "cab"))


@dataclass(frozen=True, eq=False)
class RolloutBench:
    """A rollout, and the language model that it writes with (or whose vocabulary the server has)."""

    rollout: Rollout
    lm: CausalLM

    @classmethod
    def of(cls, rollout: Rollout, lm: CausalLM | None = None) -> RolloutBench:
        return cls(rollout, tiny_lm(char_tokenizer("abcd")) if lm is None else lm)

    def opening(self, sampling: Sampling, key: int, prompt: int = 0, begun: int = 0) -> Opening:
        """Of a problem of its own, some tokens already there."""
        usable = [i for i in self.lm.candidates.tolist() if i not in self.lm.eos_ids]
        special = set(self.lm.tokenizer.all_special_ids)
        usable = [i for i in usable if i not in special] or usable
        response = torch.tensor([usable[(key + i) % len(usable)] for i in range(begun)], dtype=torch.long)
        ids = self.lm.encode(_PROMPTS[prompt % len(_PROMPTS)])
        account = Account(f"problem {key}", CostMeter(), "rollout")
        return Opening(ids, response, sampling, key, account)

    def write(self, openings: Sequence[Opening]) -> list[Continuation]:
        """Raises the error of a row."""
        found: Any = asyncio.run(self._away(openings)) if self.rollout.remote else self._here(openings)
        require(
            isinstance(found, list) and len(found) == len(openings),
            f"{len(openings)} openings gave {found!r}"[:300],
        )
        for each in found:
            if isinstance(each, NablaError):
                raise each
            require(isinstance(each, Continuation), f"generate gave {each!r}, no Continuation"[:300])
        return list(found)

    def _here(self, openings: Sequence[Opening]) -> Any:
        return at_once(self.rollout.generate(openings, self._resources()))

    async def _away(self, openings: Sequence[Opening]) -> Any:
        async with self.rollout.connect() as connection:
            resources = replace(self._resources(), connection=connection)
            each = (self.rollout.generate([opening], resources) for opening in openings)
            return [found for part in await asyncio.gather(*each) for found in part]

    def _resources(self) -> Resources:
        return Resources(self.lm.vocabulary, Runner(), self.lm)


kit: Kit[Rollout] = Kit(rollouts, "a rollout", "check_rollout", prepare=RolloutBench.of)

_lengths = st.integers(1, 6)
#: (key, prompt, tokens already there) of each row.
_drawn = st.tuples(seeds, st.integers(0, 2), st.integers(0, 2))
_models: dict[str, Any] = {"examples": 0.3}
_local: dict[str, Any] = {"applies": lambda rollout: not rollout.remote, **_models}


def check_rollout(
    rollout: object,
    lm: CausalLM | None = None,
    *,
    laws: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    max_examples: int = MAX_EXAMPLES,
    seed: int = 0,
) -> None:
    """Checks every law of rollouts; a remote one is awaited on an event loop, behind its own ``connect``.

    Args:
        rollout: an instance, or a class that needs no arguments.
        lm: the language model that a local rollout writes with, and whose vocabulary a remote one's server
            has; None: a tiny one of "a", "b", "c" and "d".
        laws: these and the rest as in :func:`nabla.testing.check_estimator`.

    Raises ContractError at the first law that is broken.
    """
    kit.check(
        rollout,
        laws=laws,
        skip=skip,
        max_examples=max_examples,
        seed=seed,
        prepare=lambda component: RolloutBench.of(component, lm),
    )


@kit.law(rows=st.lists(_drawn, min_size=1, max_size=3), sampling=samplings, length=_lengths, **_models)
def what_is_written_is_a_continuation(
    on: RolloutBench, rows: list[tuple[int, int, int]], sampling: Sampling, length: int
) -> None:
    """One Continuation per opening, in order: at least one token and at most what the length limit of the
    whole response leaves, all of the vocabulary; an end-of-sequence token only as the last one, and then
    ``finished``; a log-probability for each token."""
    openings = [on.opening(replace(sampling, max_new_tokens=begun + length), key, prompt, begun)
                for key, prompt, begun in rows]  # fmt: skip
    vocabulary = on.lm.vocabulary
    for opening, found in zip(openings, on.write(openings), strict=True):
        tokens = found.tokens.tolist()
        limit = vocabulary.room(len(opening.prompt), opening.sampling.max_new_tokens) - len(opening.response)
        require(1 <= len(tokens) <= limit, f"{len(tokens)} tokens where 1 to {limit} have room")
        strange = [token for token in tokens if not 0 <= token < vocabulary.usable]
        require(not strange, f"token {strange[:1]} of {vocabulary.usable}")
        ends = [i for i, token in enumerate(tokens) if token in vocabulary.eos_ids]
        expected = [len(tokens) - 1] if found.finished else []
        require(ends == expected, f"ends of sequence at {ends} in {tokens}, finished is {found.finished}")
        shape = found.log_probs.shape
        require(shape == found.tokens.shape, f"log-probabilities {tuple(shape)} of {len(tokens)} tokens")
        require(not (found.log_probs > 1e-6).any(), f"log-probabilities {found.log_probs.tolist()}")


@kit.law(rows=st.lists(_drawn, min_size=2, max_size=4, unique_by=lambda row: row[0]), length=_lengths,
         **_models)  # fmt: skip
def a_row_is_the_same_alone_and_in_company(
    on: RolloutBench, rows: list[tuple[int, int, int]], length: int
) -> None:
    """A row's tokens and calls follow from its own opening: alone, in a batch and in any order of it. Nothing
    is drawn from torch's global generator (SPEC section 9)."""

    def opened() -> list[Opening]:
        return [on.opening(Sampling(1.0, max_new_tokens=begun + length), key, prompt, begun)
                for key, prompt, begun in rows]  # fmt: skip

    def facts(openings: list[Opening], found: list[Continuation]) -> list[Any]:
        spent = [opening.account.meter.snapshot().total for opening in openings]
        return [(c.tokens.tolist(), c.finished, u.calls) for c, u in zip(found, spent, strict=True)]

    with untouched_global_noise():
        together = opened()
        batch = facts(together, on.write(together))
        backwards = opened()[::-1]
        reverse = facts(backwards, on.write(backwards))[::-1]
        for row, expected, other in zip(opened(), batch, reverse, strict=True):
            (alone,) = facts([row], on.write([row]))
            require(alone == expected, f"(tokens, finished, calls) {alone} alone, {expected} in a batch")
            require(alone == other, f"(tokens, finished, calls) {alone} alone, {other} in another order")


@kit.law()
def the_key_decides(on: RolloutBench) -> None:
    """Sixteen keys do not all write the same at temperature 1, and equal keys do: best-of-N depends on it."""

    def written(keys: Sequence[int]) -> list[list[int]]:
        openings = [on.opening(Sampling(1.0, max_new_tokens=8), key) for key in keys]
        return [found.tokens.tolist() for found in on.write(openings)]

    texts = written(range(16))
    require(any(text != texts[0] for text in texts), f"all keys wrote {texts[0]}")
    again = written([3, 3])
    require(again == [texts[3]] * 2, f"key 3 wrote {texts[3]} and then {again}")


@kit.law(row=_drawn, length=_lengths, **_models)
def what_is_written_is_paid(on: RolloutBench, row: tuple[int, int, int], length: int) -> None:
    """The opening's account pays a call for each token that was written, and as many tokens (SPEC
    section 13)."""
    key, prompt, begun = row
    opening = on.opening(Sampling(1.0, max_new_tokens=begun + length), key, prompt, begun)
    (found,) = on.write([opening])
    spent: Usage = opening.account.meter.snapshot().total
    count = len(found.tokens)
    require(spent.calls >= count, f"{count} tokens were written and {spent.calls} calls are paid")
    require(spent.tokens >= count, f"{count} tokens were written and {spent.tokens} are paid")


@kit.law(row=_drawn, length=_lengths, **_local)
def it_writes_the_language_models_words(on: RolloutBench, row: tuple[int, int, int], length: int) -> None:
    """At temperature 0 each token is the model's likeliest; log-probabilities and states are those of one
    pass over the whole text."""
    key, prompt, begun = row
    opening = on.opening(Sampling(0.0, max_new_tokens=begun + length), key, prompt, begun)
    (found,) = on.write([opening])
    whole = torch.cat([opening.response, found.tokens])
    truth = tiny_trajectory(on.lm, _PROMPTS[prompt % len(_PROMPTS)], whole)
    tolerance = 1e-6 if on.lm.body.dtype == torch.float64 else 1e-3
    logits = on.lm.head.logits(truth.hidden[begun:])
    best = logits.amax(-1)
    own = logits.gather(-1, found.tokens[:, None].to(logits.device))[:, 0]
    require((own >= best - tolerance).all(), f"tokens {found.tokens.tolist()} are not the likeliest")
    known = ~found.log_probs.isnan()
    expected = truth.log_probs[begun:][known].double()
    require_close(found.log_probs[known].double(), expected, "log π", rtol=tolerance, atol=tolerance)
    if found.states is not None:
        entropy = truth.entropy[begun:].double()
        require_close(found.states.entropy.double(), entropy, "entropy", rtol=tolerance, atol=tolerance)


@kit.law(keys=st.lists(seeds, min_size=1, max_size=3, unique=True), **_local)
def rows_that_join_write_the_same(on: RolloutBench, keys: list[int]) -> None:
    """A ``writer``, where there is one, writes for each row what ``generate`` writes, whenever it came."""
    writer = on.rollout.writer(on._resources())
    if writer is None:
        return
    sampling = Sampling(1.0, max_new_tokens=5)
    expected = [found.tokens.tolist() for found in on.write([on.opening(sampling, key) for key in keys])]
    numbers: list[int] = []
    answers: dict[int, Any] = {}
    for key in keys:  # one joins after another
        numbers += writer.submit([on.opening(sampling, key)])
        answers |= writer.advance(1, len(keys))
    for _ in range(64):
        if not writer.busy:
            break
        answers |= writer.advance(64, len(keys))
    if writer.busy or set(answers) != set(numbers):
        raise Violation(f"after 64 calls of advance {len(answers)} of {len(numbers)} rows are written")
    found = [answers[number].tokens.tolist() for number in numbers]
    require(found == expected, f"{found} by the writer, {expected} by generate")


