"""How many threads torch takes on the CPU.

A second thread pays where a matrix product is large enough to be cut: it halves the time of a model of a
hundred million weights. The products of the embedded models take less time than waking a thread and waiting
for it; beside other work on the machine the waiting is most of the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from nabla.models.body import Body

#: Weights of the largest model from which on a second thread pays (``experiments/benchmarks/threads.py``;
#: figures in its README).
LARGE = 20_000_000


def threads_for(bodies: Iterable[Body]) -> int | None:
    """Threads that pay for these models: 1 for small ones on the CPU; None where torch's own number stands,
    for a large one, or one on another device."""
    found = list(bodies)
    if not found or any(body.device.type != "cpu" for body in found):
        return None
    return None if max(body.parameters for body in found) >= LARGE else 1


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """So many threads within; None leaves them as they are."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count is not None:
            torch.set_num_threads(before)
