"""One generic registry for all slots: local components by decorator, others by entry point.

A package adds a component without touching this one by declaring, in its ``pyproject.toml``::

    [project.entry-points."nabla.estimators"]
    my-estimator = "my_package.module:MyEstimator"
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from nabla.core.errors import ConfigError, NablaError

T = TypeVar("T")
C = TypeVar("C", bound=type)


class Registry(Mapping[str, type[T]], Generic[T]):
    """Names → classes of one slot.

    Args:
        slot: the folder's name, e.g. ``"estimators"``; entry points are read from ``nabla.<slot>``.
        base: returns the slot's abstract class (a function, so that the registry can be created
            before the class). Every component must be a subclass.
        package: the slot's folder as a module, sub-folders included; ``nabla.<slot>`` by default.
    """

    def __init__(self, slot: str, base: Callable[[], type[T]], package: str | None = None) -> None:
        self.slot = slot
        self.package = package or f"nabla.{slot}"
        self._base = base
        self._classes: dict[str, type[T]] = {}
        self._names: dict[type, str] = {}
        self._entry_points: dict[str, EntryPoint] | None = None
        self._local_loaded = False

    @property
    def base(self) -> type[T]:
        """The slot's abstract class."""
        return self._base()

    def register(self, name: str) -> Callable[[C], C]:
        """Class decorator. Raises ConfigError on a duplicate name or a class of another slot."""

        def decorate(cls: C) -> C:
            point = (self._entry_points or {}).get(name)
            if point is not None and not _from_one_package(point, cls):
                raise self._duplicate(name, point.value, cls)
            self._add(name, cls)
            return cls

        return decorate

    def _add(self, name: str, cls: Any) -> None:
        if not (inspect.isclass(cls) and issubclass(cls, self.base)):
            raise ConfigError(
                f"{name!r} cannot be registered in {self.slot}",
                got=cls,
                fix=f"Subclass {self.base.__module__}.{self.base.__qualname__}.",
            )
        known = self._classes.get(name)
        if known is not None and _source(known) != _source(cls):  # a reloaded module may replace
            raise self._duplicate(name, _source(known), cls)
        self._classes[name] = cls
        self._names[cls] = name

    def _duplicate(self, name: str, known: str, cls: type) -> ConfigError:
        return ConfigError(
            f"{self.slot} has a component {name!r} already: {known}",
            got=_source(cls),
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
                other, cls = points.get(point.name), self._classes.get(point.name)
                if (other is not None and other.value != point.value) or (
                    cls is not None and not _from_one_package(point, cls)
                ):
                    raise ConfigError(
                        f"Two packages offer {point.name!r} in nabla.{self.slot}",
                        got=point.value,
                        fix="Rename one entry point or uninstall its package.",
                    )
                points[point.name] = point
            self._entry_points = points
        return self._entry_points

    def __getitem__(self, name: str) -> type[T]:
        points = self._discover()
        if name not in self._classes and name in points:
            try:
                cls = points[name].load()
            except Exception as error:
                raise ConfigError(
                    f"The entry point {name!r} of nabla.{self.slot} does not load: {error!r}",
                    got=points[name].value,
                    fix="Mend or uninstall the package that declares it.",
                ) from error
            self._add(name, cls)
        if name not in self._classes:
            known = sorted(self)
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            raise ConfigError(
                f"Unknown component in {self.slot}",
                got=name,
                fix=f"{hint}Known: {', '.join(known)}.",
            )
        return self._classes[name]

    def get(self, key: str, default: Any = None) -> Any:
        """The class of that name, or ``default`` (Mapping's own expects a KeyError)."""
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

    def name_of(self, component: T | type[T]) -> str:
        """The registered name of a component or class; the class's own name if it has none."""
        cls = component if inspect.isclass(component) else type(component)
        self._discover()
        return self._names.get(cls, cls.__name__)

    def build(self, spec: T | str | Mapping[str, Any], **defaults: Any) -> T:
        """An instance from an instance, a name, or ``{"name": ..., argument: value}``.

        Arguments in ``spec`` win over ``defaults``. Raises ConfigError for unknown names, for wrong
        arguments and for an instance of another slot.
        """
        if isinstance(spec, self.base):
            return spec
        if isinstance(spec, str):
            spec = {"name": spec}
        if not (isinstance(spec, Mapping) and isinstance(spec.get("name"), str)):
            raise ConfigError(
                f"Not a component of {self.slot}",
                got=spec,
                fix=f"Pass a {self.base.__name__}, a registered name, or a dict with 'name' and arguments.",
            )
        arguments = {**defaults, **{key: value for key, value in spec.items() if key != "name"}}
        return construct(self[spec["name"]], arguments, label=f"{self.slot}/{spec['name']}")


def construct(cls: type[T], spec: T | Mapping[str, Any] | None = None, *, label: str = "") -> T:
    """An instance of ``cls`` from an instance, a mapping of constructor arguments, or None.

    Raises ConfigError with the signature for wrong arguments, and for a constructor that fails.
    """
    if isinstance(spec, cls):
        return spec
    label = label or cls.__name__
    if spec is not None and not isinstance(spec, Mapping):
        raise ConfigError(f"Not a {cls.__name__}", got=spec, fix="Pass an instance or its arguments.")
    arguments = dict(spec or {})
    signature = inspect.signature(cls)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise ConfigError(
            f"{label}: {error}", got=arguments, fix=f"Its signature is {cls.__name__}{signature}."
        ) from error
    try:
        return cls(**arguments)
    except NablaError:
        raise
    except Exception as error:
        raise ConfigError(f"The constructor of {label} failed: {error!r}", got=arguments) from error


def _source(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _from_one_package(point: EntryPoint, cls: type) -> bool:
    """A package may both decorate a class and declare it as an entry point."""
    return point.module.partition(".")[0] == cls.__module__.partition(".")[0]


def _import_all(package: str) -> None:
    """Every module of a folder and its sub-folders. An import that fails is an error here:
    ``pkgutil.walk_packages`` would swallow it, and lose components without a word."""
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        name = f"{package}.{module.name}"
        if module.ispkg:
            _import_all(name)
        else:
            importlib.import_module(name)


def summary(cls: type) -> str:
    """First line of a class's docstring, for listings."""
    doc = inspect.getdoc(cls) or ""
    return doc.splitlines()[0] if doc else ""
