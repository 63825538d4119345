"""Component specs with all defaults filled in, read off the constructors' signatures.

A spec is what a constructor takes: a registered name, or a dict of a name and arguments. Which argument
is a component of which slot follows from its annotation (``Estimator | str | dict[str, Any]``), so a new
component needs no entry here.
"""

from __future__ import annotations

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nabla.core.errors import ConfigError
from nabla.core.registry import Registry, construct
from nabla.launch.config.slots import slots

_UNCHANGED: Any = object()


def resolve(
    registry: Registry[Any], spec: Any, changes: str | Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A component's spec with every default written out, nested components too.

    Args:
        registry: of the slot.
        spec: a name, or a dict with ``name`` and arguments.
        changes: laid over the spec. A name replaces the component; a dict changes single arguments, and
            with another ``name`` the arguments that the new component also has are kept.

    Raises ConfigError for unknown names and arguments, with the nearest known one.
    """
    return _component(registry, spec, _UNCHANGED if changes is None else changes)


def fill(
    cls: Callable[..., Any],
    arguments: Mapping[str, Any],
    changes: Mapping[str, Any] | None = None,
    *,
    label: str = "",
    omit: Sequence[str] = (),
) -> dict[str, Any]:
    """Arguments of a class or recipe with defaults written out, but for those to ``omit``."""
    changes = {} if changes is None else changes
    label = label or getattr(cls, "__name__", repr(cls))
    parameters = inspect.signature(cls).parameters
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = {n: p for n, p in parameters.items() if p.kind not in variable and n not in omit}
    if not any(p.kind in variable for p in parameters.values()):
        for name in [*arguments, *changes]:
            if name not in named:
                near = difflib.get_close_matches(name, named, n=1)
                hint = f"Did you mean {near[0]!r}? " if near else ""
                raise ConfigError(
                    f"{label} has no argument {name!r}",
                    fix=f"{hint}Arguments: {', '.join(named) or 'none'}.",
                )
    required = {n for n, p in named.items() if p.default is p.empty}
    if required <= set(arguments) and any(_start(named, arguments, name) is None for name in changes):
        # A change is laid over what None stands for.
        arguments = fill(cls, arguments, label=label, omit=omit)
    hints = _hints(cls)
    filled: dict[str, Any] = {}
    for name in [*named, *(n for n in {**arguments, **changes} if n not in named)]:
        value = _start(named, arguments, name)
        change = changes.get(name, _UNCHANGED)
        if value is inspect.Parameter.empty:
            if change is _UNCHANGED:
                raise ConfigError(f"{label} needs the argument {name!r}", got=dict(arguments))
            value, change = change, _UNCHANGED
        filled[name] = _value(hints.get(name), value, change)
    return _unveil(cls, filled, label)


def _start(named: Mapping[str, inspect.Parameter], arguments: Mapping[str, Any], name: str) -> Any:
    default = named[name].default if name in named else inspect.Parameter.empty
    return arguments.get(name, default)


def _unveil(cls: Callable[..., Any], filled: dict[str, Any], label: str) -> dict[str, Any]:
    """Arguments that are None for "the default" get the value the component then holds."""
    hidden = [name for name, value in filled.items() if value is None]
    if not hidden:
        return filled
    made: Any = construct(cls, filled, label=label)
    return {
        name: _described(getattr(made, name, None)) if name in hidden else value
        for name, value in filled.items()
    }


def _described(value: Any) -> Any:
    """Plain data for a setting; None where it is not one."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        plain = {key: _described(entry) for key, entry in value.items()}
        return None if any(entry is None for entry in plain.values()) else plain
    for registry in slots().values():
        if isinstance(value, registry.base):
            names = list(inspect.signature(type(value)).parameters)
            if names == ["value"]:  # a constant schedule is its number
                return value.value
            plain = {name: _described(getattr(value, name, None)) for name in names}
            return {"name": registry.name_of(value), **plain}
    return None


def _component(registry: Registry[Any], spec: Any, change: Any) -> dict[str, Any]:
    if isinstance(change, str):
        spec, change = {"name": change}, _UNCHANGED
    if isinstance(spec, str):
        spec = {"name": spec}
    if not (isinstance(spec, Mapping) and isinstance(spec.get("name"), str)):
        raise ConfigError(
            f"Not a component of {registry.slot}",
            got=spec,
            fix="Write a registered name, or a dict with 'name' and arguments.",
        )
    arguments = {key: value for key, value in spec.items() if key != "name"}
    name = spec["name"]
    changes: dict[str, Any] = {}
    if change is not _UNCHANGED:
        if not isinstance(change, Mapping):
            raise ConfigError(f"Not a component of {registry.slot}", got=change)
        changes = {key: value for key, value in change.items() if key != "name"}
        if change.get("name", name) != name:
            name = change["name"]
            known = inspect.signature(registry[name]).parameters
            arguments = {key: value for key, value in arguments.items() if key in known}
    return {"name": name, **fill(registry[name], arguments, changes, label=f"{registry.slot}/{name}")}


def _value(hint: Any, value: Any, change: Any) -> Any:
    """One argument, resolved by its annotation."""
    if isinstance(change, int | float | None) and change is not _UNCHANGED:
        value, change = change, _UNCHANGED
    options = _options(hint)
    if isinstance(value, int) and not isinstance(value, bool) and float in options and int not in options:
        value = float(value)  # YAML's 4 where a number is meant
    for registry in slots().values():
        if registry.base in options:
            plain = isinstance(value, str | Mapping)
            return _component(registry, value, change) if plain or isinstance(change, str) else (
                _replaced(value, change)
            )
    accepts_dict = any(typing.get_origin(option) is dict for option in options)
    for option in options:
        if accepts_dict and inspect.isclass(option) and option.__module__.startswith("nabla"):
            if isinstance(value, Mapping | None):
                return fill(option, value or {}, None if change is _UNCHANGED else change)
            return _replaced(value, change)
    return _collection(options, value, change)


def _collection(options: tuple[Any, ...], value: Any, change: Any) -> Any:
    """A list or mapping of components, or a plain value."""
    for option in options:
        origin, inner = typing.get_origin(option), typing.get_args(option)
        if not (inspect.isclass(origin) and inner) or Any in inner:
            continue
        if issubclass(origin, Mapping) and isinstance(value, Mapping | None):
            if change is not _UNCHANGED:
                value = {**(value or {}), **change}
            if value is None:
                return None
            return {key: _value(inner[-1], entry, _UNCHANGED) for key, entry in value.items()}
        if issubclass(origin, Sequence) and isinstance(value, list | tuple):
            entries = value if change is _UNCHANGED else change
            return [_value(inner[0], entry, _UNCHANGED) for entry in entries]
    if isinstance(change, Mapping) and isinstance(value, Mapping):
        return {**value, **change}
    return _replaced(value, change)


def _replaced(value: Any, change: Any) -> Any:
    value = value if change is _UNCHANGED else change
    return list(value) if isinstance(value, tuple) else value


def _options(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the annotation alone."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def _hints(cls: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls.__init__ if inspect.isclass(cls) else cls)
    except (NameError, TypeError, AttributeError):  # annotations that exist for type checkers only
        return {}
