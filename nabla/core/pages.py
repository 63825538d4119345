"""Solutions as pages. A room above makes them; ``nabla/__init__.py`` says which, so that nothing here imports
it."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from nabla.core.errors import ConfigError
from nabla.core.files import reason, replace_whole

#: First line of every page: what may be written over.
MARK = "<!doctype html><!-- a page of nabla -->"
#: "module:function" that makes a page of solutions.
_maker = ""


def made_by(place: str) -> None:
    """Says who makes pages: ``module:function``, imported when the first one is asked for."""
    global _maker
    _maker = place


def render(solutions: Sequence[Any]) -> str:
    """The page of some :class:`~nabla.core.solution.Solution`. Raises ConfigError where nobody makes one."""
    module, _, name = _maker.partition(":")
    if not module:
        raise ConfigError("Nobody has said who makes pages", fix="Import nabla first.")
    make: Callable[[Sequence[Any]], str] = getattr(import_module(module), name)
    return make(solutions)


def write(solutions: Sequence[Any], path: Path) -> Path:
    """The same to a file, and the file. Raises ConfigError; see :func:`save`."""
    return save(render(solutions), path)


def save(page: str, path: Path) -> Path:
    """Writes a page. Raises ConfigError for a file that is there and no page, or that cannot be written."""
    require_page(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_whole(path, page)
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error
    return path


def require_page(path: Path) -> None:
    """Raises ConfigError for anything at that place but a page of before."""
    try:
        if not path.exists() and not path.is_symlink():
            return
        if path.is_file():
            with path.open("rb") as file:
                if file.read(len(MARK)) == MARK.encode():
                    return
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error
    raise ConfigError(
        "There is something already that is no page of nabla", got=str(path), fix="Choose another file."
    )


def _unwritable(path: Path, error: Exception) -> ConfigError:
    why = f"The page cannot be written: {reason(error)}"
    return ConfigError(why, got=str(path), fix="Choose another file.")


class Page:
    """A page that a notebook shows in a frame of its own."""

    def __init__(self, page: str, height: int = 640) -> None:
        self.page, self.height = page, height

    def _repr_html_(self) -> str:
        source = html.escape(self.page, quote=True)
        style = f"width:100%;height:{self.height}px;border:1px solid #8888;border-radius:6px"
        return f'<iframe srcdoc="{source}" style="{style}" sandbox="allow-scripts"></iframe>'
