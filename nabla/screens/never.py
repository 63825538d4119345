"""Every text is written to its end."""

from __future__ import annotations

from collections.abc import Sequence

from nabla.screens.base import Screen, screens


@screens.register("never")
class Never(Screen):
    """No text is stopped."""

    @property
    def reads_values(self) -> bool:
        return False

    def first_bad(self, values: Sequence[float], held: float | None) -> int | None:
        return None
