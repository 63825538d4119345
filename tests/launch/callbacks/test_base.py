"""Hooks are declared, a misspelt one is an error, and events reach those who listen."""

from __future__ import annotations

import pytest

from nabla.core.costs import Cost
from nabla.core.errors import ConfigError, NumericalError
from nabla.core.prompt import Prompt
from nabla.core.solution import Solution
from nabla.engine.events import Callback, Events
from nabla.launch.callbacks.base import callbacks
from tests.strategies import PROMPT, make_trajectory

SOLUTION = Solution(Prompt.of("?"), "4", (4,), 1.0, True, "greedy", Cost())
HOOKS = [name for name in dir(Callback) if name.startswith("on_")]


def test_a_misspelt_hook_is_an_error():
    with pytest.raises(ConfigError, match=r"hook that nothing calls \(got 'on_acept'\)") as caught:

        class Misspelt(Callback):
            def on_acept(self, prompt, old, new, position):
                pass

    assert "Did you mean 'on_accept'?" in str(caught.value)
    assert ", ".join(HOOKS) in str(caught.value)


def test_a_misspelt_hook_of_a_subclass_of_a_subclass():
    class Fine(Callback):
        def on_accept(self, prompt, old, new, position):
            pass

    with pytest.raises(ConfigError, match="on_commmit"):

        class Misspelt(Fine):
            def on_commmit(self, prompt, trajectory):
                pass


def test_other_methods_and_attributes_are_free():
    class Counter(Callback):
        count = 0

        def only(self):
            return self.count

    assert Counter().only() == 0


def test_hooks_do_nothing():
    assert Callback().on_solution(SOLUTION) is None
    assert Callback().on_commit(PROMPT, make_trajectory()) is None
    assert Events().on_exception(PROMPT, NumericalError("NaN")) is None


class Recorder(Callback):
    """Notes two kinds of events."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def on_solution(self, solution):
        self.log.append((self.name, "solution", solution))

    def on_exception(self, prompt, error):
        self.log.append((self.name, "exception", error))


def test_events_reach_every_listener_in_order():
    log = []
    events = Events([Recorder("first", log), Callback(), Recorder("second", log)])
    events.on_solution(SOLUTION)
    assert log == [("first", "solution", SOLUTION), ("second", "solution", SOLUTION)]
    error = NumericalError("NaN")
    events.on_exception(PROMPT, error=error)
    assert log[2:] == [("first", "exception", error), ("second", "exception", error)]
    for name in HOOKS:
        assert callable(getattr(events, name))


def test_hears_says_whether_anybody_listens():
    events = Events([Callback(), Recorder("only", [])])
    assert {hook for hook in HOOKS if events.hears(hook)} == {"on_solution", "on_exception"}
    assert not any(Events().hears(hook) for hook in HOOKS)


def test_a_hook_set_on_an_instance_counts():
    log = []
    callback = Callback()
    callback.on_solution = log.append
    events = Events([callback])
    assert events.hears("on_solution")
    events.on_solution(SOLUTION)
    assert log == [SOLUTION]


def test_events_pass_a_callbacks_own_error_on():
    class Broken(Callback):
        def on_solution(self, solution):
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        Events([Broken()]).on_solution(SOLUTION)


def test_callbacks_are_a_slot():
    assert callbacks.base is Callback


def test_a_misspelt_hook_in_a_mixin_is_an_error_too():
    class Mixin:
        def on_rolout(self, prompt, trajectory):
            pass

    with pytest.raises(ConfigError, match="on_rollout"):

        class Mixed(Mixin, Callback):
            pass
