"""Settings that run code: a configuration from elsewhere may name them, so the command line asks first.

In Python the caller's own code is running already, and nothing is asked. The command line lets them through
with ``--allow-code`` alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from nabla.core.errors import ConfigError

_allowed: ContextVar[bool] = ContextVar("allowed", default=True)


@contextmanager
def code_allowed(allowed: bool) -> Iterator[None]:
    """Whether settings may run code within."""
    token = _allowed.set(allowed)
    try:
        yield
    finally:
        _allowed.reset(token)


def require_trusted(values: Any, path: str = "") -> None:
    """Raises ConfigError for a setting in plain data that runs code, where that is not allowed.

    Args:
        values: arguments for loading models, or a reward's specification; looked through to any depth.
        path: their key path.
    """
    if _allowed.get():
        return
    if isinstance(values, list | tuple):
        for number, entry in enumerate(values):
            require_trusted(entry, f"{path}.{number}")
    if not isinstance(values, Mapping):
        return
    for key, value in values.items():
        place = f"{path}.{key}" if path else str(key)
        what = _code(str(key), value)
        if what is not None:
            trusted = "Pass --allow-code if you trust where the configuration is from."
            raise ConfigError(what, got=value, fix=trusted).at(place)
        require_trusted(value, place)


def _code(key: str, value: Any) -> str | None:
    """What a setting would run; None if it is data."""
    if (key == "function" and isinstance(value, str)) or (key == "metric" and ":" in str(value)):
        return "The function would be imported and run, and that was not allowed"
    if key == "trust_remote_code" and value not in (False, None):
        return "Code that came with the model would run, and that was not allowed"
    if key == "weights_only" and value is not None and not value:
        return "Weights that are pickled may run code, and that was not allowed"
    if (key == "attn_implementation" and "/" in str(value)) or (key == "use_kernels" and value):
        return "Kernels from the hub would be loaded and run, and that was not allowed"
    return None
