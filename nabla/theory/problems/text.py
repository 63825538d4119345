"""A sequence space small enough to enumerate, with a tiny language model and reward model in float64.

Everything here goes through transformers' own forward passes of whole texts (one dense L×V matrix where a
gradient is wanted): no cache, no rows on demand, nothing of :mod:`nabla.engine.gradient` or
:mod:`nabla.rewards`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from nabla.core.errors import ConfigError, NablaError
from nabla.core.prompt import Prompt
from nabla.core.trajectory import Trajectory
from nabla.engine.engine import Engine
from nabla.engine.session import Session
from nabla.models.causal_lm import CausalLM
from nabla.rewards.transformer import TransformerReward
from nabla.testing.tiny import char_tokenizer, tiny_lm, tiny_reward, tiny_trajectory


class SequenceSpace:
    """All responses to a prompt of at most ``length`` tokens, with ``log π``, ``r`` and the target.

    A response ends with the end-of-sequence token or at the length limit.

    Args:
        length: limit, tokens.
        weight: λ.
        characters: of the vocabulary, beside four special tokens.
        seed: of the models.
        largest: number of responses above which enumeration is refused.
    """

    def __init__(
        self,
        length: int = 3,
        weight: float = 0.5,
        characters: str = "ab",
        seed: int = 0,
        largest: int = 20_000,
    ) -> None:
        tokenizer = char_tokenizer(characters)
        size = len(tokenizer.get_vocab())
        if (size - 1) ** (length - 1) * size > largest:
            raise ConfigError("Too many responses to enumerate", got=(length, size), fix="Shorten them.")
        self.lm: CausalLM = tiny_lm(tokenizer, seed=seed)
        self.rm: TransformerReward = tiny_reward(tokenizer, seed=seed + 7).bind(self.lm.vocabulary)
        self.length, self.weight, self.vocabulary = length, weight, size
        self.prompt = Prompt.of("ab")
        self.prompt_ids = self.lm.encode(self.prompt)
        self.eos = self.lm.eos_ids[0]
        self.responses = self._enumerate()
        self.index = {tuple(y.tolist()): i for i, y in enumerate(self.responses)}
        with torch.no_grad():
            dense = [self.one_hot(y) for y in self.responses]
            self.log_pi = torch.stack([(y * self.log_rows(y)).sum() for y in dense])
            self.reward = torch.stack([self.dense_reward(y) for y in dense])
        self.target = torch.softmax(self.log_pi + weight * self.reward, 0)

    def _enumerate(self) -> list[Int[Tensor, " length"]]:
        found: list[list[int]] = []
        open_ends: list[list[int]] = [[]]
        for position in range(self.length):
            grown = [[*head, v] for head in open_ends for v in range(self.vocabulary)]
            last = position + 1 == self.length
            found += [y for y in grown if last or y[-1] == self.eos]
            open_ends = [y for y in grown if y[-1] != self.eos]
        return [torch.tensor(y) for y in found]

    def __len__(self) -> int:
        return len(self.responses)

    def one_hot(self, tokens: Int[Tensor, " length"]) -> Float[Tensor, "length vocab"]:
        """The response as a dense matrix."""
        return one_hot(tokens, self.vocabulary).double()

    def log_rows(self, y: Float[Tensor, "length vocab"]) -> Float[Tensor, "length vocab"]:
        """``log π(·|y_<i, x)`` for relaxed rows."""
        table = self.lm.model.get_input_embeddings().weight.detach()
        embedded = torch.cat([table[self.prompt_ids], y @ table])[None]
        logits = self.lm.model(inputs_embeds=embedded).logits[0]
        found: Tensor = logits[len(self.prompt_ids) - 1 : -1].log_softmax(-1)
        return found

    def dense_reward(self, y: Float[Tensor, "length vocab"]) -> Float[Tensor, ""]:
        """``r`` of relaxed rows; a final end-of-sequence token is the one the template writes."""
        table = self.rm.model.get_input_embeddings().weight.detach()
        before = torch.cat([self.prompt_ids[:-1], self.prompt_ids[-1:]])
        parts = [table[before], y @ table]
        if int(y[-1].argmax()) != self.eos:
            parts.append(table[[self.eos]])
        scores: Tensor = self.rm.model(inputs_embeds=torch.cat(parts)[None]).logits[0, 0]
        return scores

    def loss(self, y: Float[Tensor, "length vocab"]) -> Float[Tensor, ""]:
        """``L(y) = -λ r(y) - Σ_i y_iᵀ log π(·|y_<i, x)`` (Eq. 2), with the full graph."""
        return -self.weight * self.dense_reward(y) - (y * self.log_rows(y)).sum()

    def trajectory(self, tokens: Int[Tensor, " length"], committed: int = 0) -> Trajectory:
        """A response as a rollout returns it."""
        return tiny_trajectory(self.lm, self.prompt, tokens, committed=committed, limit=self.length)

    def engine(self, **arguments: Any) -> Engine:
        """nabla's engine over the two models."""
        return Engine(self.lm, self.rm, **arguments)


def ask(engine: Engine, prompt: Prompt, method: Callable[[Session], Coroutine[Any, Any, Any]]) -> Any:
    """Runs ``async method(session)`` for one prompt and returns its result. Raises its NablaError."""
    return ask_all(engine, [prompt], method)[0]


def ask_all(
    engine: Engine, prompts: Sequence[Prompt], method: Callable[[Session], Coroutine[Any, Any, Any]]
) -> list[Any]:
    """The same for several prompts together, in their order."""

    async def wrapped(session: Session) -> Any:
        return _Boxed(await method(session))

    found: dict[str, Any] = {}
    for prompt, value in engine.run(wrapped, prompts):
        if isinstance(value, NablaError):
            raise value
        found[prompt.id] = value.value  # type: ignore[attr-defined]
    return [found[prompt.id] for prompt in prompts]


@dataclass(frozen=True, eq=False)
class _Boxed:
    """Any result, so that the engine does not take it for an error."""

    value: Any
