"""The front door: load two models, solve prompts."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

from nabla.dto import DTO
from nabla.errors import ConfigError
from nabla.loop import TestTimeLoop
from nabla.methods.base import Method, methods
from nabla.methods.nabla_reasoner import NablaReasonerMethod
from nabla.models.causal_lm import CausalLM
from nabla.rewards.base import Reward
from nabla.rewards.loading import load_reward
from nabla.types import Message, Prompt, Sampling, Solution

PromptLike = str | Prompt | Sequence[Message] | Sequence[Mapping[str, str]]


class NablaReasoner:
    """Solves prompts with ∇-Reasoner or any other method.

    Args:
        lm: the language model.
        reward: the reward, or None.
        method: a Method, a registered name or a dict of name and arguments; None composes ∇-Reasoner
            from ``parts``.
        system: system prompt for all prompts; it reaches rollout, gradient and reward.
        parts: arguments of :class:`~nabla.dto.DTO`, of
            :class:`~nabla.methods.nabla_reasoner.NablaReasonerMethod`, of
            :class:`~nabla.types.Sampling` (temperature, top_k, top_p, max_new_tokens), and of
            :class:`~nabla.loop.TestTimeLoop` (seed, callbacks, loggers, batch_size, ...), by name.
    """

    def __init__(
        self,
        lm: CausalLM,
        reward: Reward | None = None,
        *,
        method: Method | str | dict[str, Any] | None = None,
        system: str | None = None,
        **parts: Any,
    ) -> None:
        self.system = system
        shares = _split(parts, composed=method is None)
        self.method = (
            methods.build(method)
            if method is not None
            else NablaReasonerMethod(
                dto=DTO(**shares["dto"]),
                sampling=Sampling(**shares["sampling"]),
                **shares["method"],
            )
        )
        self.loop = TestTimeLoop(self.method, lm, reward, **shares["loop"])

    @classmethod
    def from_pretrained(
        cls,
        lm: str | CausalLM,
        rm: str | Mapping[str, Any] | Reward | Callable[[str, str], float] | None = None,
        *,
        lm_arguments: Mapping[str, Any] | None = None,
        rm_arguments: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> NablaReasoner:
        """Loads what is not loaded.

        Args:
            lm: path or hub id of a causal language model, or a CausalLM.
            rm: path or hub id of an outcome reward model, a dict (``{"name": "process", "path": ...}``),
                a Reward, a Python function ``(prompt, response) -> float``, or None.
            lm_arguments, rm_arguments: for loading (dtype, device, device_map, adapter, revision,
                chat_template, ...).
            arguments: see the class.

        Raises ModelError, VocabularyError or ConfigError.
        """
        model = (
            lm if isinstance(lm, CausalLM) else CausalLM.from_pretrained(str(lm), **(lm_arguments or {}))
        )
        reward = load_reward(rm, **(rm_arguments or {}))
        return cls(model, reward, **arguments)

    @overload
    def solve(self, prompt: str) -> Solution: ...
    @overload
    def solve(self, prompt: Prompt) -> Solution: ...
    @overload
    def solve(self, prompt: Sequence[PromptLike]) -> list[Solution]: ...
    def solve(self, prompt: PromptLike | Sequence[PromptLike]) -> Solution | list[Solution]:
        """Solves one prompt, or a list of prompts together; a conversation (a list of messages) is one
        prompt. Synchronous. Raises what :meth:`TestTimeLoop.run` raises; for one prompt, its own error.
        """
        if _is_one(prompt):
            return self.loop.run([Prompt.of(prompt, system=self.system)])[0]  # type: ignore[arg-type]
        many = [
            Prompt.of(p, id=str(i), system=self.system)  # type: ignore[arg-type]
            for i, p in enumerate(prompt)
        ]
        return self.loop.run(many)


def _is_one(prompt: Any) -> bool:
    if isinstance(prompt, str | Prompt) or not isinstance(prompt, Sequence):
        return True
    return bool(prompt) and all(
        isinstance(p, Message) or (isinstance(p, Mapping) and "role" in p) for p in prompt
    )


def _split(parts: dict[str, Any], *, composed: bool) -> dict[str, dict[str, Any]]:
    """Sorts arguments by whom they belong to. Raises ConfigError with the nearest name."""
    owners: dict[str, type] = {"loop": TestTimeLoop}
    if composed:
        owners |= {"dto": DTO, "method": NablaReasonerMethod, "sampling": Sampling}
    from nabla.engine import Engine

    names: dict[str, str] = {}
    for owner, cls in (*owners.items(), ("loop", Engine)):
        for name in inspect.signature(cls).parameters:
            names.setdefault(name, owner)
    for hidden in ("lm", "reward", "events", "engine_arguments", "dto", "sampling"):
        names.pop(hidden, None)
    if composed:
        names.pop("method", None)
    shares: dict[str, dict[str, Any]] = {"dto": {}, "method": {}, "sampling": {}, "loop": {}}
    for name, value in parts.items():
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            raise ConfigError(
                "Unknown part", got=name, fix=f"{hint}Parts: {', '.join(sorted(names))}."
            )
        shares[names[name]][name] = value
    return shares
