"""``nabla list``."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable
from typing import Any

from jsonargparse import ArgumentParser

from nabla.cli.parsing import Call
from nabla.core.errors import ConfigError


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("slot", nargs="?", default=None, help="One slot, with its components' arguments.")


def run(call: Call) -> int:
    """Prints one line per component, with the package it comes from. Raises ConfigError."""
    from rich.text import Text

    from nabla.core.console import make_console
    from nabla.launch.config.slots import slots

    wanted = call.options.slot
    if wanted is not None and wanted not in slots():
        near = difflib.get_close_matches(wanted, slots(), n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise ConfigError("Unknown slot", got=wanted, fix=f"{hint}Slots: {', '.join(slots())}.")
    console = make_console()
    chosen = slots() if wanted is None else {wanted: slots()[wanted]}
    for slot, registry in chosen.items():
        about = (inspect.getdoc(inspect.getmodule(registry.base)) or "").splitlines()
        console.print(Text.assemble((slot, "bold"), f"  {about[0] if about else ''}"))
        width = max((len(name) for name in registry), default=0)
        for name in registry:
            cls = registry[name]
            package = cls.__module__.partition(".")[0]
            source = "" if package == "nabla" else f"  [{package}]"
            line = ("  ", (name.ljust(width), "cyan"), f"  {_sentence(cls)}", (source, "dim"))
            console.print(Text.assemble(*line))
            if wanted is not None:
                console.print(Text(f"  {'':{width}}  {_signature(cls)}", style="dim"))
    return 0


def _sentence(cls: Callable[..., Any]) -> str:
    """The first sentence of a class's or recipe's docstring."""
    paragraph = " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())
    return re.split(r"\. (?=[A-Z`])", paragraph)[0].removesuffix(".")  # not at "Eq. 2"


def _signature(cls: Callable[..., Any]) -> str:
    parameters = inspect.signature(cls).parameters.values()
    return ", ".join(str(p.replace(annotation=p.empty)) for p in parameters) or "no arguments"
