"""Tables and pages that are read off the code: components, settings, commands, modules."""

from __future__ import annotations

import dataclasses
import html
import importlib
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

from nabla.cli.commands import COMMANDS
from nabla.cli.listing import imported
from nabla.core.sampling import Sampling
from nabla.engine.engine import Engine
from nabla.launch.config.run import RunConfig
from nabla.launch.config.slots import SLOTS, slots
from nabla.refinement.dto import DTO
from nabla.study.ablation.config import AblationConfig
from nabla.study.ablation.factors import Factor
from nabla.study.evaluation.config import EvaluationConfig, TaskSetup

#: Modules of the reference, by page. What is not here is found in the source.
MODULES = {
    "front door": (
        "nabla.launch.reasoner", "nabla.launch.launcher", "nabla.core.prompt", "nabla.core.sampling",
    ),
    "solutions and costs": (
        "nabla.core.solution", "nabla.core.costs", "nabla.core.budget", "nabla.core.errors",
    ),
    "engine": ("nabla.engine.engine", "nabla.engine.session", "nabla.engine.reports"),
    "texts and models": (
        "nabla.core.trajectory", "nabla.models.causal_lm", "nabla.models.vocabulary", "nabla.rewards.loading",
        "nabla.models.runner",
    ),
    "refinement": (
        "nabla.refinement.dto", "nabla.methods.sweep", "nabla.methods.sources", "nabla.methods.steps",
        "nabla.methods.pools",
    ),
    "contract kit": (
        "nabla.testing", "nabla.testing.tiny", "nabla.testing.inputs", "nabla.testing.strategies",
    ),
}  # fmt: skip


def components(slot: str) -> str:
    """The registered components of a slot: name, what it does, arguments with their defaults, class."""
    lines = ["| name | what it does | arguments | class |", "|---|---|---|---|"]
    for part in imported(slot).components:
        if part.package == "nabla":
            first = part.doc.split("\n\n")[0]
            lines.append(
                f"| `{part.name}` | {_cell(plain(first))} | {_cell(_code(part.signature or ''))} | "
                f"{_breakable(part.home)} |"
            )
    return "\n".join(lines)


def _code(text: str) -> str:
    return f"`{text}`" if text.strip("()") else ""


def _breakable(path: str) -> str:
    """A dotted path that a narrow column breaks behind its dots, not within its names."""
    return f"<code class='path'>{path.replace('.', '.<wbr>')}</code>"


def _cell(text: str) -> str:
    """On one line, with bars that end no cell; in code a backslash before one would be shown."""
    line = " ".join(text.split())
    code = re.sub(r"`([^`]*)`", lambda found: _barred(found[1]) if "|" in found[1] else found[0], line)
    return code.replace("|", "&#124;")


def _barred(code: str) -> str:
    return f"<code>{html.escape(code).replace('|', '&#124;')}</code>"


