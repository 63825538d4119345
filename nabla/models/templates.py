"""Which chat template is meant: a name, a file, or itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nabla.core.errors import ConfigError
from nabla.core.files import decode, expanded, parse_json, read_bytes

#: ``chat_template`` for base models: contents joined by newlines, one newline behind them, no roles.
PLAIN = "plain"
#: ``chat_template`` for base models: the contents as they are, nothing between them and nothing behind.
RAW = "raw"


def find_template(tokenizer: Any, template: str | None) -> str | None:
    """The template that is meant: its text, ``"plain"``, ``"raw"``, or None for the tokenizer's own.

    Raises ConfigError for what is no template, no name of one and no file.
    """
    if template is None or template in (PLAIN, RAW):
        return template
    own = getattr(tokenizer, "chat_template", None)
    if isinstance(own, Mapping) and template in own:
        return str(own[template])
    if "{{" in template or "{%" in template:
        return template
    named = f"{', '.join(map(repr, own))}, " if isinstance(own, Mapping) else ""
    path = expanded(template)
    try:
        text = decode(read_bytes(path))
        if path.suffix == ".json":
            text = parse_json(text)["chat_template"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"The chat template is no Jinja template, and no file to read one from ({error})",
            got=template,
            fix=f"Use {named}'plain', 'raw', a file (.jinja, or tokenizer_config.json) or a Jinja template.",
        ) from error
    if not isinstance(text, str) or not ("{{" in text or "{%" in text):
        raise ConfigError("The chat template's file holds no Jinja template", got=template)
    return text
