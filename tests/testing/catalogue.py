"""Where wrong components are listed: each with the law that must catch it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Mutant:
    """A wrong component, the law that must catch it, and what is passed to the check besides."""

    make: Any
    law: str
    check: str
    arguments: tuple[tuple[str, Any], ...] = ()


MUTANTS: dict[str, Mutant] = {}


def caught_by(law: str, check: str, **arguments: Any):
    def add(make: Any) -> Any:
        assert make.__name__ not in MUTANTS, f"two mutants are called {make.__name__}"
        MUTANTS[make.__name__] = Mutant(make, law, check, tuple(arguments.items()))
        return make

    return add
