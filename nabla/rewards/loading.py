"""Rewards from paths, specs and functions."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

from nabla.core.errors import ConfigError
from nabla.core.trust import require_trusted
from nabla.rewards.base import Reward, rewards
from nabla.rewards.function import FunctionReward
from nabla.rewards.outcome import OutcomeReward


def load_reward(
    spec: str | PathLike[str] | Mapping[str, Any] | Reward | Callable[[str, str], float] | None,
    **arguments: Any,
) -> Reward | None:
    """A reward from what a user has.

    Args:
        spec: a path or hub id (an outcome reward model); a dict with ``name`` of a registered reward
            and, for models, ``path`` (``likelihood`` without one: the language model that writes judges
            itself); for ``function``, ``function: "module:name"``; for ``ensemble``,
            ``members: [spec, ...]``; for ``noisy``, ``reward: spec``; a Python function; a Reward; None.
        arguments: for loading models, see :func:`nabla.models.loading.load`.

    Raises ModelError or ConfigError.
    """
    if spec is None or isinstance(spec, Reward):
        return spec
    if isinstance(spec, Mapping):
        return _from_dict(dict(spec), arguments)
    if callable(spec):
        return FunctionReward(spec)
    return OutcomeReward.from_pretrained(str(spec), **arguments)


def _from_dict(spec: dict[str, Any], arguments: dict[str, Any]) -> Reward:
    name = spec.pop("name", "outcome")
    cls: Any = rewards[name]
    if "path" in spec:
        if not hasattr(cls, "from_pretrained"):
            raise ConfigError(f"Reward {name!r} is not loaded from a path", got=spec["path"])
        loaded: Reward = cls.from_pretrained(spec.pop("path"), **{**arguments, **spec})
        return loaded
    if "members" in spec:
        spec["members"] = [load_reward(member, **arguments) for member in spec["members"]]
    if "reward" in spec:
        spec["reward"] = load_reward(spec["reward"], **arguments)
    if isinstance(spec.get("function"), str):
        require_trusted({"function": spec["function"]}, "rm")
        spec["function"] = load_function(spec["function"], "reward")
    return rewards.build({"name": name, **spec})


def load_function(target: str, what: str) -> Any:
    """What ``package.module:function`` names; ``what`` it is for, in the error. The caller has asked whether
    code may run. Raises ConfigError."""
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # of the module's own code, too
        raise ConfigError(
            f"The {what} function cannot be imported: {type(error).__name__}: {error}",
            got=target,
            fix="Write 'package.module:function'.",
        ) from error
