"""The law of every slot: settings survive a configuration."""

from __future__ import annotations

import pytest

from nabla.core.sampling import Sampling
from nabla.methods.base import methods
from nabla.problems.tasks.base import tasks
from nabla.schedulers.base import Constant
from nabla.testing import ContractError, ScheduleContract, check_schedule, laws_of, replay

LAW = "its settings survive a configuration"


class Written(Constant):
    """A value class among the settings."""

    def __init__(self, value: float = 0.5, sampling: Sampling | None = None) -> None:
        super().__init__(value)
        self.sampling = sampling or Sampling(top_k=1)


class Unwritten(Written):
    """A default that no file holds."""

    def __init__(self, value: float = 0.5, rule=len) -> None:
        super().__init__(value)
        self.rule = rule


class Raw(Written):
    """A mapping is kept as it stands."""

    def __init__(self, value: float = 0.5, sampling: Sampling | dict[str, int] | None = None) -> None:
        super().__init__(value)
        self.sampling = sampling


def test_value_classes_survive():
    check_schedule(Written(), laws=[LAW])
    assert LAW in [law.name for law in laws_of(Written())]
    assert hasattr(ScheduleContract, "test_its_settings_survive_a_configuration")


@pytest.mark.parametrize(("make", "reason"), [(Unwritten, "cannot hold"), (Raw, "kept as the mapping")])
def test_a_broken_one_is_named(make, reason):
    with pytest.raises(ContractError, match=reason):
        check_schedule(make(), laws=[LAW])
    with pytest.raises(ContractError, match=reason):
        replay(make(), LAW)


@pytest.mark.parametrize("registry", [methods, tasks], ids=lambda registry: registry.slot)
def test_shipped_components_keep_it(registry):
    from nabla.testing.settings import its_settings_survive_a_configuration as law

    for name in registry:
        if registry[name].__module__.startswith("nabla."):
            try:
                component = registry.build(name)
            except Exception:  # needs arguments, or a package that is not here
                continue
            law(component)
