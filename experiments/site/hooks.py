"""What the build of the site does beside its plug-ins (``hooks`` in mkdocs.yml)."""

from __future__ import annotations

from typing import Any


def on_config(config: Any) -> Any:
    """Leaves out 404.html: its links begin at a server's root, so that it works neither from a folder nor
    below a path. A server has an error page of its own."""
    config.theme.static_templates.discard("404.html")
    return config
