"""One generic registry for all slots: local components by decorator, others by entry point.

A package adds a component without touching this one by declaring, in its ``pyproject.toml``::

    [project.entry-points."nabla.estimators"]
    my-estimator = "my_package.module:MyEstimator"

A component is a class of its slot, or a *recipe*: a function that returns one, composed of parts. Its
arguments are then the settings that configurations see.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import pkgutil
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import EntryPoint, entry_points
from numbers import Integral, Real
from typing import Any, Generic, TypeVar

from nabla.core.errors import ConfigError, NablaError, require_one_of

T = TypeVar("T")
C = TypeVar("C", bound=Callable[..., Any])


class Registry(Mapping[str, Callable[..., T]], Generic[T]):
    """Names → classes and recipes of one slot.

    Args:
        slot: the folder's name, e.g. ``"estimators"``; entry points are read from ``nabla.<slot>``.
        base: returns the slot's abstract class (a function, so that the registry can be created
            before the class). Every component must be a subclass, or a function annotated to return one.
        package: the slot's folder as a module, sub-folders included; ``nabla.<slot>`` by default.
    """

    def __init__(self, slot: str, base: Callable[[], type[T]], package: str | None = None) -> None:
        self.slot = slot
        self.package = package or f"nabla.{slot}"
        self._base = base
        #: Recipes too.
        self._classes: dict[str, Callable[..., T]] = {}
        self._names: dict[Callable[..., Any], str] = {}
        self._entry_points: dict[str, EntryPoint] | None = None
        self._local_loaded = False

    @property
    def base(self) -> type[T]:
        """The slot's abstract class."""
        return self._base()

    def register(self, name: str) -> Callable[[C], C]:
        """Decorator of a class or a recipe; what a recipe makes bears the registered name.

        Raises ConfigError on a duplicate name, for a class of another slot, and for a function that is not
        annotated to return a component.
        """

        def decorate(maker: C) -> C:
            point = (self._entry_points or {}).get(name)
            if point is not None and not _from_one_package(point, maker):
                raise self._duplicate(name, point.value, maker)
            added: Any = self._add(name, maker)
            return added  # type: ignore[no-any-return]

        return decorate

    def _add(self, name: str, maker: Any) -> Any:
        if not (inspect.isclass(maker) or inspect.isfunction(maker)) or not self._makes(maker):
            raise ConfigError(
                f"{name!r} cannot be registered in {self.slot}",
                got=maker,
                fix=f"Subclass {self.base.__module__}.{self.base.__qualname__}, or write a function whose "
                "return annotation is such a class; its annotations must hold at run time.",
            )
        if self._names.get(maker) == name:  # decorated, and declared as an entry point
            return maker
        known = self._classes.get(name)
        if known is not None and _source(known) != _source(maker):  # a reloaded module may replace
            raise self._duplicate(name, _source(known), maker)
        added: Any = maker if inspect.isclass(maker) else self._named(name, maker)
        self._classes[name] = added
        self._names[added] = name
        return added

    def _makes(self, maker: Any) -> bool:
        """Whether a class or function gives components of this slot."""
        made = maker
        if inspect.isfunction(maker):
            try:
                made = typing.get_type_hints(maker).get("return")
            except NameError:  # an annotation that exists for type checkers only
                return False
        return inspect.isclass(made) and issubclass(made, self.base)

    def _named(self, name: str, recipe: Callable[..., T]) -> Callable[..., T]:
        """The recipe, such that what it makes says whose it is: its class alone does not tell."""

        @functools.wraps(recipe)
        def make(*arguments: Any, **named: Any) -> T:
            made = recipe(*arguments, **named)
            if not isinstance(made, self.base):
                raise ConfigError(
                    f"{_source(recipe)} must return a {self.base.__name__}", got=type(made).__name__
                )
            object.__setattr__(made, "recipe", name)
            return made

        return make

    def _duplicate(self, name: str, known: str, maker: Any) -> ConfigError:
        return ConfigError(
            f"{self.slot} has a component {name!r} already: {known}",
            got=_source(maker),
            fix="Choose another name.",
        )

    def _discover(self) -> dict[str, EntryPoint]:
        if not self._local_loaded:  # the slot's own folder: no central import list to edit
            self._local_loaded = True
            try:
                _import_all(self.package)
            except BaseException:
                self._local_loaded = False  # never half a slot: the next look-up tries again
                raise
        if self._entry_points is None:
            points: dict[str, EntryPoint] = {}
            for point in entry_points(group=f"nabla.{self.slot}"):
                other, known = points.get(point.name), self._classes.get(point.name)
                if (other is not None and other.value != point.value) or (
                    known is not None and not _from_one_package(point, known)
                ):
                    raise ConfigError(
                        f"Two packages offer {point.name!r} in nabla.{self.slot}",
                        got=point.value,
                        fix="Rename one entry point or uninstall its package.",
                    )
                points[point.name] = point
            self._entry_points = points
        return self._entry_points

    @property
    def offered(self) -> Mapping[str, EntryPoint]:
        """Components that other packages offer, loaded or not, by name."""
        return self._discover()

    def __getitem__(self, name: str) -> Any:
        points = self._discover()
        if name not in self._classes and name in points:
            try:
                maker = points[name].load()
            except (Exception, SystemExit) as error:
                raise ConfigError(
                    f"The entry point {name!r} of nabla.{self.slot} does not load: {error!r}",
                    got=points[name].value,
                    fix="Mend or uninstall the package that declares it.",
                ) from error
            self._add(name, maker)
        if name not in self._classes:
            require_one_of(name, self, f"Unknown component in {self.slot}")
        return self._classes[name]

    def get(self, key: str, default: Any = None) -> Any:
        """The class or recipe of that name, or ``default`` (Mapping's own expects a KeyError)."""
        if key not in self:
            return default
        return self[key]

    def __contains__(self, name: object) -> bool:
        points = self._discover()
        return name in self._classes or name in points

    def __iter__(self) -> Iterator[str]:
        points = self._discover()
        return iter(sorted({*self._classes, *points}))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def name_of(self, component: T | Callable[..., T]) -> str:
        """The registered name of a component, class or recipe; the class's own name if it has none."""
        self._discover()
        if inspect.isclass(component) or inspect.isfunction(component):
            return self._names.get(component, component.__name__)
        recipe = getattr(component, "recipe", None)
        if isinstance(recipe, str) and recipe in self._classes:
            return recipe
        cls = type(component)
        return self._names.get(cls, cls.__name__)

    def build(self, spec: T | str | Mapping[str, Any], **defaults: Any) -> T:
        """An instance from an instance, a name, or ``{"name": ..., argument: value}``.

        Arguments in ``spec`` win over ``defaults``. Raises ConfigError for unknown names, for wrong
        arguments and for an instance of another slot.
        """
        if isinstance(spec, self.base):
            return spec
        name, arguments = self.parts(spec)
        maker: Callable[..., T] = self[name]
        return construct(maker, {**defaults, **arguments}, label=f"{self.slot}/{name}")

    def parts(self, spec: Any) -> tuple[str, dict[str, Any]]:
        """(name, arguments) of a component that is given as data. Raises ConfigError."""
        if isinstance(spec, str):
            return spec, {}
        if not (isinstance(spec, Mapping) and isinstance(spec.get("name"), str)):
            raise ConfigError(
                f"Not a component of {self.slot}",
                got=spec,
                fix=f"Pass a {self.base.__name__}, a registered name, or a dict with 'name' and arguments.",
            )
        return spec["name"], {key: value for key, value in spec.items() if key != "name"}


