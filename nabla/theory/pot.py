"""POT, imported quietly: its sources raise warnings when Python compiles them for the first time."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import ot

__all__ = ["ot"]
