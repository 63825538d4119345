"""Arguments that belong one level deeper than they were given: ``max_new_tokens`` is one of ``sampling``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from nabla.core.errors import ConfigError
from nabla.core.registry import argument_hints, members
from nabla.launch.config.reader import join


def refuse_nested(cls: Callable[..., Any], names: Iterable[str], label: str, path: str) -> None:
    """Raises ConfigError for a name that is no argument of ``cls``, but one of a part of it, and says where
    it belongs.

    Args:
        cls: class or recipe.
        names: that were given.
        label: of ``cls``, for the message.
        path: key path of ``cls``.
    """
    notes, known = argument_hints(cls), inspect.signature(cls).parameters
    for name in names:
        if name in known:
            continue
        for part in known:
            for option in members(notes.get(part, Any)):
                own = inspect.isclass(option) and option.__module__.startswith("nabla")
                if own and not inspect.isabstract(option) and name in inspect.signature(option).parameters:
                    raise ConfigError(
                        f"{label} has no argument {name!r}",
                        fix=f"It is one of {part}: {join(path, f'{part}.{name}')}.",
                    ).at(join(path, name))
