"""What a part is given to look at stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nabla.core.errors import ConfigError
from nabla.core.trajectory import Trajectory


@contextmanager
def intact(who: object, *shown: Trajectory | torch.Tensor) -> Iterator[None]:
    """Raises ConfigError where a part has written into a tensor, or into the tokens, log-probabilities,
    entropies or top probabilities of a response that it was shown, after these are as they were before: they
    are values that others hold too."""
    kept = [(tensor, tensor.clone()) for part in shown for tensor in _tensors(part)]
    try:
        yield
    finally:
        written = False
        for tensor, before in kept:
            # NaNs are equal to nothing: only where something differs is a second look needed.
            if not torch.equal(tensor, before) and not torch.equal(_bits(tensor), _bits(before)):
                tensor.copy_(before)
                written = True
    if written:
        raise ConfigError(
            f"{type(who).__name__} writes into what it is given to look at",
            fix="Clone a tensor before changing it: trajectory.tokens.clone().",
        )


def _tensors(shown: Trajectory | torch.Tensor) -> list[torch.Tensor]:
    if isinstance(shown, torch.Tensor):
        return [shown]
    found = [shown.tokens, shown.log_probs]
    if shown.states is not None:
        found += [shown.states.entropy, shown.states.top1]
    return found


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """Comparable where there are NaNs too."""
    return tensor.nan_to_num(nan=-1e30) if tensor.is_floating_point() else tensor
