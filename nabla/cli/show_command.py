"""``nabla show``."""

from __future__ import annotations

import sys

from jsonargparse import ArgumentParser

from nabla.cli.parsing import Call, load_config
from nabla.cli.terminal import as_data
from nabla.launch.config.reader import dump

#: Of a run's options, those that this command takes.
RUN_OPTIONS = ("method",)


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("file", help="Configuration (YAML), as for 'nabla solve --config'.")


def run(call: Call) -> int:
    """Prints what would run. Raises ConfigError for whatever could not."""
    from nabla.launch.config.presets import changed

    config = changed(load_config(call.options.file), call.changes)
    text = dump(config.resolved())
    as_data()
    sys.stdout.write(text)
    return 0
