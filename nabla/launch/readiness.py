"""Whether a run can work, as far as that shows before a model is loaded, which may take minutes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nabla.core.errors import ConfigError, located
from nabla.core.quiet import main_process, slurm_tasks
from nabla.core.trajectory import Score
from nabla.core.trust import require_trusted
from nabla.engine.engine import Engine, require_settings
from nabla.launch.config.run import RunConfig, locate, placed
from nabla.launch.launcher import make_fabric, require_precision
from nabla.methods.base import Method
from nabla.models.causal_lm import CausalLM
from nabla.models.checkpoint import require_checkpoint
from nabla.rewards.base import Response, Reward, rewards

if TYPE_CHECKING:
    from nabla.models.runner import Runner


def require_ready(config: RunConfig) -> None:
    """Raises ConfigError or ModelError for whatever cannot run: settings, devices, models that are not there,
    a method that lacks a reward."""
    require_trusted(vars(config))
    require_precision(config.precision)
    fabric = make_fabric(
        accelerator=config.accelerator,
        devices=config.devices,
        strategy=config.strategy,
        num_nodes=config.num_nodes,
    )
    if fabric.world_size == 1 and slurm_tasks() > 1 and not main_process():
        raise ConfigError(
            f"srun has started {slurm_tasks()} processes, and the run is one process, the first",
            got=f"devices={config.devices!r}",
            fix="Take as many devices as tasks; for a run of each task's own unset SLURM_NTASKS in it.",
        )
    with located("engine"):
        require_settings(**config.engine)
    require_models(config.lm, config.lm_arguments, config.rm, config.rm_arguments)
    require_parts(config.build_method(), config.rm)


def require_models(
    lm: str | None, lm_arguments: Mapping[str, Any], rm: Any, rm_arguments: Mapping[str, Any]
) -> None:
    """Raises ModelError for models that are not there, and for a reward model as language model."""
    if lm is not None:
        require_checkpoint(locate(lm), lm_arguments, role="language model", writes=True)
    for path, own in placed(rm):
        require_checkpoint(locate(path), {**rm_arguments, **own}, role="reward model")


def require_parts(method: Method, rm: Any) -> None:
    """Raises ConfigError where a method needs a reward, or a differentiable one, and ``rm`` names none.

    A check that looks at more than the reward waits for the models.
    """
    engine: Any = object.__new__(Engine)  # one that has nothing but what is known already
    engine.lm, engine.reward = object.__new__(CausalLM), prospect(rm)
    try:
        method.check(engine)
    except AttributeError:  # of the engine: said once there are models
        return


class Prospect(Reward):
    """Stands for a reward that is not loaded yet."""

    def __init__(self, differentiable: bool, has_values: bool) -> None:
        self._differentiable, self._has_values = differentiable, has_values

    @property
    def differentiable(self) -> bool:
        return self._differentiable

    @property
    def has_values(self) -> bool:
        return self._has_values

    def score(self, responses: Sequence[Response], runner: Runner) -> list[Score]:
        raise AttributeError(f"{len(responses)} responses, and no reward for {runner} to run yet")


def prospect(rm: Any) -> Reward | None:
    """What a reward's specification promises; one that is loaded already is itself."""
    if rm is None or isinstance(rm, Reward):
        return rm
    if not isinstance(rm, Mapping):
        return Prospect(not callable(rm), not callable(rm))
    if "members" in rm:
        members = [prospect(member) for member in rm["members"]]
        known = [member for member in members if member is not None]
        return Prospect(all(m.differentiable for m in known), all(m.has_values for m in known))
    if "reward" in rm:
        return prospect(rm["reward"])
    cls: Any = rewards[str(rm.get("name", "outcome"))]
    differentiable = getattr(cls, "differentiable", True) is not Reward.differentiable
    own = any(getattr(cls, name, None) is not getattr(Reward, name) for name in ("values", "has_values"))
    return Prospect(differentiable, own)