def construct(maker: Callable[..., T], spec: T | Mapping[str, Any] | None = None, *, label: str = "") -> T:
    """What a class or recipe makes, from an instance (of the class), a mapping of arguments, or None.

    Raises ConfigError with the signature for wrong arguments, and for a constructor that fails.
    """
    if inspect.isclass(maker) and isinstance(spec, maker):
        return typing.cast(T, spec)
    called = getattr(maker, "__name__", repr(maker))
    label = label or called
    if spec is not None and not isinstance(spec, Mapping):
        raise ConfigError(f"Not a {called}", got=spec, fix="Pass an instance or its arguments.")
    arguments = dict(spec or {})
    signature = inspect.signature(maker)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise ConfigError(
            f"{label}: {error}", got=arguments, fix=f"Its signature is {called}{signature}."
        ) from error
    for name, value in arguments.items():
        wanted = _unfit(maker, name, value)
        if wanted is not None:  # the caller's mistake, not the component's
            raise ConfigError(f"{name} is {wanted}", got=value, fix=f"Its signature is {called}{signature}.")
    notes = argument_hints(maker)
    arguments = {name: revived(notes.get(name, Any), value, name) for name, value in arguments.items()}
    try:
        return maker(**arguments)
    except NablaError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(f"The constructor of {label} failed: {error!r}", got=arguments) from error


