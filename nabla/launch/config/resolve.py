"""Component specs with all defaults filled in, read off the constructors' signatures.

A spec is what a constructor takes: a registered name, or a dict of a name and arguments. Which argument
is a component of which slot follows from its annotation (``Estimator | str | dict[str, Any]``), so a new
component needs no entry here.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nabla.core.errors import ConfigError, NablaError, located
from nabla.core.registry import Registry, argument_hints, construct, members
from nabla.launch.config.nested import refuse_nested
from nabla.launch.config.reader import conform, join, require_known
from nabla.launch.config.slots import slots
from nabla.launch.config.written import is_value, unwritten, written


def resolve(
    registry: Registry[Any], spec: Any, changes: str | Mapping[str, Any] | None = None, path: str = ""
) -> dict[str, Any]:
    """A component's spec with every default written out, nested components too.

    Args:
        registry: of the slot.
        spec: a name, or a dict with ``name`` and arguments.
        changes: laid over the spec. A name replaces the component; a dict changes single arguments, and
            with another ``name`` the arguments that the new component also has are kept.
        path: key path of the spec, for errors.

    Raises ConfigError for unknown names and arguments, with the nearest known one, and for values that the
    arguments' annotations do not allow.
    """
    if isinstance(changes, str):
        spec, changes = changes, None
    with located(path):
        old, arguments = registry.parts(spec)
        laid = {} if changes is None else changes
        name, changed = registry.parts({"name": old, **laid} if isinstance(laid, Mapping) else laid)
        cls = registry[name]
    if name != old:
        arguments = {key: arguments[key] for key in inspect.signature(cls).parameters if key in arguments}
    return {"name": name, **fill(cls, arguments, changed, label=f"{registry.slot}/{name}", path=path)}


def fill(
    cls: Callable[..., Any],
    arguments: Mapping[str, Any],
    changes: Mapping[str, Any] | None = None,
    *,
    label: str = "",
    omit: Sequence[str] = (),
    path: str = "",
) -> dict[str, Any]:
    """Arguments of a class or recipe with defaults written out, but for those to ``omit``."""
    label, changes = label or getattr(cls, "__name__", repr(cls)), changes or {}
    signature = inspect.signature(cls).parameters
    named = {name: p for name, p in signature.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    known = {name: p for name, p in named.items() if name not in omit}
    if len(named) == len(signature):
        refuse_nested(cls, [*arguments, *changes], label, path)
        require_known(known, [*arguments, *changes], label, path=path, noun="argument")
    start = {**{name: p.default for name, p in known.items() if p.default is not p.empty}, **arguments}
    if set(known) <= set(start) and any(start.get(name) is None for name in changes):
        # A change is laid over what None stands for.
        start = fill(cls, arguments, label=label, omit=omit, path=path)
    laid = {name: c for name, c in changes.items() if name in start and isinstance(c, str | Mapping)}
    start |= {name: change for name, change in changes.items() if name not in laid}
    notes, filled = argument_hints(cls), {}
    for name in {**known, **start}:
        if name not in start:
            raise ConfigError(f"{label} needs the argument {name!r}", got=dict(arguments)).at(path)
        hint = notes.get(name, Any)
        if name in known and known[name].default is None:  # ``n: int = None`` means ``int | None``
            hint = typing.Optional[hint]  # noqa: UP045 - of any annotation
        filled[name] = written(_value(hint, start[name], laid.get(name), join(path, name)))
    hidden = [name for name, value in filled.items() if value is None]
    if not hidden:
        return filled
    with located(path):
        made: Any = construct(cls, filled, label=label)
    return {**filled, **{name: _described(_told(made, name)) for name in hidden}}


def _told(made: Any, name: str) -> Any:
    """An attribute of a component; None where it has none, or cannot say before it is in an engine."""
    try:
        return getattr(made, name, None)
    except NablaError:
        return None


def _described(value: Any) -> Any:
    """Plain data for a setting that is None for "the default"; None where it is no plain data."""
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
            plain = {name: _described(_told(value, name)) for name in names}
            return {"name": registry.name_of(value), **plain}
    found = written(value) if is_value(value) else None
    return None if unwritten(found) else found


def _value(hint: Any, value: Any, change: Any, path: str) -> Any:
    """One argument, resolved by its annotation; ``change``: None, a text or a mapping, laid over it."""
    found = _part(members(hint), value, path, change)
    if found is not None:
        return found
    if isinstance(change, Mapping) and isinstance(value, Mapping):
        value = {**value, **change}
    elif change is not None:
        value = change
    return conform(hint, value, path, _part)


def _part(options: tuple[Any, ...], value: Any, path: str, change: Any = None) -> dict[str, Any] | None:
    """A component, or the arguments of a class that takes them as a dict; None for anything else."""
    for registry in slots().values():
        if registry.base in options:
            named = isinstance(value, str | Mapping) or isinstance(change, str)
            return resolve(registry, value, change, path) if named else None
    takes_dict = any(typing.get_origin(option) is dict for option in options)
    if takes_dict and isinstance(value, Mapping | None) and isinstance(change, Mapping | None):
        for option in options:
            if inspect.isclass(option) and option.__module__.startswith("nabla"):
                return fill(option, value or {}, change, path=path)
    return None
