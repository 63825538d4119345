"""Shared fixtures. Shape annotations are checked at run time in tests (jaxtyping with beartype)."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from jaxtyping import install_import_hook

import tests.typecheck  # noqa: F401  (the hook looks the checker up by name)

install_import_hook("nabla", "tests.typecheck.check")  # before anything imports nabla

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

settings.register_profile(
    "nabla", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("nabla")
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def latin_lm():  # type: ignore[no-untyped-def]
    """The shipped Latin-square policy."""
    from nabla.models.causal_lm import CausalLM
    from nabla.problems.sandbox import model_path

    return CausalLM.from_pretrained(str(model_path("latin-policy")), device="cpu")


@pytest.fixture(scope="session")
def latin_rm():  # type: ignore[no-untyped-def]
    """The shipped Latin-square outcome reward."""
    from nabla.problems.sandbox import model_path
    from nabla.rewards.outcome import OutcomeReward

    return OutcomeReward.from_pretrained(str(model_path("latin-reward")), device="cpu")


@pytest.fixture(scope="session")
def latin_prompts():  # type: ignore[no-untyped-def]
    """Six held-out Latin squares."""
    from nabla.core.prompt import Prompt
    from nabla.problems.sandbox import TASKS

    return [Prompt.of(p.prompt, id=p.id) for p in TASKS["latin"].problems("test", 6, 0)]
