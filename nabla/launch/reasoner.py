"""The front door: load two models, solve prompts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, overload

from nabla.core import html
from nabla.core.errors import ConfigError, require_one_of
from nabla.core.prompt import Message, Prompt
from nabla.core.registry import argument_hints
from nabla.core.sampling import Sampling
from nabla.core.solution import Details, Solution
from nabla.core.text import pieces
from nabla.engine.engine import Engine
from nabla.launch.config.reader import conform
from nabla.launch.launcher import TestTimeLoop
from nabla.launch.readiness import require_models, require_parts
from nabla.methods.base import Method, methods
from nabla.models.causal_lm import CausalLM
from nabla.models.vocabulary import Vocabulary
from nabla.refinement.dto import DTO
from nabla.rewards.base import Reward
from nabla.rewards.loading import load_reward

PromptLike = str | Prompt | Sequence[Message] | Sequence[Mapping[str, str]]


class NablaReasoner:
    """Solves prompts with ∇-Reasoner or any other method.

    Args:
        lm: the language model, or its vocabulary alone where the rollout is a server's.
        reward: the reward, or None.
        method: a Method, a registered name or a dict of name and arguments; None is ∇-Reasoner.
        system: system prompt for all prompts; it reaches rollout, gradient and reward.
        parts: by name, arguments of the method (selector, proposal, acceptance, max_rollouts, ...), of
            its :class:`~nabla.refinement.dto.DTO` (estimator, objective, steps, ...) and
            :class:`~nabla.core.sampling.Sampling` (temperature, top_k, top_p, max_new_tokens: of rollouts,
            for every method; an argument of the method's own of that name is given in ``method``), and of
            :class:`~nabla.launch.launcher.TestTimeLoop` (seed, callbacks, loggers, batch_size, ...).
    """

    def __init__(
        self,
        lm: CausalLM | Vocabulary,
        reward: Reward | None = None,
        *,
        method: Method | str | dict[str, Any] | None = None,
        system: str | None = None,
        **parts: Any,
    ) -> None:
        self.system = system
        self.method, arguments = _compose(method, parts)
        self.loop = TestTimeLoop(self.method, lm, reward, **arguments)

    @classmethod
    def from_pretrained(
        cls,
        lm: str | PathLike[str] | CausalLM | Vocabulary,
        rm: str | PathLike[str] | Mapping[str, Any] | Reward | Callable[[str, str], float] | None = None,
        *,
        lm_arguments: Mapping[str, Any] | None = None,
        rm_arguments: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> NablaReasoner:
        """Loads what is not loaded.

        Args:
            lm: path, hub id or name (``nabla models``) of a causal language model, a CausalLM, or a
                Vocabulary.
            rm: path, hub id or name of an outcome reward model, a dict (``{"name": "process", "path": ...}``;
                ``{"name": "likelihood"}``: the language model's own), a Reward, a Python function ``(prompt,
                response) -> float``, or None.
            lm_arguments: for loading the language model (dtype, device, device_map, adapter, revision,
                chat_template, ...).
            rm_arguments: for loading the reward model, likewise.
            arguments: see the class.

        Raises ModelError, VocabularyError or ConfigError.
        """
        method = arguments.pop("method", None)
        if not isinstance(method, Method):  # what is wrong with it, or missing, shows now
            parts = {name: part for name, part in arguments.items() if name != "system"}
            method, loop = _compose(method, parts)
            arguments = {name: part for name, part in arguments.items() if name == "system"} | loop
        require_parts(method, rm)
        path = None if isinstance(lm, CausalLM | Vocabulary) else str(lm)
        require_models(path, lm_arguments or {}, _plain(rm), rm_arguments or {})
        if isinstance(lm, CausalLM | Vocabulary):
            model = lm
        else:
            model = CausalLM.from_pretrained(str(lm), **(lm_arguments or {}))
        reward = load_reward(rm, **(rm_arguments or {}))
        return cls(model, reward, method=method, **arguments)

    @overload
    def solve(self, prompt: str | Prompt) -> Solution: ...
    @overload
    def solve(self, prompt: list[Message] | list[dict[str, str]]) -> Solution: ...
    @overload
    def solve(self, prompt: list[str] | list[Prompt] | list[PromptLike]) -> list[Solution]: ...
    def solve(self, prompt: Any) -> Solution | list[Solution]:
        """Solves one prompt, or a list of prompts together; a conversation (a list of messages) is one
        prompt. Synchronous. Ids follow from the conversations unless prompts bring their own; the same
        conversation twice in a list is numbered. Raises what :meth:`TestTimeLoop.run` raises; for one
        prompt, its own error.
        """
        if _is_one(prompt):
            (solution,) = self.loop.run([Prompt.of(prompt, system=self.system)])
            return self._readable(solution)
        prompts = _numbered([Prompt.of(p, system=self.system) for p in prompt], prompt)
        return [self._readable(solution) for solution in self.loop.run(prompts)]

    def _readable(self, solution: Solution) -> Solution:
        """With the text that each token adds, for whoever looks at it."""
        words = self.loop.engine.vocabulary
        known = tuple(pieces(words.tokenizer, solution.tokens, words.lead, words.eos_ids))
        return replace(solution, details=replace(solution.details or Details(), pieces=known))

    def _repr_html_(self) -> str:
        engine = self.loop.engine
        parts = {
            "method": methods.name_of(self.method),
            "language model": _named(engine.lm or engine.vocabulary),
            "reward": "none" if engine.reward is None else _named(engine.reward),
            "rollout": type(engine.workspace.rollout).__name__,
            "seed": engine.seed,
            "device": self.loop.fabric.device,
            **({} if self.system is None else {"system prompt": self.system}),
        }
        return html.card("NablaReasoner", parts)


def _named(model: Any) -> str:
    """Class of an adapter and name of its model."""
    config = getattr(getattr(model, "model", None), "config", None)
    name = getattr(config, "_name_or_path", "") or getattr(config, "model_type", "")
    if Path(name).is_absolute():  # an id of a hub stays as it is
        name = Path(name).name
    return f"{type(model).__name__} ({name})" if name else type(model).__name__


def _plain(rm: Any) -> Any:
    """A reward's specification where models are named in it."""
    return str(rm) if isinstance(rm, PathLike) else rm if isinstance(rm, str | Mapping) else None


def _numbered(prompts: list[Prompt], given: Sequence[Any]) -> list[Prompt]:
    """Prompts that came without an id and stand there several times get one each."""
    seen: dict[str, int] = {}
    found = []
    for prompt, source in zip(prompts, given, strict=True):
        if not isinstance(source, Prompt):
            seen[prompt.id] = count = seen.get(prompt.id, 0) + 1
            if count > 1:
                prompt = replace(prompt, id=f"{prompt.id}-{count}")
        found.append(prompt)
    return found


def _is_one(prompt: Any) -> bool:
    if isinstance(prompt, str | Prompt) or not isinstance(prompt, Sequence):
        return True
    return bool(prompt) and all(
        isinstance(p, Message) or (isinstance(p, Mapping) and "role" in p) for p in prompt
    )


def _compose(
    method: Method | str | dict[str, Any] | None, parts: dict[str, Any]
) -> tuple[Method, dict[str, Any]]:
    """(the method, the loop's arguments), each part given to whom it belongs.

    Raises ConfigError for a part that nobody takes, with the nearest name.
    """
    spec: dict[str, Any] = {}
    owners: dict[str, Any] = {}
    if not isinstance(method, Method):
        spec = dict(method) if isinstance(method, dict) else {"name": method or "nabla-reasoner"}
        cls = methods[str(spec.get("name"))]
        taken = inspect.signature(cls).parameters
        nested = {"dto": DTO, "sampling": Sampling}
        owners = {"method": cls} | {name: part for name, part in nested.items() if name in taken}
    known: dict[str, tuple[str, Any]] = {}
    # How tokens are drawn comes first: a name means one thing for every method. Of a method's own argument
    # of such a name (COLD's temperature of soft tokens) only method={...} speaks.
    order = sorted(owners.items(), key=lambda item: item[0] != "sampling")
    for owner, part in (*order, ("loop", TestTimeLoop), ("loop", Engine)):
        notes = argument_hints(part)
        for name in inspect.signature(part).parameters:
            known.setdefault(name, (owner, notes.get(name, Any)))
    for name in ("lm", "reward", "events", "engine_arguments", "method"):
        known.pop(name, None)
    shares: dict[str, dict[str, Any]] = {"loop": {}, "method": {}, "dto": {}, "sampling": {}}
    for name, value in parts.items():
        require_one_of(name, sorted(known), "Unknown part", "Parts")
        owner, hint = known[name]
        shares[owner][name] = conform(hint, value, name)
    if isinstance(method, Method):
        return method, shares["loop"]
    for name in ("dto", "sampling"):
        if shares[name]:
            given = {**spec, **shares["method"]}.get(name) or {}
            if not isinstance(given, Mapping):
                raise ConfigError(
                    f"{name} is given as an object and by parts", got=sorted(shares[name]), fix="Use one."
                )
            shares["method"][name] = {**given, **shares[name]}
    return methods.build({**spec, **shares["method"]}), shares["loop"]
