"""``nabla list``."""

from __future__ import annotations

import re

from jsonargparse import ArgumentParser

from nabla.cli.parsing import Call
from nabla.core.errors import require_one_of
from nabla.launch.config.slots import SLOTS


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "slot", nargs="?", default=None, help="One slot, with its components' arguments and classes."
    )


def run(call: Call) -> int:
    """Prints one line per component, with the package it comes from. Raises ConfigError."""
    from rich.text import Text

    from nabla.cli.listing import imported, listing
    from nabla.core.console import make_console

    wanted = call.options.slot
    if wanted is not None:
        require_one_of(wanted, SLOTS, "Unknown slot", "Slots")
    console = make_console()
    for slot in SLOTS if wanted is None else [wanted]:
        found = listing(slot) if wanted is None else imported(slot)
        console.print(Text.assemble((slot, "bold"), f"  {found.about.partition(chr(10))[0]}"))
        width = max((len(component.name) for component in found.components), default=0)
        for component in found.components:
            source = "" if component.package == "nabla" else f"  [{component.package}]"
            name = (component.name.ljust(width), "cyan")
            console.print(Text.assemble("  ", name, f"  {_sentence(component.doc)}", (source, "dim")))
            if wanted is not None:
                console.print(Text(f"  {'':{width}}  {component.signature}", style="dim"))
                console.print(Text(f"  {'':{width}}  {component.home}", style="dim"))
    return 0


def _sentence(doc: str) -> str:
    """The first sentence of a docstring."""
    paragraph = " ".join(doc.split("\n\n")[0].split())
    return re.split(r"\. (?=[A-Z`])", paragraph)[0].removesuffix(".")  # not at "Eq. 2"
