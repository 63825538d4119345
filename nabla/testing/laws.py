"""Laws and how they are run: small named functions, each tried on drawn examples."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from nabla.core.errors import ConfigError, NablaError
from nabla.core.registry import Registry
from nabla.core.trajectory import Trajectory
from nabla.testing.errors import ContractError
from nabla.testing.errors import Violation as Violation
from nabla.testing.errors import require as require
from nabla.testing.inputs import make_trajectory
from nabla.testing.optional import hypothesis, st
from nabla.testing.settings import its_settings_survive_a_configuration

T = TypeVar("T")

#: Examples per law unless told otherwise.
MAX_EXAMPLES = 25


def require_close(
    found: Tensor, expected: Tensor, what: str, *, rtol: float = 1e-7, atol: float = 1e-9
) -> None:
    """Raises Violation unless two tensors are close; says where they are farthest apart."""
    if found.shape != expected.shape:
        raise Violation(f"{what}: shape {tuple(found.shape)} instead of {tuple(expected.shape)}")
    if torch.allclose(found, expected, rtol=rtol, atol=atol):
        return
    gap = (found - expected).abs().nan_to_num(nan=math.inf).flatten()
    at = int(gap.argmax())
    raise Violation(
        f"{what}: {float(found.flatten()[at]):.6g} instead of {float(expected.flatten()[at]):.6g}"
    )


@dataclass(frozen=True, eq=False)
class Law:
    """One law of a slot.

    Args:
        slot: registry name of the slot.
        name: as reports print it and ``laws=[...]`` takes it.
        text: the law and its source, one paragraph.
        check: ``check(subject, **inputs)`` raises Violation where the law does not hold.
        inputs: strategies of the inputs; empty: the law is checked once.
        applies: whether a component declares what the law is about.
        examples: factor on the number of examples, for laws that run models.
        bare: ``check`` is handed the component itself, not what was prepared of it.
    """

    slot: str
    name: str
    text: str
    check: Callable[..., None]
    inputs: Mapping[str, st.SearchStrategy[Any]]
    applies: Callable[[Any], bool]
    examples: float = 1.0
    bare: bool = False

    def __repr__(self) -> str:
        return self.name.replace(" ", "_")


@dataclass(eq=False)
class Kit(Generic[T]):
    """The laws of a slot.

    Args:
        registry: of the slot; names components in reports.
        article: what a component is called, e.g. ``"an estimator"``.
        check_name: of the public function, for the reproduction line.
        prepare: component → what the laws look at, made once per check.
    """

    registry: Registry[T]
    article: str
    check_name: str
    prepare: Callable[[T], Any] = lambda component: component
    laws: list[Law] = field(default_factory=list)

    def law(
        self,
        *,
        applies: Callable[[T], bool] = lambda _: True,
        examples: float = 1.0,
        **inputs: st.SearchStrategy[Any],
    ) -> Callable[[Callable[..., None]], Callable[..., None]]:
        """Decorator: the function's name is the law's, its docstring says it."""

        def add(check: Callable[..., None]) -> Callable[..., None]:
            self.laws.append(self.make(check, applies=applies, examples=examples, **inputs))
            return check

        return add

    def make(
        self,
        check: Callable[..., None],
        *,
        applies: Callable[[T], bool] = lambda _: True,
        examples: float = 1.0,
        **inputs: st.SearchStrategy[Any],
    ) -> Law:
        """A law that is not kept: for what one component declares."""
        text = " ".join((inspect.getdoc(check) or "").split("\n\n")[0].split())
        name = check.__name__.replace("_", " ").strip()
        return Law(self.registry.slot, name, text, check, inputs, applies, examples)

    def named(self, name: str, extra: Iterable[Law] = ()) -> Law:
        """The law of a name. Raises ConfigError."""
        wanted = name.replace("_", " ")
        for law in (*self.laws, *self.common, *extra):
            if law.name == wanted:
                return law
        raise ConfigError(
            f"Unknown law of {self.registry.slot}",
            got=name,
            fix=f"Laws: {'; '.join(law.name for law in (*self.laws, *self.common))}.",
        )

    def label(self, component: Any) -> str:
        """A component as reports name it."""
        cls: Any = component if inspect.isclass(component) else type(component)
        name = self.registry.name_of(cls)
        kind = cls.__qualname__.rpartition(".<locals>.")[2]
        return f"{self.registry.slot}/{name} ({kind})" if name != cls.__name__ else kind

    def component(self, given: Any) -> T:
        """An instance of the slot: a class is constructed, anything else must be one.

        Raises ContractError.
        """
        base = self.registry.base
        if inspect.isclass(given) and issubclass(given, base):
            try:
                return given()
            except Exception as error:
                raise ContractError(
                    self.label(given),
                    "it can be constructed",
                    "A class passed to a check is constructed without arguments; pass an instance otherwise.",
                    f"its constructor failed with {type(error).__name__}: {error}",
                    reproduce=(f"{given.__name__}()",),
                ) from error
        if not isinstance(given, base):
            raise ContractError(
                self.label(given) if isinstance(given, type) else type(given).__name__,
                f"it is {self.article}",
                f"A component of nabla.{self.registry.slot} is a {base.__module__}.{base.__qualname__}.",
                f"got {given!r}"[:300],
                reproduce=(f"isinstance(component, {base.__name__})",),
            )
        return given

    def applying(self, component: T, extra: Iterable[Law] = ()) -> list[Law]:
        """The laws that a component declares, in order."""
        return [law for law in (*self.laws, *self.common, *extra) if law.applies(component)]

    @property
    def common(self) -> tuple[Law, ...]:
        """The laws of every slot; they look at the component itself."""
        return (replace(self.make(its_settings_survive_a_configuration), bare=True),)

    def check(
        self,
        given: Any,
        *,
        laws: Iterable[str] | None = None,
        skip: Iterable[str] = (),
        max_examples: int = MAX_EXAMPLES,
        seed: int = 0,
        extra: Iterable[Law] = (),
        prepare: Callable[[T], Any] | None = None,
    ) -> None:
        """Checks every law that applies; raises ContractError at the first that is broken.

        Args:
            given: a component, or a class to construct.
            laws: names of the only ones to check; None: all that apply.
            skip: names of those not to check.
            max_examples: per law.
            seed: of the examples; equal seeds try equal examples.
            extra: further laws.
            prepare: instead of the kit's own.
        """
        extra = tuple(extra)
        component = self.component(given)
        skipped = {self.named(name, extra).name for name in skip}
        chosen = self.applying(component, extra) if laws is None else [self.named(n, extra) for n in laws]
        if max_examples < 1:
            raise ConfigError("max_examples must be at least 1", got=max_examples)
        subject = guarded(self, component, prepare or self.prepare)
        for law in chosen:
            if law.name not in skipped:
                self.run(law, component, subject, max_examples=max_examples, seed=seed)

    def run(
        self, law: Law, component: T, subject: Any, *, max_examples: int = MAX_EXAMPLES, seed: int = 0
    ) -> None:
        """One law on drawn examples, or once if it has no inputs. Raises ContractError."""
        last: dict[str, Any] = {}

        def once(**drawn: Any) -> None:
            last.clear()
            last.update(drawn)
            law.check(component if law.bare else subject, **drawn)

        test: Callable[[], Any] = once
        if law.inputs:
            count = max(1, round(max_examples * law.examples))
            chosen = hypothesis.settings(
                max_examples=count,
                deadline=None,
                database=None,
                derandomize=False,
                print_blob=False,
                report_multiple_bugs=False,
                suppress_health_check=list(hypothesis.HealthCheck),
                phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
            )
            test = chosen(hypothesis.seed(seed)(hypothesis.given(**law.inputs)(once)))
        errors = hypothesis.errors
        try:
            with warnings.catch_warnings():
                # Run-time type checkers draw from Python's own generator; that is nobody's mistake.
                warnings.simplefilter("ignore", errors.HypothesisWarning)
                test()
        except Exception as error:
            if isinstance(error, errors.HypothesisException) and not isinstance(error, errors.Flaky):
                raise  # a mistake in the law
            raise self._broken(law, component, last, error, max_examples, seed) from error

    def _broken(
        self, law: Law, component: T, last: Mapping[str, Any], error: Exception, examples: int, seed: int
    ) -> ContractError:
        example = {name: literal(value) for name, value in last.items()}
        arguments = "".join(f", {name}={value}" for name, value in example.items())
        again = f'laws=["{law.name}"], max_examples={examples}, seed={seed})'
        reproduce = [f"{self.check_name}(component, {again}"]
        if law in self.laws or law.bare:
            reproduce.append(f'nabla.testing.replay(component, "{law.name}"{arguments})')
        else:  # made from what was passed to the check
            reproduce = [f"{self.check_name}(component, ..., {again}"]
        return ContractError(
            self.label(component),
            law.name,
            law.text,
            _reason(error),
            example=example,
            reproduce=tuple(reproduce),
        )

    def replay(self, given: Any, name: str, extra: Iterable[Law] = (), **example: Any) -> None:
        """One law on one literal example, as a ContractError prints it. Raises ContractError."""
        component = self.component(given)
        law = self.named(name, extra)
        subject = guarded(self, component, self.prepare)
        try:
            law.check(component if law.bare else subject, **example)
        except Exception as error:
            raise self._broken(law, component, example, error, 1, 0) from error


def guarded(kit: Kit[T], component: T, prepare: Callable[[T], Any]) -> Any:
    """What the laws look at; a component that fails while it is prepared breaks a law of its own."""
    try:
        return prepare(component)
    except Exception as error:
        raise ContractError(
            kit.label(component),
            "it can be prepared",
            "A component works with the tiny models of nabla.testing, unless others are passed.",
            _reason(error),
            reproduce=(f"{kit.check_name}(component)",),
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, Violation):
        return str(error)
    if isinstance(error, hypothesis.errors.Flaky):
        return "the same inputs gave different outcomes: it depends on something besides its arguments"
    if isinstance(error, NablaError):
        return f"it raised {type(error).__name__}: {error}"
    return f"it raised {type(error).__name__}: {error}"[:400]


@contextmanager
def untouched_global_noise() -> Iterator[None]:
    """Raises Violation if the block draws from torch's global generator."""
    before = torch.random.get_rng_state()
    yield
    require(
        torch.equal(before, torch.random.get_rng_state()),
        "it draws from torch's global generator; draw from the generator that is passed in",
    )


def literal(value: Any) -> str:
    """Python code of a drawn value (with ``from math import inf, nan`` and ``import torch``)."""
    if isinstance(value, Tensor):
        return f"torch.tensor({_numbers(value.tolist())}, dtype={value.dtype})"
    if isinstance(value, Trajectory):
        parts = [f"{value.tokens.tolist()}"]
        if value.reward is not None:
            parts.append(f"reward={value.reward!r}")
        parts += [f"committed={value.committed}", f"finished={value.finished}"]
        default = make_trajectory(value.tokens.tolist())
        for name in ("entropy", "top1"):
            if not torch.equal(getattr(value, name), getattr(default, name)):
                parts.append(f"{name}=torch.tensor({_numbers(getattr(value, name).tolist())})")
        return f"make_trajectory({', '.join(parts)})"
    return repr(value)


def _numbers(value: Any) -> str:
    return repr(value)  # inf and nan print as names, which literal() tells the reader to import
