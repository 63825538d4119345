"""The command line ``nabla``. Each command is a module; only the one that is asked for is imported."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence

from nabla.core.errors import NablaError, is_out_of_memory

#: Exit status of everything that went wrong in a way the user can mend.
FAILURE = 2
#: A signal's number is added to it, as shells do: 130 for Ctrl-C, 143 for SIGTERM.
SIGNALLED = 128
#: Commands that go on where they were stopped when they are given again, word for word.
RESUMED = ("evaluate", "ablate")
#: Commands that take the options of a run; others read them from a file.
OPTIONS = ("solve", "compare", "demo", "diagnose", "bench")
#: Options of every command, and of none: they may stand anywhere before ``--``.
EVERYWHERE = ("--debug", "--allow-code")


def program() -> int:
    """The program ``nabla``: :func:`main`, without a traceback for Ctrl-C before and behind it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where a shell ignores it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    return main()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status: 0, 2 with one message on standard error, or 128
    and the number of the signal that ended it, with a message likewise."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    end = given.index("--") if "--" in given else len(given)
    switches = {argument for argument in given[:end] if argument in EVERYWHERE}
    given = [argument for argument in given[:end] if argument not in EVERYWHERE] + given[end:]
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from nabla.cli.terminal import outputs, signals

    with outputs() as out:
        debug = "--debug" in switches
        try:
            with signals():
                status = _run(given, debug, "--allow-code" in switches)
        except KeyboardInterrupt as stop:  # while another end was told
            status = _interrupted(stop, given, debug)
        out.flush()
        if out.lost is None or isinstance(out.lost, BrokenPipeError):  # the reader has seen enough
            return status
        return _fail(f"Standard output took not everything: {out.lost.strerror}", False)


def _run(given: Sequence[str], debug: bool, allow_code: bool) -> int:
    from nabla.core.files import is_full
    from nabla.core.quiet import main_process, one_voice, quiet
    from nabla.core.solution import Interrupted
    from nabla.core.trust import code_allowed

    try:
        from nabla.cli.parsing import parse

        call = parse(given)
        command = importlib.import_module(f"nabla.cli.{call.command}_command")
        with quiet(debug), one_voice(), code_allowed(allow_code):
            status: int = command.run(call)
    except NablaError as error:
        stopped = isinstance(error, Interrupted) and isinstance(error.__cause__, KeyboardInterrupt)
        if stopped and not main_process():  # the first one tells it
            return _signalled(error.__cause__)
        return _fail(_said(error, given), debug, _signalled(error.__cause__) if stopped else FAILURE)
    except KeyboardInterrupt as stop:
        return _interrupted(stop, given, debug)
    except SystemExit as stop:  # the parser has said what is wrong, or printed its help
        if stop.code:
            _hint(given)
        return stop.code if isinstance(stop.code, int) else 0
    except OSError as error:
        if is_full(error):
            return _fail(f"{error}. Make room and run this again: what was finished is kept", debug)
        return _fail(f"The system refuses: {error}", debug)
    except Exception as error:
        if is_out_of_memory(error):
            return _fail(f"The memory is not enough: {error}", debug)
        said = f"{type(error).__name__}: {error}"
        return _fail(f"A bug of nabla or of a component: {said}. With --debug it says where.", debug)
    return status


def _said(error: NablaError, given: Sequence[str]) -> str:
    """The message in the words of the command line."""
    from nabla.cli.parsing import told
    from nabla.cli.words import spoken

    message = told(error, given)
    cause = error.__cause__
    if isinstance(cause, KeyboardInterrupt) and str(cause):  # a signal
        message = f"{message} ({cause})"
    # What the user has written stays as it is; only the advice is put in other words.
    fix = error.fix or ""
    said = spoken(fix, options=_command(given) in OPTIONS, about=message)
    return message.replace(fix, said) if fix else message


def _command(given: Sequence[str]) -> str:
    """The command that a line gives; empty where there is none."""
    return next((a for a in given if not a.startswith("-")), "")


def _fail(message: str, debug: bool, status: int = FAILURE) -> int:
    if debug:
        traceback.print_exc()
    print(f"nabla: error: {message}", file=sys.stderr)
    return status


def _interrupted(stop: KeyboardInterrupt, given: Sequence[str], debug: bool) -> int:
    """One word for all processes of a run, by the first one."""
    from nabla.core.quiet import main_process

    if not main_process():
        return _signalled(stop)
    said = f"Interrupted ({stop})" if str(stop) else "Interrupted"
    if _command(given) in RESUMED:
        said = f"{said}. What was finished is kept: the same command goes on from there."
    return _fail(said, debug, _signalled(stop))


def _signalled(stop: BaseException | None) -> int:
    """Exit status of a run that a signal ended."""
    from nabla.cli.terminal import Terminated

    return SIGNALLED + (stop.number if isinstance(stop, Terminated) else signal.SIGINT)


def _hint(given: Sequence[str]) -> None:
    """A prompt such as -5+3 looks like an option."""
    prompts = [a for a in given[1:] if a.startswith("-") and not a.startswith("--") and a != "-h"]
    if given and given[0] == "solve" and prompts and "--" not in given:
        print(
            f"nabla: a prompt that begins with a dash goes behind --: nabla solve -- '{prompts[0]}'",
            file=sys.stderr,
        )
