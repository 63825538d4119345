"""``nabla models``: what can be named in place of a path, and how to get what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from nabla.cli.parsing import Call

if TYPE_CHECKING:
    from nabla.models.zoo.sizes import Size

#: Role → the class of transformers whose size counts.
CLASSES = {
    "policy": "AutoModelForCausalLM",
    "judge": "AutoModelForCausalLM",
    "reward": "AutoModelForSequenceClassification",
    "outcome": "AutoModelForSequenceClassification",
    "process": "AutoModelForTokenClassification",
    "process-reward": "AutoModelForTokenClassification",
}


@dataclass(frozen=True)
class Entry:
    """A model for people.

    Args:
        name: for ``--lm`` or ``--rm``.
        role: policy, judge, outcome, process.
        state: embedded, shipped, converted, installed or missing.
        about: what it is.
        parameters: weights.
        megabytes: of the weights in float32; half of it in bfloat16.
        megaflops: per token of a forward pass.
        get: the command that brings what is missing.
    """

    name: str
    role: str
    state: str
    about: str
    parameters: int
    megabytes: float
    megaflops: float
    get: str | None = None

    @classmethod
    def of(
        cls, name: str, role: str, state: str, about: str, size: Size, get: str | None = None
    ) -> Entry:
        """With the numbers of a size."""
        numbers = size.parameters, round(size.bytes() / 1e6, 1), round(size.flops / 1e6, 1)
        return cls(name, role, state, about, *numbers, get)


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--json", action="store_true", help="One JSON object per model.")


def run(call: Call) -> int:
    """Prints one line per model."""
    entries = [*published(), *adapters(), *embedded()]
    if call.options.json:
        for entry in entries:
            print(json.dumps(asdict(entry), ensure_ascii=False))
        return 0
    _show(entries)
    return 0


def published() -> Iterator[Entry]:
    """Models that packages of the index carry."""
    from nabla.models.zoo import PUBLISHED, cache_folder
    from nabla.models.zoo.cache import fault
    from nabla.models.zoo.sizes import Size, measure

    for model in PUBLISHED.values():
        folder, files = cache_folder() / model.name, model.find()
        kept = fault(folder) is None
        # With a tied head every weight is met once per token.
        size = measure(folder) if kept else Size(model.parameters, 2.0 * model.parameters)
        state = "converted" if kept else "installed" if files else "missing"
        get = None if state != "missing" else model.command
        yield Entry.of(model.name, "policy", state, model.about, size, get)


def adapters() -> Iterator[Entry]:
    """Adapters that ship with nabla: the size is that of base and adapter merged."""
    from nabla.models.zoo import ADAPTERS, PUBLISHED
    from nabla.models.zoo.sizes import Size

    bases = {entry.name: entry for entry in published()}
    for name, adapter in ADAPTERS.items():
        base, model = bases[adapter.root], PUBLISHED[adapter.root]
        headless = adapter.role in ("outcome", "process")
        flops = base.megaflops * 1e6 - 2.0 * model.head * headless
        size = Size(base.parameters, flops)
        about = f"{adapter.about} (adapter of {adapter.base})"
        yield Entry.of(name, adapter.role, "shipped", about, size, base.get)


def embedded() -> Iterator[Entry]:
    """The sandbox's."""
    from nabla.launch.config.run import SANDBOX
    from nabla.models.zoo.sizes import measure
    from nabla.problems.sandbox import MODELS, model_path

    for name, info in MODELS.items():
        size = measure(model_path(name), CLASSES[info.role])
        about = f"{info.family} problems" + ("" if info.quality == "full" else f", {info.quality}")
        yield Entry.of(SANDBOX + name, info.role, "embedded", about, size)


def _show(entries: list[Entry]) -> None:
    from rich.table import Table
    from rich.text import Text

    from nabla.core.console import make_console
    from nabla.models.zoo import cache_folder

    table = Table(box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for title in ("parameters", "MB (bfloat16)", "FLOPs a token"):
        table.add_column(title, justify="right", no_wrap=True)
    for entry in entries:
        digits = 0 if entry.megabytes >= 20 else 1
        memory = f"{entry.megabytes:,.{digits}f} ({entry.megabytes / 2:,.{digits}f})"
        weights, flops = f"{entry.parameters / 1e6:,.1f} M", f"{entry.megaflops:,.1f} M"
        table.add_row(entry.name, entry.state, weights, memory, flops)
    console = make_console()
    console.print(table)
    for entry in entries:
        if entry.state != "embedded":
            console.print(Text.assemble((entry.name, "bold"), f" ({entry.role}): {entry.about}"))
    missing: dict[str, Any] = {entry.get: None for entry in entries if entry.get}
    for command in missing:
        console.print(f"missing: {command}", highlight=False)
    console.print(f"converted models are kept in {cache_folder()}", style="dim", highlight=False)
