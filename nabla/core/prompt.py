"""Problems to answer: messages and prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nabla.core.errors import PromptError

if TYPE_CHECKING:
    pass


#: Who may speak in a conversation. A chat template would write any other name without a word.
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; ``role`` is one of ROLES."""

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
        noise: what randomness derives from in place of the id, for prompts that are merely numbered.
    """

    id: str
    messages: tuple[Message, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict, compare=False)
    noise: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str):
            raise PromptError("A prompt's id is a text", got=self.id, fix="Write it as one: str(id).")
        for message in self.messages:
            _require_text(message)
            if message.role not in ROLES:
                raise PromptError(
                    "A message's role is unknown", got=message.role, fix=f"Use {', '.join(ROLES)}."
                )
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
        id: str | None = None,
        system: str | None = None,
    ) -> Prompt:
        """From a text, a list of messages (dataclass or dict) or a Prompt (whose id stays).

        Without an ``id`` it follows from the conversation, so that other prompts draw other noise.
        ``system`` is put before a conversation that has no system message.
        """
        if system is not None and not isinstance(system, str):
            raise PromptError("A system prompt is a text", got=system)
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
                _require_text(entry)
                messages.append(entry)
        else:
            raise PromptError(
                "A prompt is a text, a list of messages or a nabla.Prompt", got=prompt
            )
        if system is not None and not any(m.role == "system" for m in messages):
            messages.insert(0, Message("system", system))
        return cls(id=text_id(messages) if id is None else id, messages=tuple(messages))

    @property
    def source(self) -> str:
        """The name that randomness derives from."""
        return self.id if self.noise is None else self.noise

    @property
    def text(self) -> str:
        """The last user turn."""
        return self.messages[-1].content


def _require_text(message: Message) -> None:
    if not (isinstance(message, Message) and isinstance(message.content, str)):
        raise PromptError("A message's content is a text", got=message)


def text_id(messages: Sequence[Message]) -> str:
    """A short name of a conversation, the same everywhere."""
    digest = hashlib.blake2b(digest_size=6)
    for message in messages:
        for text in (message.role, message.content):
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def numbered(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Prompts whose ids are mere numbers, with draws that follow from their conversations; one that stands
    there several times draws other noise each time."""
    seen: dict[str, int] = {}
    found = []
    for prompt in prompts:
        name = text_id(prompt.messages)
        seen[name] = count = seen.get(name, 0) + 1
        found.append(replace(prompt, noise=name if count == 1 else f"{name}-{count}"))
    return found


def require_distinct(prompts: Sequence[Prompt]) -> None:
    """Raises PromptError for two of the same id."""
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise PromptError("Two prompts have the same id", got=prompt.id, fix="Give each its own.")
        seen.add(prompt.id)
