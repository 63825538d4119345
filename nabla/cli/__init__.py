"""The command line ``nabla``. Each command is a module; only the one that is asked for is imported."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from nabla.core.errors import NablaError

#: Exit status of everything that went wrong in a way the user can mend.
FAILURE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status: 0, or 2 with one message on standard error."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from nabla.cli.parsing import parse, told

    try:
        call = parse(given)
        command = importlib.import_module(f"nabla.cli.{call.command}_command")
        from nabla.core.quiet import one_voice, quiet

        with quiet(debug), one_voice():
            status: int = command.run(call)
    except NablaError as error:
        return _fail(told(error, given), debug)
    except KeyboardInterrupt:
        return _fail("Interrupted", debug)
    except BrokenPipeError:  # the reader has seen enough (``nabla list | head``)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as stop:  # the parser has said what is wrong, or printed its help
        return stop.code if isinstance(stop.code, int) else 0
    return status


def _fail(message: str, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"nabla: error: {message}", file=sys.stderr)
    return FAILURE
