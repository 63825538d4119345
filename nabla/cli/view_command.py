"""``nabla view``."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser

from nabla.cli.parsing import Call
from nabla.core.errors import ConfigError


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "run", help="Folder of a 'nabla solve' (best one with --trace), or the file of a trace."
    )
    parser.add_argument("other", nargs="?", default=None, help="Another run, shown beside it.")
    parser.add_argument("--output", type=str | None, default=None, help="The page: one HTML file.")


def run(call: Call) -> int:
    """Writes the page. Raises ConfigError."""
    from nabla.cli.storage import require_named
    from nabla.core import pages
    from nabla.launch.view.page import of_runs

    options = call.options
    if options.output is None:
        raise ConfigError("A page needs a file to be written to", fix="Name one: --output page.html.")
    require_named(options.output, "Name a file: --output page.html.")
    output = Path(options.output)
    pages.require_page(output)
    places = [Path(place) for place in (options.run, options.other) if place is not None]
    pages.save(of_runs(places), output)
    print(f"{output} ({output.stat().st_size / 1e6:.1f} MB): open it in a browser")
    return 0
