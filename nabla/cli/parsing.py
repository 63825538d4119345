"""Arguments → a call: jsonargparse for everything that has a fixed name, changes to the method apart.

The options of a run come from :class:`~nabla.launch.config.run.RunConfig`'s signature. A method's own
arguments depend on which method it is, so ``--method``, ``--method.dto.steps`` and the like are taken out
first and laid over the configuration's method afterwards.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

import nabla
from nabla.cli.commands import COMMANDS
from nabla.core.errors import ConfigError
from nabla.launch.config.run import RunConfig

METHOD_HELP = (
    "Registered name of the method; --method.ARGUMENT VALUE changes an argument, nested ones too "
    "(--method.dto.estimator gumbel-softmax --method.dto.steps 10). With another name the arguments "
    "that both methods have are kept."
)


@dataclass(frozen=True)
class Call:
    """A parsed command line.

    Args:
        command: name.
        options: values of the command's arguments.
        changes: to the method.
        arguments: as they were given.
    """

    command: str
    options: Namespace
    changes: dict[str, Any] | str | None
    arguments: tuple[str, ...]

    @property
    def config(self) -> RunConfig:
        """The run's configuration before changes to the method."""
        values = {f.name: getattr(self.options, f.name) for f in fields(RunConfig)}
        return RunConfig.of({**values, **_plain(values)})


def parse(arguments: Sequence[str]) -> Call:
    """Raises SystemExit as argparse does, and ConfigError for a malformed method option."""
    wanted = next((a for a in arguments if not a.startswith("-")), None)
    rest, changes = list(arguments), None
    if wanted in COMMANDS:
        rest, changes = take_method(arguments)
    parser = ArgumentParser(
        prog="nabla",
        description="Test-time gradient descent on text (∇-Reasoner).",
        version=nabla.__version__,
    )
    parser.add_argument("--debug", action="store_true", help="Show tracebacks and warnings.")
    commands = parser.add_subcommands(dest="command")
    for name, summary in COMMANDS.items():
        own = ArgumentParser(description=summary)
        if name == wanted:
            importlib.import_module(f"nabla.cli.{name}_command").add_arguments(own)
        commands.add_subcommand(name, own, help=summary)
    found = parser.parse_args(rest)
    return Call(found.command, found[found.command], changes, tuple(arguments))


def add_run_arguments(parser: ArgumentParser) -> None:
    """``--config`` and every option of a run."""
    parser.add_argument("--config", action="config", help="YAML file with any of these options.")
    parser.add_class_arguments(RunConfig, skip={"method"})
    parser.add_argument("--method", type=str | dict[str, Any], default="nabla-reasoner", help=METHOD_HELP)


def load_config(path: str | Path) -> RunConfig:
    """A configuration from a YAML file. Raises ConfigError."""
    parser = ArgumentParser(exit_on_error=False)
    add_run_arguments(parser)
    try:
        with redirect_stderr(io.StringIO()):
            found = parser.parse_path(str(path))
    except (ArgumentError, TypeError, OSError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"The configuration cannot be read: {reason}",
            got=str(path),
            fix=f"Its keys are {', '.join(f.name for f in fields(RunConfig))}.",
        ) from error
    return Call("", found, None, ()).config


def take_method(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any] | str | None]:
    """(other arguments, changes to the method)."""
    rest: list[str] = []
    changes: dict[str, Any] = {}
    queue = list(arguments)
    while queue:
        argument = queue.pop(0)
        if argument == "--":
            rest += [argument, *queue]
            break
        option, equals, value = argument.partition("=")
        if option != "--method" and not option.startswith("--method."):
            rest.append(argument)
            continue
        if not equals:
            if not queue:
                raise ConfigError(f"{option} needs a value")
            value = queue.pop(0)
        keys = option.removeprefix("--method").strip(".").split(".")
        parsed = _value(value, option)
        if keys == [""]:
            if isinstance(parsed, str):
                parsed = {"name": parsed}
            if not isinstance(parsed, dict):
                raise ConfigError("--method takes a name or a dict", got=value)
            changes.update(parsed)
        else:
            _put(changes, keys, parsed)
    return rest, changes or None


def _put(tree: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for key in keys[:-1]:
        below = tree.get(key)
        if isinstance(below, str):  # --method.dto.estimator NAME, then an argument of it
            below = {"name": below}
        tree[key] = tree = below if isinstance(below, dict) else {}
    tree[keys[-1]] = value


def _value(text: str, option: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"The value of {option} cannot be read: {error}", got=text) from error
    if isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Dicts without jsonargparse's Namespaces; nested texts of dict options read as YAML values."""
    return {
        name: {key: _read(entry) for key, entry in value.items()}
        for name, value in values.items()
        if isinstance(value, dict) and name != "method"
    }


def _read(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _read(entry) for key, entry in value.items()}
    if isinstance(value, str) and value in ("true", "false", "null"):
        return yaml.safe_load(value)
    if isinstance(value, str) and value.lstrip("-").isdigit() and len(value) < 7:
        return int(value)
    return value
