"""Where the kit takes hypothesis from: says what to install without it."""

from __future__ import annotations

from nabla.core.errors import ConfigError

try:
    import hypothesis
    from hypothesis import strategies as st
except ImportError as error:
    raise ConfigError(
        "The contract kit and its strategies need hypothesis, which is not installed",
        fix="Run: pip install 'nabla-reasoner[testing]'.",
    ) from error

__all__ = ["hypothesis", "st"]
