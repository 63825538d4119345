"""Coroutines that wait for nothing give their result at once, others an error."""

from __future__ import annotations

import asyncio

import pytest

from nabla.core.coroutines import Waiting, at_once


async def _answers(value: int) -> int:
    return value


async def _nested() -> int:
    return await _answers(3) + await _answers(4)


async def _needs_a_loop() -> int:
    await asyncio.sleep(0.001)
    return 1


async def _yields() -> int:
    await asyncio.sleep(0)
    return 1


async def _fails() -> int:
    raise RuntimeError("of its own")


def test_a_result_comes_at_once():
    assert at_once(_nested()) == 7


@pytest.mark.parametrize("waits", [_needs_a_loop, _yields])
def test_a_coroutine_that_waits_is_an_error(waits):
    with pytest.raises(Waiting):
        at_once(waits())


def test_its_own_error_is_its_own():
    with pytest.raises(RuntimeError, match="of its own") as caught:
        at_once(_fails())
    assert not isinstance(caught.value, Waiting)
