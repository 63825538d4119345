"""Settings as a file holds them: value classes become mappings, what no file can hold is refused by name.

:func:`nabla.core.registry.construct` reads the mappings back, by the constructors' annotations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from nabla.core.errors import ConfigError
from nabla.launch.config.reader import join
from nabla.launch.config.slots import slots

_PLAIN = (type(None), str, bool, int, float)


def is_value(value: Any) -> bool:
    """Whether this is an instance of a dataclass, as :class:`~nabla.core.sampling.Sampling`, and no part."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return False
    return not any(isinstance(value, registry.base) for registry in slots().values())


def written(value: Any) -> Any:
    """The value with every dataclass in it as a mapping of its constructor's arguments; the rest as it is."""
    if is_value(value):
        return {f.name: written(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, Mapping):
        return {key: written(entry) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return [written(entry) for entry in value]
    return value


def unwritten(value: Any, path: str = "") -> list[tuple[str, Any]]:
    """(key path, value) of everything that a configuration file cannot hold."""
    if isinstance(value, Mapping):
        return [found for key, entry in value.items() for found in unwritten(entry, join(path, key))]
    if isinstance(value, list | tuple):
        return [found for place, entry in enumerate(value) for found in unwritten(entry, join(path, place))]
    return [] if type(value) in _PLAIN else [(path, value)]


def require_written(values: Mapping[str, Any], path: str = "") -> None:
    """Raises ConfigError for the first setting that no file can hold."""
    for place, value in unwritten(values, path):
        raise ConfigError(
            f"{place} cannot be written into a configuration: it is a {type(value).__name__}",
            got=repr(value)[:200],
            fix="A setting is text, a number, true, false, null, a component by its name, a dataclass such "
            "as nabla.Sampling, or a list or mapping of these. Make anything else in the constructor, from "
            "such a setting; an argument's default counts too.",
            path=place,
        )
