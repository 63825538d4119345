"""The values that flow through a run: prompt → trajectory → solution. All are immutable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.errors import ConfigError, PromptError

if TYPE_CHECKING:
    from nabla.budget import Checkpoint
    from nabla.costs import Cost


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; ``role`` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


@dataclass(frozen=True)
class Prompt:
    """A problem to answer.

    Args:
        id: names the problem; randomness derives from it, so results do not depend on order.
        messages: the conversation so far, ending with the user's turn. A system message reaches the
            rollout, the gradient and the reward alike.
        metadata: anything the caller wants back with the solution.
    """

    id: str
    messages: tuple[Message, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not self.messages or not self.messages[-1].content.strip():
            raise PromptError(
                "The prompt is empty",
                got=[m.content for m in self.messages],
                fix="Pass a prompt with at least one character.",
            )
        if self.messages[-1].role == "assistant":
            raise PromptError(
                "A conversation to answer ends with the user's turn",
                got=[m.role for m in self.messages],
                fix="Drop the last assistant message.",
            )

    @classmethod
    def of(
        cls,
        prompt: str | Prompt | Sequence[Message] | Sequence[Mapping[str, str]],
        *,
        id: str = "0",
        system: str | None = None,
    ) -> Prompt:
        """From a text, a list of messages (dataclass or dict) or a Prompt (whose id stays).

        ``system`` is put before a conversation that has no system message.
        """
        if isinstance(prompt, Prompt):
            if system is None or any(m.role == "system" for m in prompt.messages):
                return prompt
            return replace(prompt, messages=(Message("system", system), *prompt.messages))
        if isinstance(prompt, str):
            messages = [Message("user", prompt)]
        elif isinstance(prompt, Sequence):
            messages = []
            for entry in prompt:
                if isinstance(entry, Mapping):
                    if not all(isinstance(entry.get(key), str) for key in ("role", "content")):
                        raise PromptError(
                            "A message needs 'role' and 'content', both texts", got=dict(entry)
                        )
                    entry = Message(entry["role"], entry["content"])
                if not isinstance(entry, Message):
                    raise PromptError("A conversation is a list of messages", got=entry)
                messages.append(entry)
        else:
            raise PromptError(
                "A prompt is a text, a list of messages or a nabla.Prompt", got=prompt
            )
        if system is not None and not any(m.role == "system" for m in messages):
            messages.insert(0, Message("system", system))
        return cls(id=id, messages=tuple(messages))

    @property
    def text(self) -> str:
        """The last user turn."""
        return self.messages[-1].content


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn from logits, in rollouts and proposals alike.

    Args:
        temperature: 0 means argmax (never 1).
        top_k: keep the k most likely tokens; 0 keeps all.
        top_p: keep the smallest set of tokens with at least this mass; 1 keeps all.
        max_new_tokens: length limit of a response, in tokens (>= 1).
    """

    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = 1024

    def __post_init__(self) -> None:
        if not self.temperature >= 0 or self.temperature == float("inf"):
            raise ConfigError("temperature must be >= 0 and finite", got=self.temperature)
        if self.top_k < 0:
            raise ConfigError("top_k must be >= 0 (0 keeps all tokens)", got=self.top_k)
        if not 0 < self.top_p <= 1:
            raise ConfigError("top_p must be in (0, 1] (1 keeps all tokens)", got=self.top_p)
        if self.max_new_tokens < 1:
            raise ConfigError(
                "max_new_tokens must be at least 1",
                got=self.max_new_tokens,
                fix="A response needs room for one token.",
            )

    def filter(self, logits: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch k"]:
        """Logits divided by the temperature, -inf outside top-k and top-p. Needs temperature > 0."""
        if self.temperature == 0:
            raise ConfigError("Temperature 0 has no distribution to filter", fix="Use draw: it is argmax.")
        # Differences first: a tiny temperature would overflow the quotient.
        scores = (logits - logits.amax(-1, keepdim=True)) / self.temperature
        if 0 < self.top_k < scores.shape[-1]:
            kth = scores.topk(self.top_k, dim=-1).values[..., -1:]
            scores = scores.masked_fill(scores < kth, float("-inf"))
        if self.top_p < 1:
            ordered, index = scores.sort(dim=-1, descending=True, stable=True)
            before = ordered.softmax(-1).cumsum(-1).roll(1, -1)
            before[..., 0] = 0  # the first token stays, whatever its mass
            drop = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, index, before >= self.top_p)
            scores = scores.masked_fill(drop, float("-inf"))
        return scores

    def draw(
        self, logits: Float[Tensor, "*batch k"], noise: Float[Tensor, "*batch k"] | None
    ) -> Int[Tensor, "*batch"]:
        """Indices drawn by the Gumbel-max rule, ``argmax(filter(z) + g)``; argmax at temperature 0."""
        if self.temperature == 0:
            return logits.argmax(-1)
        if noise is None:
            raise ConfigError("Drawing at a positive temperature needs Gumbel noise")
        return (self.filter(logits) + noise).argmax(-1)


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A response to a prompt, with what its rollout already knows. Immutable: accepting a proposal
    is choosing another trajectory.

    Args:
        prompt: the problem.
        tokens: ids of the response in the LM's vocabulary, end-of-sequence token included ``[L]``.
        finished: whether the last token is an end-of-sequence token.
        hidden: last hidden states, before the head, that predict each token ``[L, H]``.
        log_probs: ``log π(y_i | y_<i, x)`` at temperature 1, nats ``[L]``.
        entropy: entropy of ``π(. | y_<i, x)``, nats ``[L]``.
        top1: largest probability of ``π(. | y_<i, x)`` ``[L]``.
        noise_keys: key of the Gumbel field each token was drawn with ``[L]``.
        sampling: how the tokens were drawn.
        committed: number of leading tokens that are final.
        reward: the reward model's value, in its own logit unit; None until scored.
    """

    prompt: Prompt
    tokens: Int[Tensor, " length"]
    finished: bool
    hidden: Float[Tensor, "length hidden"]
    log_probs: Float[Tensor, " length"]
    entropy: Float[Tensor, " length"]
    top1: Float[Tensor, " length"]
    noise_keys: Int[Tensor, " length"]
    sampling: Sampling
    committed: int = 0
    reward: float | None = None

    def __len__(self) -> int:
        return int(self.tokens.shape[0])

    @property
    def complete(self) -> bool:
        """Every token is committed."""
        return self.committed >= len(self)

    @property
    def log_likelihood(self) -> float:
        """``log π(y | x)`` of the whole response, nats."""
        return float(self.log_probs.double().sum())

    def commit(self, count: int = 1) -> Trajectory:
        """The same text with ``count`` more tokens final."""
        return replace(self, committed=min(self.committed + count, len(self)))

    def with_reward(self, reward: float) -> Trajectory:
        """The same text with its reward."""
        return replace(self, reward=reward)

    def noise(self, position: int, tokens: Int[Tensor, " k"]) -> Float[Tensor, " k"]:
        """The Gumbel noise with which the token at ``position`` was drawn."""
        from nabla.random import gumbel

        where = torch.tensor([position])
        return gumbel(self.noise_keys[position : position + 1].cpu(), where, tokens.cpu())[0]


@dataclass(frozen=True)
class Revision:
    """One proposal of a run, accepted or not (for inspection and reports)."""

    position: int
    old_token: int
    new_token: int
    old_reward: float | None
    new_reward: float | None
    accepted: bool
    old_response: str
    new_response: str


@dataclass(frozen=True)
class Solution:
    """What a method returns for one prompt.

    Args:
        prompt: the problem.
        response: decoded text, special tokens removed.
        tokens: response ids, end-of-sequence token included.
        reward: of the response, if it was scored.
        finished: False where the length limit cut the response off.
        method: registered name of the method.
        cost: everything this problem cost (SPEC section 13).
        revisions: proposals in order.
        candidates: number of complete responses considered.
        checkpoints: answers on the way, each with the cost until then; the last is the response.
    """

    prompt: Prompt
    response: str
    tokens: tuple[int, ...]
    reward: float | None
    finished: bool
    method: str
    cost: Cost
    revisions: tuple[Revision, ...] = ()
    candidates: int = 1
    #: Positions of tokens in the final text that an accepted revision put there.
    revised_positions: tuple[int, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "id": self.prompt.id,
            "prompt": self.prompt.text,
            "response": self.response,
            "tokens": list(self.tokens),
            "reward": self.reward,
            "finished": self.finished,
            "method": self.method,
            "candidates": self.candidates,
            "accepted": sum(r.accepted for r in self.revisions),
            "rejected": sum(not r.accepted for r in self.revisions),
            "revisions": [vars(r) for r in self.revisions],
            "revised_positions": list(self.revised_positions),
            "cost": self.cost.to_dict(),
        }
