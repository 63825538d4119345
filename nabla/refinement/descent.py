"""The optimiser's step, with optional Langevin noise: shared by DTO and the theory checks."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nabla.core.errors import ConfigError
from nabla.schedulers.base import Schedule, Step, as_schedule

#: Optimisers whose step is the same number by number: rows of several problems can share one parameter.
ELEMENTWISE = frozenset(
    ("Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD")
)
#: Optimisers with a fused implementation on CPU and CUDA.
FUSED = frozenset(("Adam", "AdamW", "SGD"))


class Descent:
    """Any optimiser of ``torch.optim`` under a learning-rate schedule, plus optional noise.

    With SGD and ``langevin=1`` a step is the Euler-Maruyama step of
    ``dx = -∇L dt + √2 dW`` (arXiv 2603.04948, Theorem 4.1) with dt = η.

    Args:
        optimizer: name of a class of ``torch.optim``.
        arguments: for its constructor, without the learning rate.
        learning_rate: η, a number or schedule; the paper's is cosine from 0.01 to 0.001.
        langevin: temperature of the noise ``sqrt(2 η · temperature) ξ`` added after each step; 0 is none.
    """

    def __init__(
        self,
        optimizer: str = "AdamW",
        arguments: dict[str, Any] | None = None,
        learning_rate: float | Schedule | str | dict[str, Any] = "cosine",
        langevin: float | Schedule | str | dict[str, Any] = 0.0,
    ) -> None:
        self.optimizer = optimizer
        self.arguments = dict(arguments or {})
        if optimizer == "AdamW":
            self.arguments.setdefault("weight_decay", 0.0)  # decay would pull logits towards uniform
        self.learning_rate = as_schedule(learning_rate, "learning_rate")
        self.langevin = as_schedule(langevin, "langevin")
        # One kernel instead of a dozen, where the user has not chosen an implementation.
        chosen = {"fused", "foreach", "capturable", "differentiable"} & set(self.arguments)
        if optimizer in FUSED and not chosen:
            self.arguments["fused"] = True
        if self.langevin.bounds[0] < 0:
            raise ConfigError("langevin is a temperature and must be >= 0", got=langevin)
        if self.learning_rate.bounds[0] < 0:
            raise ConfigError("learning_rate must be >= 0 at every step", got=learning_rate)
        self._try()  # what cannot work fails here, not after a rollout

    def _try(self) -> None:
        """A step of a parameter of one number. Raises ConfigError for an optimiser that cannot take it."""
        parameter = torch.zeros(1, requires_grad=True)
        optimizer = self.start(parameter)
        if self.arguments.get("capturable"):  # a matter of GPUs, which may not be here
            return
        try:
            self.move(optimizer, parameter, torch.ones(1), Step())
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"torch.optim.{self.optimizer} takes no step along a gradient that is given: {error}",
                got=self.optimizer,
                fix="Choose another one, e.g. AdamW or SGD.",
            ) from error

    @property
    def elementwise(self) -> bool:
        """Whether the rows of several problems may be one parameter."""
        return self.optimizer in ELEMENTWISE

    @property
    def noisy(self) -> bool:
        """Whether :meth:`shake` can do anything."""
        return self.langevin.bounds[1] > 0

    def start(self, parameter: Float[Tensor, "*shape"]) -> torch.optim.Optimizer:
        """A fresh optimiser of ``parameter``: all state of a run.

        Raises ConfigError for an unknown optimiser or wrong arguments.
        """
        cls = getattr(torch.optim, self.optimizer, None)
        if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)):
            names = sorted(
                name
                for name, value in vars(torch.optim).items()
                if isinstance(value, type) and issubclass(value, torch.optim.Optimizer)
            )
            raise ConfigError(
                "Unknown optimizer", got=self.optimizer, fix=f"torch.optim has {', '.join(names)}."
            )
        try:
            made: torch.optim.Optimizer = cls(  # type: ignore[call-arg]
                [parameter], lr=self.learning_rate(Step()), **self.arguments
            )
        except (TypeError, ValueError) as error:
            raise ConfigError(f"torch.optim.{self.optimizer}: {error}", got=self.arguments) from error
        return made

    def step(
        self,
        optimizer: torch.optim.Optimizer,
        parameter: Float[Tensor, "*shape"],
        gradient: Float[Tensor, "*shape"],
        step: Step,
        generator: torch.Generator,
    ) -> None:
        """Moves ``parameter`` in place against ``gradient``, then adds noise."""
        self.move(optimizer, parameter, gradient, step)
        self.shake(parameter, step, generator)

    def move(
        self,
        optimizer: torch.optim.Optimizer,
        parameter: Float[Tensor, "*shape"],
        gradient: Float[Tensor, "*shape"],
        step: Step,
    ) -> None:
        """The optimiser's part of a step."""
        rate = self.learning_rate(step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        parameter.grad = gradient
        optimizer.step()

    @torch.no_grad()
    def shake(self, parameter: Float[Tensor, "*shape"], step: Step, generator: torch.Generator) -> None:
        """The noise's part: in place, on all of a parameter or on one problem's rows."""
        temperature = self.langevin(step)
        if temperature > 0:
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            scale = math.sqrt(2 * self.learning_rate(step) * temperature)
            parameter += scale * noise.to(parameter.device)
