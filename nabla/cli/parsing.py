"""Arguments → a call: the options of a run by the reader of configurations, all others by jsonargparse.

The options of a run come from :class:`~nabla.launch.config.run.RunConfig`'s signature and may go to any depth
(``--method.dto.steps 3``). A command says in ``RUN_OPTIONS`` which of them it takes. Those of ``--method``
are laid over the configuration's method, since a method's arguments depend on which one it is.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse import ArgumentParser, Namespace, set_loader

import nabla
from nabla.cli.commands import COMMANDS
from nabla.core.errors import ConfigError, NablaError
from nabla.core.registry import argument_hints
from nabla.launch.config.reader import conform, load, parse_option, put
from nabla.launch.config.run import RunConfig

N = TypeVar("N", int, float)

METHOD_HELP = (
    "Registered name of the method; --method.ARGUMENT VALUE changes an argument, nested ones too "
    "(--method.dto.estimator gumbel-softmax --method.dto.steps 10). With another name the arguments "
    "that both methods have are kept."
)
#: Every option of a run, and the file that may hold them.
RUN = ("config", *(f.name for f in fields(RunConfig)))


@dataclass(frozen=True)
class Call:
    """A parsed command line.

    Args:
        command: name.
        options: values of the command's own arguments.
        values: of the run's options, without changes to the method.
        changes: to the method.
        arguments: as they were given.
    """

    command: str
    options: Namespace
    values: dict[str, Any]
    changes: dict[str, Any] | str | None
    arguments: tuple[str, ...]

    @property
    def config(self) -> RunConfig:
        """The run's configuration before changes to the method. Raises ConfigError."""
        return RunConfig.of(self.values)


def parse(arguments: Sequence[str]) -> Call:
    """Raises SystemExit as argparse does, and ConfigError for options of a run that cannot be read."""
    wanted = next((a for a in arguments if not a.startswith("-")), None)
    command = importlib.import_module(f"nabla.cli.{wanted}_command") if wanted in COMMANDS else None
    taken = getattr(command, "RUN_OPTIONS", ())
    rest, values, changes = take_options(arguments, taken)
    set_loader("nabla", parse_option, (ConfigError,))
    parser = ArgumentParser(
        prog="nabla",
        description="Test-time gradient descent on text (∇-Reasoner).",
        version=nabla.__version__,
    )
    parser.add_argument("--debug", action="store_true", help="Show tracebacks and warnings.")
    parser.add_argument(
        "--allow-code", action="store_true", help="Let settings run code: reward functions, models with code."
    )
    commands = parser.add_subcommands(dest="command")
    for name, summary in COMMANDS.items():
        own = ArgumentParser(description=summary, parser_mode="nabla")
        if name == wanted:
            command.add_arguments(own)  # type: ignore[union-attr]
            if {"-h", "--help"} & {*rest}:
                _describe(own, taken)
        commands.add_subcommand(name, own, help=summary)
    found = parser.parse_args(rest)
    return Call(found.command, found[found.command], values, changes, tuple(arguments))


def _describe(parser: ArgumentParser, taken: Collection[str]) -> None:
    """The options of a run, for ``--help`` alone: they are taken out before this parser sees them."""
    if "config" in taken:
        parser.add_argument("--config", type=str | None, help="YAML file with any of these options.")
        parser.add_class_arguments(RunConfig, skip={"method", *RUN} - ({*taken} - {"method"}))
    if "method" in taken:
        parser.add_argument("--method", type=str | dict[str, Any], default="nabla-reasoner", help=METHOD_HELP)


def load_config(path: str | Path) -> RunConfig:
    """A configuration from a YAML file. Raises ConfigError."""
    return RunConfig.of(load(path))


def take_options(
    arguments: Sequence[str], taken: Collection[str]
) -> tuple[list[str], dict[str, Any], dict[str, Any] | None]:
    """(other arguments, values of a run's options, changes to the method): later options come before earlier
    ones, and all of them before the file's, wherever it stands. Raises ConfigError."""
    rest: list[str] = []
    values: dict[str, Any] = {}
    given: list[tuple[list[str], Any]] = []
    changes: dict[str, Any] = {}
    queue = list(arguments)
    while queue and queue[0] != "--":
        option, equals, text = queue.pop(0).partition("=")
        keys = option.removeprefix("--").split(".")
        if not option.startswith("--") or keys[0] not in taken:
            rest.append(option + equals + text)
            continue
        if not equals and (not queue or queue[0].startswith("--")):
            raise ConfigError(f"{option} needs a value")
        text = text if equals else queue.pop(0)
        if keys == ["config"]:
            values |= load(text)
            continue
        try:
            value = parse_option(text, argument_hints(RunConfig)[keys[0]] if len(keys) == 1 else Any)
        except ConfigError as error:
            raise ConfigError(f"The value of {option} cannot be read: {error.what}", got=text) from error
        if keys == ["method"] and isinstance(value, str | dict):  # an argument that was given before stays
            named = {"name": value} if isinstance(value, str) else value
            value = {**changes.get("method", {}), **named}
        elif keys == ["method"]:
            raise ConfigError("--method takes a name or a dict", got=text)
        if keys[0] == "method":
            put(changes, keys, value)
        else:
            given.append((keys, value))
    for keys, value in given:  # over the file's
        put(values, keys, value, "path")
    return [*rest, *queue], values, changes.get("method")


def require_left_out(options: Any, names: Sequence[str], of: str, instead: str) -> None:
    """Raises ConfigError for options that belong to what is not there, a task say.

    Args:
        options: of the call.
        names: those options, as they are written but for the two dashes.
        of: what they belong to.
        instead: what to pass for them to mean something.
    """
    for name in names:
        value = options[name.replace("-", "_")]
        if value is not None:
            raise ConfigError(
                f"--{name} is of {of}, and there is none",
                got=value,
                fix=f"Pass {instead}, or leave out --{name}.",
            )


def numbers(option: str, given: Any, kind: type[N]) -> list[N]:
    """Numbers with commas between them, one number, or a list. Raises ConfigError."""
    parts = given if isinstance(given, list) else str(given).split(",")
    try:
        return [conform(kind, parse_option(str(part).strip())) for part in parts]
    except ConfigError as error:
        whole = "whole " if kind is int else ""
        raise ConfigError(f"{option} takes {whole}numbers with commas between them", got=given) from error


def told(error: NablaError, arguments: Sequence[str]) -> str:
    """The message, in which an entry that an option gave is called by the option."""
    message, path = str(error), error.path or ""
    inner = message.removeprefix(f"{path}: ")
    entry = inner.partition(" ")[0]
    for argument in arguments:
        option = argument.partition("=")[0]
        given = option.removeprefix("--")
        if given != option and (given == entry or given.endswith(f".{entry}")):
            return f"{option}{inner.removeprefix(entry)}"
        if given != option and path and (path == given or path.startswith(f"{given}.")):
            return f"--{message}" if message.startswith(path) else message
    return message
