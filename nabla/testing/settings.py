"""The law of every slot: what a configuration says of a component."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import Any

from nabla.core.errors import NablaError
from nabla.core.registry import argument_hints, construct, members
from nabla.launch.config.reader import dump, parse
from nabla.launch.config.resolve import fill
from nabla.launch.config.written import unwritten, written
from nabla.testing.errors import Violation, require


def its_settings_survive_a_configuration(component: Any) -> None:
    """The constructor's defaults can be written into ``config.yaml`` and read back to the same component, and
    a value class among its arguments (``sampling: Sampling``) can be given as a mapping. A run writes its
    settings down before it begins."""
    cls: Callable[..., Any] = type(component)
    if isinstance(getattr(component, "recipe", None), str):
        return  # its class has the settings of another
    _require_written(cls, {})
    for name, kind in _value_classes(cls):
        _require_written(cls, {name: dataclasses.asdict(kind())})


def _value_classes(cls: Callable[..., Any]) -> list[tuple[str, Callable[..., Any]]]:
    """(argument, dataclass) wherever the annotation has a dataclass that needs no arguments."""
    notes = argument_hints(cls)
    return [
        (name, option)
        for name in inspect.signature(cls).parameters
        for option in members(notes.get(name, Any))
        if inspect.isclass(option)
        and dataclasses.is_dataclass(option)
        and all(p.default is not p.empty for p in inspect.signature(option).parameters.values())
    ]


def _require_written(cls: Callable[..., Any], given: dict[str, Any]) -> None:
    needed = [
        name
        for name, p in inspect.signature(cls).parameters.items()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and name not in given
    ]
    said = f" with {given}" if given else ""
    try:
        # With arguments that nobody knows here, nothing can be made: their defaults are looked at alone.
        settings = _defaults(cls, given) if needed else fill(cls, given)
    except NablaError as error:
        raise Violation(f"a configuration{said} is not read: {error}"[:600]) from error
    strange = unwritten(settings)
    require(not strange, f"a configuration cannot hold the setting {strange[:1]!r}"[:400])
    again = parse(dump(settings)) if settings else {}
    require(again == settings, f"{settings} is read back as {again}"[:600])
    if needed:
        return
    try:
        made = construct(cls, again)
    except NablaError as error:
        raise Violation(f"what was written{said} does not make it again: {error}"[:600]) from error
    require(fill(cls, again) == settings, f"written twice{said}, the settings differ: {settings}"[:600])
    raw = [name for name in given if getattr(made, name, None) == again[name] and name in vars(made)]
    require(not raw, f"{raw} is kept as the mapping that a configuration has; make the value class of it")


def _defaults(cls: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    found = {n: p.default for n, p in inspect.signature(cls).parameters.items() if p.default is not p.empty}
    return typing.cast(dict[str, Any], written({**found, **given}))
