"""The models that ship with the package: names, families, roles and where they lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nabla.core.errors import require_one_of

Role = Literal["policy", "reward", "process-reward"]
Quality = Literal["full", "weak", "poor"]
Target = Literal["marks", "verdict", "success"]

_ROOT = Path(__file__).parent / "models"


@dataclass(frozen=True)
class ModelInfo:
    """One shipped model.

    `role` decides how it is loaded: "policy" with `AutoModelForCausalLM`, "reward" with
    `AutoModelForSequenceClassification`, "process-reward" with `AutoModelForTokenClassification`.
    `target` is what a reward was told in training: the checker's "marks" at every token (no error yet), the
    "verdict" at the last one alone, or the "success" of the policy's own continuations of each prefix.
    """

    name: str
    family: str
    role: Role
    quality: Quality
    target: Target = "marks"


#: Rewards with a body of their own: of verdicts alone, and of the policy's successes.
_OWN_BODY: dict[str, tuple[Role, Quality, Target]] = {
    "latin-outcome-only": ("reward", "full", "verdict"),
    "arithmetic-outcome-only": ("reward", "poor", "verdict"),
    "latin-success": ("process-reward", "full", "success"),
    "arithmetic-success": ("process-reward", "poor", "success"),
}


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
    for name, (role, quality, target) in _OWN_BODY.items():
        found[name] = ModelInfo(name, name.partition("-")[0], role, quality, target)
    return found


#: Every shipped model by name.
MODELS: dict[str, ModelInfo] = _listing()


def model_path(name: str) -> Path:
    """The folder of a shipped model, to be given to `from_pretrained`."""
    require_one_of(name, MODELS, "There is no sandbox model of this name", "Known names")
    return _ROOT / name