def plain(text: str) -> str:
    """A docstring's text for a page: references to objects become code."""
    text = re.sub(r":\w+:`~?\.?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    return re.sub(r"``([^`]+)``", r"`\1`", text)


def settings(maker: Callable[..., Any], omit: Iterable[str] = ()) -> str:
    """The arguments of a class as a table: name, type, default, what it says of each."""
    said = arguments(inspect.getdoc(maker) or "")
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, parameter in inspect.signature(maker).parameters.items():
        if name in omit or parameter.kind is parameter.VAR_KEYWORD:
            continue
        meaning = plain(said.get(name, ""))
        kind = _cell(_code(_kind(parameter.annotation)))
        lines.append(f"| `{name}` | {kind} | {_default(maker, parameter)} | {_cell(meaning)} |")
    return "\n".join(lines)


def _kind(note: Any) -> str:
    text = note if isinstance(note, str) else getattr(note, "__name__", str(note))
    return text.replace("Any", "any")


def _default(maker: Any, parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return "required"
    value = parameter.default
    if dataclasses.is_dataclass(maker):
        own = {f.name: f for f in dataclasses.fields(maker)}.get(parameter.name)
        if own is not None and own.default_factory is not dataclasses.MISSING:
            value = own.default_factory()
    names = {"None": "null", "True": "true", "False": "false", "": '""'}
    return f"`{names.get(str(value), value)}`"


def arguments(doc: str) -> dict[str, str]:
    """What a docstring's "Args" say of each name; several names may share one entry."""
    found: dict[str, str] = {}
    current: tuple[str, ...] = ()
    inside = False
    for line in doc.splitlines():
        if not line.startswith(" ") and line.strip():
            inside = line.strip() == "Args:"
            continue
        match = re.match(r"    ([\w, *]+): (.*)", line) if inside else None
        if match:
            current = tuple(name.strip(" *") for name in match[1].split(","))
            for name in current:
                found[name] = match[2]
        elif inside:
            for name in current:
                found[name] += " " + line.strip()
    return found


def command(name: str) -> str:
    """A command's help."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog=f"nabla {name}", description=COMMANDS[name])
    importlib.import_module(f"nabla.cli.{name.replace('-', '_')}_command").add_arguments(parser)
    return f"## nabla {name}\n\n```text\n{parser.format_help().strip()}\n```\n"


def pages() -> dict[str, str]:
    """Path on the site → text, of the pages that are generated as a whole."""
    found = {
        "reference/commands.md": _commands(),
        "reference/components.md": _every(),
        "reference/solve.md": _run(),
        "reference/evaluate.md": _evaluation(),
        "reference/ablate.md": _ablation(),
    }
    for page, modules in MODULES.items():
        body = "\n\n".join(f"## {module}\n\n::: {module}" for module in modules)
        found[f"reference/python/{page.replace(' ', '-')}.md"] = f"# {page.capitalize()}\n\n{body}\n"
    return found


def _run() -> str:
    return "\n\n".join(
        [
            "# Settings of a run",
            "The keys of a file for `nabla solve --config FILE`, and of `--KEY VALUE` on the command line. "
            "`nabla show FILE` prints a file with every default.",
            settings(RunConfig),
            "## method: nabla-reasoner",
            "Other methods are in the [list of components](components.md#methods).",
            settings(slots()["methods"]["nabla-reasoner"]),
            "## method.dto: the inner loop",
            settings(DTO),
            "## method.sampling: how tokens are drawn",
            settings(Sampling),
            "## engine",
            settings(Engine, ("lm", "reward", "seed", "events", "budgets")),
        ]
    )


def _evaluation() -> str:
    return "\n\n".join(
        [
            "# Settings of an evaluation",
            "The keys of a file for `nabla evaluate FILE`; an example is [here](../recipes/evaluation.md).",
            settings(EvaluationConfig),
            "## tasks.LABEL",
            settings(TaskSetup),
        ]
    )


def _ablation() -> str:
    return "\n\n".join(
        [
            "# Settings of an ablation",
            "The keys of a file for `nabla ablate FILE`; an example is [here](../recipes/ablation.md).",
            settings(AblationConfig),
            plain(_rest(AblationConfig.of)),
            plain(_rest(AblationConfig.load)),
            "The keys of `base` are [an evaluation's](evaluate.md), with `method` in place of `methods`.",
            "## factors.NAME",
            plain(_rest(Factor.of)),
        ]
    )


def _rest(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").split("\n\nRaises")[0]


def _commands() -> str:
    intro = "# Commands\n\nAs `nabla COMMAND --help` prints them; a run's options are [here](solve.md).\n"
    return "\n".join([intro, *(command(name) for name in COMMANDS)])


def _every() -> str:
    parts = ["# Components\n\nAs `nabla list` prints them, slot by slot.\n"]
    parts += [f"## {slot}\n\n[What it is for](../slots/{slot}.md)\n\n{components(slot)}\n" for slot in SLOTS]
    return "\n".join(parts)
