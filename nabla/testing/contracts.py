"""The checks under pytest: ``parametrize_with_checks`` and one mixin class per slot."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, ClassVar
from unittest import SkipTest

from nabla.core.errors import ConfigError
from nabla.testing import (
    acceptance,
    anchors,
    answers,
    boundaries,
    callbacks,
    estimators,
    methods,
    moves,
    objectives,
    parameterizations,
    proposals,
    rewards,
    rollouts,
    rows,
    schedules,
    screens,
    selectors,
    tasks,
)
from nabla.testing.laws import MAX_EXAMPLES, Kit, Law, guarded

KITS: tuple[Kit[Any], ...] = (
    estimators.kit,
    objectives.kit,
    selectors.kit,
    proposals.kit,
    acceptance.kit,
    schedules.kit,
    rewards.kit,
    anchors.kit,
    screens.kit,
    moves.kit,
    methods.kit,
    tasks.kit,
    answers.kit,
    rollouts.kit,
    boundaries.kit,
    rows.kit,
    parameterizations.kit,
    callbacks.kit,
)


def kit_of(component: Any) -> Kit[Any]:
    """The kit of a component's slot, or of a class's. Raises ConfigError."""
    for kit in KITS:
        base = kit.registry.base
        if isinstance(component, base) or (inspect.isclass(component) and issubclass(component, base)):
            return kit
    raise ConfigError(
        "Not a component that the contract kit knows",
        got=component,
        fix="Pass components of " + ", ".join(kit.registry.slot for kit in KITS) + ".",
    )


def laws_of(component: Any) -> tuple[Law, ...]:
    """The laws that apply to a component (or a class of a slot), in the order in which they are checked."""
    kit = kit_of(component)
    return tuple(kit.applying(kit.component(component)))


def replay(component: Any, law: str, **example: Any) -> None:
    """One law on one literal example, as a ContractError prints it; raises that error again."""
    kit_of(component).replay(component, law, **example)


class Check:
    """One law, to be called with a component."""

    def __init__(self, kit: Kit[Any], name: str, max_examples: int, seed: int) -> None:
        self.kit, self.name, self.max_examples, self.seed = kit, name, max_examples, seed

    def __call__(self, component: Any) -> None:
        self.kit.check(component, laws=[self.name], max_examples=self.max_examples, seed=self.seed)


class _Construction:
    """Constructs a class, which fails: the test that reports it."""

    def __init__(self, kit: Kit[Any]) -> None:
        self.kit = kit

    def __call__(self, component: Any) -> None:
        self.kit.component(component)


def parametrize_with_checks(
    components: Iterable[Any],
    *,
    skip: Iterable[str] = (),
    max_examples: int = MAX_EXAMPLES,
    seed: int = 0,
) -> Any:
    """A pytest decorator: one test ``(component, check)`` per component and law that it declares.

    ::

        @parametrize_with_checks([MyEstimator(), MySelector(), MyObjective])
        def test_contract(component, check):
            check(component)

    Args:
        components: instances, or classes that need no arguments, of any slots.
        skip: names of laws not to check.
        max_examples: per law.
        seed: of the examples.

    Raises ConfigError without pytest or for something that is no component.
    """
    try:
        import pytest
    except ImportError as error:
        raise ConfigError(
            "parametrize_with_checks needs pytest",
            fix="Install it, or call check_estimator and its kin yourself.",
        ) from error
    skipped = {name.replace("_", " ") for name in skip}
    rows = []
    for given in components:
        kit = kit_of(given)
        label = kit.label(given)
        try:
            component = kit.component(given)
        except Exception:  # the test, and not the collection, says so
            rows.append(pytest.param(given, _Construction(kit), id=f"{label}: it can be constructed"))
            continue
        for law in kit.applying(component):
            if law.name not in skipped:
                check = Check(kit, law.name, max_examples, seed)
                rows.append(pytest.param(component, check, id=f"{label}: {law.name}"))
    return pytest.mark.parametrize(("component", "check"), rows)


class Contract:
    """A mixin for a test class: one test per law. Set ``make`` to a class or a function without arguments.

    ::

        class TestMine(EstimatorContract):
            make = MyEstimator
            skip = ("it is noisy as declared",)
    """

    make: ClassVar[Callable[[], Any]]
    skip: ClassVar[tuple[str, ...]] = ()
    max_examples: ClassVar[int] = MAX_EXAMPLES
    seed: ClassVar[int] = 0


def _mixin(name: str, kit: Kit[Any]) -> Any:
    def component(cls: type[Contract]) -> Any:
        maker = inspect.getattr_static(cls, "make", None)
        if isinstance(maker, staticmethod):
            maker = maker.__func__
        if maker is None:
            raise ConfigError(f"{cls.__name__} has no 'make'", fix="Set it to your component's class.")
        return kit.component(maker if inspect.isclass(maker) else maker())

    def test(law: Law) -> Callable[[Any], None]:
        def run(self: Any) -> None:
            found = component(type(self))
            if law.name in {n.replace("_", " ") for n in self.skip}:
                raise SkipTest(f"{law.name}: skipped by {type(self).__name__}.skip")
            if not law.applies(found):
                raise SkipTest(f"{law.name}: not declared")
            subject = guarded(kit, found, kit.prepare)
            kit.run(law, found, subject, max_examples=self.max_examples, seed=self.seed)

        run.__doc__ = law.text
        run.__name__ = f"test_{law.name.replace(' ', '_')}"
        return run

    doc = f"One test per law of nabla.{kit.registry.slot}; set ``make``."
    body = {f"test_{law.name.replace(' ', '_')}": test(law) for law in (*kit.laws, *kit.common)}
    return type(name, (Contract,), {"__doc__": doc, "__module__": __name__, **body})


EstimatorContract = _mixin("EstimatorContract", estimators.kit)
ObjectiveContract = _mixin("ObjectiveContract", objectives.kit)
SelectorContract = _mixin("SelectorContract", selectors.kit)
ProposalContract = _mixin("ProposalContract", proposals.kit)
AcceptanceContract = _mixin("AcceptanceContract", acceptance.kit)
ScheduleContract = _mixin("ScheduleContract", schedules.kit)
RewardContract = _mixin("RewardContract", rewards.kit)
AnchorContract = _mixin("AnchorContract", anchors.kit)
ScreenContract = _mixin("ScreenContract", screens.kit)
MoveContract = _mixin("MoveContract", moves.kit)
MethodContract = _mixin("MethodContract", methods.kit)
TaskContract = _mixin("TaskContract", tasks.kit)
AnswersContract = _mixin("AnswersContract", answers.kit)
RolloutContract = _mixin("RolloutContract", rollouts.kit)
BoundaryContract = _mixin("BoundaryContract", boundaries.kit)
RowsContract = _mixin("RowsContract", rows.kit)
ParameterizationContract = _mixin("ParameterizationContract", parameterizations.kit)
CallbackContract = _mixin("CallbackContract", callbacks.kit)
