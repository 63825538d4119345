"""Packages that only some features need: asked for by one message where one is missing.

``pip install nabla-reasoner`` brings what ``nabla solve`` needs. Everything else is an extra
(``nabla-reasoner[eval]``). A package of an extra is imported in the function that uses it, behind
:func:`require_extra`.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

from nabla.core.errors import ConfigError

#: Extra → the packages it brings, by the names that they are imported under.
EXTRAS = {
    "eval": ("scipy", "statsmodels", "optuna", "matplotlib", "datasets", "math_verify"),
    "theory": ("scipy", "ot", "matplotlib"),
    "loggers": ("tensorboard", "wandb"),
    "gguf": ("gguf",),
    "gym": ("reasoning_gym",),
    "train": ("trl", "datasets"),
    "sentiment": ("vaderSentiment",),
    "testing": ("hypothesis",),
}


def require_extra(extra: str, *packages: str, purpose: str) -> None:
    """Raises ConfigError, with the command that installs them, unless packages of an extra are there.

    Args:
        extra: key of :data:`EXTRAS`.
        packages: those that are needed, all of the extra's by default.
        purpose: what needs them, the beginning of the message: "Figures", "nabla theory".
    """
    missing = [name for name in packages or EXTRAS[extra] if not installed(name)]
    if missing:
        raise ConfigError(
            f"Not installed: {', '.join(missing)}. {purpose} cannot do without",
            fix=f"Run: pip install 'nabla-reasoner[{extra}]'.",
        )


def installed(package: str) -> bool:
    """Whether a package can be found; it is not imported."""
    if package in sys.modules:
        return sys.modules[package] is not None
    found = find_spec(package)
    return found is not None and found.origin is not None  # a mere folder of that name has no origin
