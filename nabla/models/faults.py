"""What to make of an error while models run: whether it may pass, what to tell, how to go on."""

from __future__ import annotations

import gc

import torch

from nabla.core.errors import ComponentError, NablaError


def exhausted(error: BaseException) -> bool:
    """Whether memory has run out: fewer rows at a time may fit."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError)


def may_pass(error: BaseException) -> bool:
    """Whether the same call may succeed later: memory, the runtime, the system; not what nabla itself or a
    component has found wrong."""
    return exhausted(error) or isinstance(error, RuntimeError | OSError)


def told(error: BaseException, what: str) -> NablaError:
    """What a user is told: one sentence, and what to do.

    Args:
        error: as it came.
        what: was running.
    """
    if exhausted(error):
        return NablaError(
            "The device is out of memory",
            got=(str(error).splitlines() or [""])[0],
            fix="Lower batch_size or live, shorten max_new_tokens, or use a smaller dtype.",
        )
    return error if isinstance(error, NablaError) else ComponentError.of(error, what)


def free_memory() -> None:
    """Lets go of what a failed attempt has left: frames that refer to each other, the allocator's blocks."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
