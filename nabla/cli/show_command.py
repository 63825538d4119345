"""``nabla show``."""

from __future__ import annotations

import sys

import yaml
from jsonargparse import ArgumentParser

from nabla.cli.parsing import Call, load_config


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("file", help="Configuration (YAML), as for 'nabla solve --config'.")


def run(call: Call) -> int:
    """Prints what would run. Raises ConfigError for whatever could not."""
    config = load_config(call.options.file).changed(call.changes)
    yaml.safe_dump(config.resolved(), sys.stdout, sort_keys=False, allow_unicode=True)
    return 0
