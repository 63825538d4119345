"""What a failed check raises, and a law that does not hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nabla.core.errors import NablaError


class ContractError(NablaError):
    """A component breaks a law of its slot.

    Args:
        component: its name and class.
        law: the law's name, as ``laws=[...]`` takes it.
        text: what the law says, and its source.
        reason: what was seen.
        example: the shrunk inputs as Python code; empty for a law without inputs.
        reproduce: calls that show it again.
    """

    def __init__(
        self,
        component: str,
        law: str,
        text: str,
        reason: str,
        *,
        example: Mapping[str, str] | None = None,
        reproduce: tuple[str, ...] = (),
    ) -> None:
        self.component, self.law, self.text, self.reason = component, law, text, reason
        self.example, self.reproduce = dict(example or {}), reproduce
        lines = [f"{component} breaks the law '{law}': {reason}", f"  law:       {text}"]
        for i, (name, value) in enumerate(self.example.items()):
            lines.append(f"  {'example:' if i == 0 else '        '}   {name} = {value}")
        for i, call in enumerate(reproduce):
            lines.append(f"  {'reproduce:' if i == 0 else '       or:'} {call}")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.component, self.law, self.text, self.reason, self.example, self.reproduce)


def _restore(
    component: str, law: str, text: str, reason: str, example: dict[str, str], reproduce: tuple[str, ...]
) -> ContractError:
    return ContractError(component, law, text, reason, example=example, reproduce=reproduce)


class Violation(AssertionError):
    """What a law raises where it does not hold."""


def require(condition: object, reason: str) -> None:
    """Raises Violation unless ``condition`` is true."""
    if not bool(condition):
        raise Violation(reason)