_KINDS: dict[Any, tuple[Any, str]] = {
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    str: (str, "text"),
    bool: (bool, "true or false"),
    type(None): (type(None), "null"),
}


@functools.lru_cache(maxsize=1024)
def argument_hints(maker: Callable[..., Any]) -> dict[str, Any]:
    """Of the arguments of a class or recipe, without those that exist for type checkers only: these hide no
    other one."""
    function: Any = maker.__init__ if inspect.isclass(maker) else maker
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        found: dict[str, Any] = {}
        scope = getattr(inspect.unwrap(function), "__globals__", {})
        for name, note in getattr(function, "__annotations__", {}).items():
            with suppress(NameError, TypeError, AttributeError, SyntaxError):
                one = types.SimpleNamespace(__annotations__={name: note})
                found |= typing.get_type_hints(one, globalns=scope)
        return found


def members(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the annotation alone."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def revived(hint: Any, value: Any, label: str = "") -> Any:
    """A value of a configuration as its annotation has it: where a dataclass alone is taken, the dataclass of
    a mapping's entries, also in lists and mappings of them. Raises ConfigError for entries that do not fit.
    """
    if not isinstance(value, Mapping | list | tuple):
        return value
    mapped = isinstance(value, Mapping)
    kinds = {typing.get_origin(option) or option: option for option in members(hint)}
    for kind, option in kinds.items():
        if not inspect.isclass(kind) or not issubclass(kind, Mapping if mapped else list | tuple | Sequence):
            continue
        inner = [part for part in typing.get_args(option) if part is not Ellipsis]
        if not inner or issubclass(kind, str):
            return value
        if isinstance(value, Mapping):
            return {key: revived(inner[-1], entry, f"{label}.{key}") for key, entry in value.items()}
        each = [revived(inner[0], entry, f"{label}.{place}") for place, entry in enumerate(value)]
        return each if isinstance(value, list) else tuple(each)
    for kind in kinds:
        if mapped and inspect.isclass(kind) and dataclasses.is_dataclass(kind):
            return construct(typing.cast(Any, kind), value, label=label)
    return value


def _unfit(maker: Callable[..., Any], name: str, value: Any) -> str | None:
    """What an argument should be, where its annotation allows plain values alone and this is none of them."""
    hint = argument_hints(maker).get(name, Any)
    options = members(hint)
    if not all(option in _KINDS for option in options):
        return None
    if inspect.signature(maker).parameters[name].default is None:  # ``n: int = None`` means ``int | None``
        options = (*options, type(None))
    for option in options:
        if isinstance(value, _KINDS[option][0]) and (option is bool or not isinstance(value, bool)):
            return None
    return " or ".join(dict.fromkeys(_KINDS[option][1] for option in options))


def _source(maker: Any) -> str:
    return f"{maker.__module__}.{maker.__qualname__}"


def _from_one_package(point: EntryPoint, maker: Callable[..., Any]) -> bool:
    """A package may both decorate a component and declare it as an entry point."""
    return point.module.partition(".")[0] == maker.__module__.partition(".")[0]


def _import_all(package: str) -> None:
    """Every module of a folder and its sub-folders. An import that fails is an error here:
    ``pkgutil.walk_packages`` would swallow it, and lose components without a word."""
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        name = f"{package}.{module.name}"
        if module.ispkg:
            _import_all(name)
        else:
            importlib.import_module(name)


def summary(component: Callable[..., Any]) -> str:
    """First line of a class's or recipe's docstring, for listings."""
    doc = inspect.getdoc(component) or ""
    return doc.splitlines()[0] if doc else ""
