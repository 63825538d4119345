"""Docstrings name things by roles (``:meth:`solve```); on the site they are code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Docstring, Extension, Object

_ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):`~?([^`]+)`")


def plain(text: str) -> str:
    """A docstring with roles as code; of a dotted name in ``~`` form the last part alone is told."""
    return _ROLE.sub(lambda found: f"`{found[1].rpartition('.')[2] if '~' in found[0] else found[1]}`", text)


class Roles(Extension):
    """What mkdocstrings reads docstrings with."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Each object's docstring, before it is parsed."""
        if isinstance(obj.docstring, Docstring):
            obj.docstring.value = plain(obj.docstring.value)
