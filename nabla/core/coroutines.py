"""Coroutines that have nothing to wait for."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Waiting(RuntimeError):
    """A coroutine waits for something; the cause is the error of one that needs an event loop for it."""


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing. Raises Waiting if it does."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        found: T = stop.value
        return found
    except RuntimeError as error:
        if "no running event loop" not in str(error):
            raise
        raise Waiting("It needs an event loop") from error
    coroutine.close()
    raise Waiting("It waits for something that nobody here can give")
