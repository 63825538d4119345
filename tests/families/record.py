"""What a test of a family found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from nabla.core.errors import NablaError
from tests.families.compare import TOLERANCE
from tests.families.table import Row


def parameters(families: Iterable[Any]) -> list[Any]:
    """Test cases; those that do not always run are marked."""
    return [
        pytest.param(
            family,
            id=getattr(family, "label", family.name),
            marks=() if family.fast else pytest.mark.families,
        )
        for family in families
    ]


def checked(row: Row, refused: str | None, deviations: Callable[[], dict[str, float]]) -> Row:
    """The row of a family that does what is expected of it; an assertion fails otherwise."""
    if refused is not None:
        with pytest.raises(NablaError, match=refused) as caught:
            deviations()
        return replace(row, why=caught.value.what)
    found = deviations()
    cached = bool(found.pop("cached"))
    assert max(found.values()) <= TOLERANCE, found
    return replace(row, off=max(found.values()), cached=cached)
