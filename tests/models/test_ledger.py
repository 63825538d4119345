"""Bytes that are charged, and what gives way."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nabla.core.errors import ConfigError
from nabla.models import ledger
from nabla.models.ledger import ByteBudget, default_limit, machine_memory


def charged(budget: ByteBudget, *sizes: tuple[str, int]) -> list[str]:
    """Charges these; names that were dropped, in order."""
    gone: list[str] = []
    for name, size in sizes:
        budget.charge(name, size, lambda name=name: gone.append(name))  # type: ignore[misc]
    return gone


def test_the_least_recently_used_gives_way() -> None:
    budget = ByteBudget(10)
    gone = charged(budget, ("a", 4), ("b", 4))
    budget.touch("a")
    assert charged(budget, ("c", 4)) == []
    assert gone == ["b"]
    assert "a" in budget
    assert "b" not in budget
    assert (budget.used, budget.peak, budget.dropped) == (8, 8, 1)


def test_what_cannot_fit_pushes_nothing_out() -> None:
    budget = ByteBudget(10)
    gone = charged(budget, ("a", 6))
    assert not budget.charge("b", 11, lambda: None)
    assert gone == []
    assert budget.used == 6
    assert not ByteBudget(0).charge("c", 1, lambda: None)


def test_what_is_released_is_not_dropped() -> None:
    budget = ByteBudget(10)
    gone = charged(budget, ("a", 6))
    budget.release("a")
    budget.release("a")  # twice is fine
    budget.touch("a")  # so is a key that is gone
    assert charged(budget, ("b", 10)) == []
    assert gone == []
    assert budget.used == 10


def test_a_key_that_is_charged_again_counts_once() -> None:
    budget = ByteBudget(10)
    assert charged(budget, ("a", 6), ("a", 8)) == []
    assert budget.used == 8


def test_parts_of_one_whole_do_not_push_each_other_out() -> None:
    budget = ByteBudget(10)
    gone = charged(budget, ("old", 5))
    with budget.holding():
        assert budget.charge("head", 6, lambda: gone.append("head"))
        with budget.holding():
            pass
        assert not budget.charge("tail", 6, lambda: None)
    assert gone == ["old"]
    assert budget.charge("new", 6, lambda: None)
    assert gone == ["old", "head"]


def test_a_drop_may_release_others() -> None:
    budget = ByteBudget(10)
    budget.charge("parent", 4, lambda: budget.release("child"))
    budget.charge("child", 4, lambda: pytest.fail("it was released"))
    budget.charge("other", 10, lambda: None)
    assert (budget.used, budget.dropped) == (10, 1)


def test_no_limit_and_a_wrong_one() -> None:
    budget = ByteBudget()
    assert charged(budget, ("a", 1 << 60), ("b", 1 << 60)) == []
    with pytest.raises(ConfigError, match="cannot be negative"):
        ByteBudget(-1)


def test_the_default_is_a_share_of_the_memory_that_may_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = machine_memory()
    assert whole > 1 << 28
    cpu = torch.device("cpu")
    assert default_limit([]) == min(whole // 4, ledger.CEILING)
    assert default_limit([cpu, cpu, torch.device("meta")]) == default_limit([])
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(ledger, "_LIMITS", (str(limit), str(tmp_path / "none")))
    limit.write_text("max\n")
    assert machine_memory() >= whole
    limit.write_text("1048576\n")
    assert machine_memory() == 1 << 20
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    assert default_limit([cpu]) == 1 << 17

    def cards(size: int) -> None:
        about = SimpleNamespace(total_memory=size)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: about)

    cards(1 << 30)
    assert default_limit([torch.device("cuda", 0), torch.device("cuda", 1)]) == 2 << 27
    cards(150 * 10**9)
    assert default_limit([torch.device("cuda", 0)]) == ledger.CEILING < 12e9


@given(
    limit=st.integers(0, 20),
    steps=st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 12), st.booleans()), max_size=40),
)
def test_the_limit_holds_and_all_is_accounted_for(limit: int, steps: list[tuple[str, int, bool]]) -> None:
    budget, alive = ByteBudget(limit), dict[str, int]()
    for name, size, give_up in steps:
        if give_up:
            budget.release(name)
            alive.pop(name, None)
            continue
        alive.pop(name, None)  # a charged key is released first
        if budget.charge(name, size, lambda name=name: alive.pop(name)):  # type: ignore[misc]
            alive[name] = size
        assert budget.used == sum(alive.values()) <= limit
        assert {key for key in "abcdef" if key in budget} == set(alive)
