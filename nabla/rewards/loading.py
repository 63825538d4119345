"""Rewards from paths, specs and functions."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from nabla.core.errors import ConfigError
from nabla.core.trust import require_trusted
from nabla.models.zoo.names import is_name
from nabla.rewards.base import Reward, rewards
from nabla.rewards.function import FunctionReward
from nabla.rewards.outcome import OutcomeReward


def registered(spec: Any, path: str = "rm") -> Any:
    """A reward's specification in which the bare name of a registered reward is that reward: ``"nines"`` is
    ``{"name": "nines"}``. A name that ``nabla models`` lists stays a model, and so does a path or hub id.

    Raises ConfigError for a registered reward that needs arguments, and for a name that is a file or folder
    here too.
    """
    if isinstance(spec, Mapping):
        inner = {key: registered(spec[key], path) for key in ("reward",) if key in spec}
        if isinstance(spec.get("members"), list):
            inner["members"] = [registered(member, path) for member in spec["members"]]
        return {**spec, **inner}
    if not (isinstance(spec, str) and re.fullmatch(r"[\w-]+", spec)) or is_name(spec) or spec not in rewards:
        return spec
    if Path(spec).exists():
        raise ConfigError(
            f"{spec!r} is a registered reward, and a path here",
            got=spec,
            fix=f"Write ./{spec} for the path, or '{{name: {spec}}}' for the reward.",
            path=path,
        )
    needed = [p.name for p in inspect.signature(rewards[spec]).parameters.values() if p.default is p.empty]
    if not needed:
        return {"name": spec}
    further = "path: PATH_OR_ID" if hasattr(rewards[spec], "from_pretrained") else f"{needed[0]}: ..."
    raise ConfigError(
        f"The reward {spec!r} needs more than its name",
        got=spec,
        fix=f"Write '{{name: {spec}, {further}}}'.",
        path=path,
    )


def load_reward(
    spec: str | PathLike[str] | Mapping[str, Any] | Reward | Callable[[str, str], float] | None,
    **arguments: Any,
) -> Reward | None:
    """A reward from what a user has.

    Args:
        spec: a path or hub id (an outcome reward model); the name of a registered reward that needs no
            arguments; a dict with ``name`` of a registered reward
            and, for models, ``path`` (``likelihood`` without one: the language model that writes judges
            itself); for ``function``, ``function: "module:name"``; for ``ensemble``,
            ``members: [spec, ...]``; for ``noisy``, ``reward: spec``; a Python function; a Reward; None.
        arguments: for loading models, see :func:`nabla.models.loading.load`.

    Raises ModelError or ConfigError.
    """
    if spec is None or isinstance(spec, Reward):
        return spec
    spec = registered(spec)
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
