"""The models that ship with the package: names, families, roles and where they lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nabla.core.errors import require_one_of

Role = Literal["policy", "reward", "process-reward"]
Quality = Literal["full", "weak", "poor"]

_ROOT = Path(__file__).parent / "models"


@dataclass(frozen=True)
class ModelInfo:
    """One shipped model.

    `role` decides how it is loaded: "policy" with `AutoModelForCausalLM`, "reward" with
    `AutoModelForSequenceClassification`, "process-reward" with `AutoModelForTokenClassification`.
    """

    name: str
    family: str
    role: Role
    quality: Quality


def _listing() -> dict[str, ModelInfo]:
    kinds: list[tuple[Role, Quality]] = [
        ("policy", "full"),
        ("policy", "weak"),
        ("policy", "poor"),
        ("reward", "full"),
        ("reward", "weak"),
        ("reward", "poor"),
        ("process-reward", "full"),
    ]
    found: dict[str, ModelInfo] = {}
    for family in ("latin", "arithmetic"):
        for role, quality in kinds:
            name = f"{family}-{role}" + ("" if quality == "full" else f"-{quality}")
            found[name] = ModelInfo(name, family, role, quality)
    return found


#: Every shipped model by name.
MODELS: dict[str, ModelInfo] = _listing()


def model_path(name: str) -> Path:
    """The folder of a shipped model, to be given to `from_pretrained`."""
    require_one_of(name, MODELS, "There is no sandbox model of this name", "Known names")
    return _ROOT / name
