"""What ``nabla list`` shows of a slot, read from its source where that suffices.

Importing every component takes seconds, most of them PyTorch's and transformers'. Names and docstrings stand
in the source, so a slot is imported only where its source does not tell: other packages add to it, it has
been imported already (somebody may have registered a component since), or arguments are asked for.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nabla.launch.config.slots import SLOTS, slots


@dataclass(frozen=True)
class Listed:
    """A component for people.

    Args:
        name: registered.
        doc: its docstring, without indentation.
        package: it comes from.
        signature: its arguments with their defaults; None where its class has not been imported.
        home: module and name of its class or recipe, as Python imports it; None likewise.
    """

    name: str
    doc: str
    package: str
    signature: str | None = None
    home: str | None = None


@dataclass(frozen=True)
class Listing:
    """A slot: what it is about, and its components in the order of their names."""

    about: str
    components: tuple[Listed, ...]


def listing(slot: str) -> Listing:
    """Of a slot, without importing it if its source tells enough. Raises ConfigError as the registry does."""
    if SLOTS[slot] not in sys.modules and not entry_points(group=f"nabla.{slot}"):
        found = read_source(slot)
        if found is not None:
            return found
    return imported(slot)


def imported(slot: str) -> Listing:
    """Of a slot, with signatures: every component is imported. Raises ConfigError."""
    registry = slots()[slot]
    about = inspect.getdoc(inspect.getmodule(registry.base)) or ""
    components = []
    for name in registry:
        cls = registry[name]
        package = cls.__module__.partition(".")[0]
        components.append(Listed(name, inspect.getdoc(cls) or "", package, _signature(cls), _home_of(cls)))
    return Listing(about, tuple(components))


def read_source(slot: str) -> Listing | None:
    """Of a slot's own folder, from its source alone; None where that leaves a name or a docstring open."""
    base = _source(SLOTS[slot])
    module = None if base is None else ast.parse(base.read_text(encoding="utf-8"))
    names = None if module is None else _registry(slot, module)
    if base is None or module is None or names is None:
        return None
    about = _home(names[1], module)
    components: dict[str, Listed] = {}
    for path in base.parent.rglob("*.py"):
        for cls, call in _registered(ast.parse(path.read_text(encoding="utf-8")), names[0]):
            name = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
            doc = ast.get_docstring(cls)
            if not isinstance(name, str) or doc is None or name in components:
                return None
            components[name] = Listed(name, doc, "nabla")
    if about is None or not components:
        return None
    return Listing(ast.get_docstring(about) or "", tuple(components[name] for name in sorted(components)))


def _source(module: str) -> Path | None:
    """The file of a module, which is not imported (its package is)."""
    found = find_spec(module)
    return Path(found.origin) if found and found.origin and found.origin.endswith(".py") else None


def _registry(slot: str, module: ast.Module) -> tuple[str, str] | None:
    """(variable, class) of ``VARIABLE: Registry[...] = Registry("slot", lambda: CLASS, ...)``."""
    for node in module.body:
        match node:
            case ast.AnnAssign(
                target=ast.Name(id=variable),
                value=ast.Call(
                    func=ast.Name(id="Registry"),
                    args=[ast.Constant(value=own), ast.Lambda(body=ast.Name(id=cls)), *_],
                ),
            ) if own == slot:
                return variable, cls
    return None


def _home(name: str, module: ast.Module) -> ast.Module | None:
    """The module that a class is from: this one, or the one that it is imported from."""
    for node in module.body:
        match node:
            case ast.ClassDef(name=own) if own == name:
                return module
            case ast.ImportFrom(module=str(origin), names=aliases, level=0) if name in [
                alias.name for alias in aliases if alias.asname is None
            ]:
                path = _source(origin)
                return None if path is None else ast.parse(path.read_text(encoding="utf-8"))
    return None


def _registered(
    module: ast.Module, wanted: str
) -> list[tuple[ast.ClassDef | ast.FunctionDef, ast.Call]]:
    """Classes and recipes decorated with ``@WANTED.register(...)``, and the decorator's call."""
    found: list[tuple[ast.ClassDef | ast.FunctionDef, ast.Call]] = []
    for node in module.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        for decorator in node.decorator_list:
            match decorator:
                case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="register")) if name == wanted:
                    found.append((node, decorator))
    return found


def _home_of(cls: Callable[..., Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _signature(cls: Callable[..., Any]) -> str:
    parameters = inspect.signature(cls).parameters.values()
    return ", ".join(str(p.replace(annotation=p.empty)) for p in parameters) or "no arguments"
