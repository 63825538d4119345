"""A budget of bytes that several owners share: what was used least recently gives way."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from nabla.core.errors import ConfigError

#: Of an accelerator's memory, and of the machine's: what may be kept between requests by default. An eighth
#: of 80 GB holds 64 problems of 512 tokens with a 7B and a 4B model (experiments/benchmarks/README.md).
ACCELERATOR_SHARE, MACHINE_SHARE = 1 / 8, 1 / 4
#: Bytes of one device at most: on a large one the rest is of more use to batches.
CEILING = 11 * 10**9
#: Where a container says what it may use: version 2 of control groups, version 1.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class ByteBudget:
    """Counts the bytes of what is kept between requests and lets the least recently used go.

    An engine has one (``runner.store.budget``). Blocks of the prefix store are charged to it; whoever else
    keeps something large between requests charges it to the same one::

        kept = budget.charge(("graph", text), size, drop=lambda: graphs.pop(text, None))

    ``charge`` makes room first. If it says False there is no room and nothing was charged: the owner must
    not keep the thing. Later ``drop`` is called, once, when the bytes are needed for something else: it must
    let go of the last reference, and may ``release`` other keys. ``touch`` on every use; ``release`` when the
    owner lets go by itself (``drop`` is not called then). Keys of different owners must differ: begin them
    with a word.

    What is dropped is computed again by whoever needs it, and counted there.

    Args:
        limit: bytes; 0 keeps nothing, None everything.

    Attributes ``used`` and ``peak`` are bytes, ``dropped`` counts calls of ``drop``.
    """

    def __init__(self, limit: int | None = None) -> None:
        if limit is not None and limit < 0:
            raise ConfigError("A budget of bytes cannot be negative", got=limit, fix="Use 0 to keep nothing.")
        self.limit = limit
        self.used = self.peak = self.dropped = 0
        #: Bytes and drop of each key, least recently used first.
        self._entries: OrderedDict[Hashable, tuple[int, Callable[[], None]]] = OrderedDict()
        self._held: set[Hashable] = set()
        self._held_bytes = self._holding = 0

    def __contains__(self, key: Hashable) -> bool:
        return key in self._entries

    def charge(self, key: Hashable, size: int, drop: Callable[[], None]) -> bool:
        """Charges ``size`` bytes as the most recently used; whether there was room for it.

        A key that is charged already is released first. Nothing is dropped for what cannot fit anyway.
        """
        self.release(key)
        if self.limit is not None:
            if size > self.limit - self._held_bytes:
                return False
            while self.used + size > self.limit:
                self._drop_one()
        self._entries[key] = (size, drop)
        self.used += size
        self.peak = max(self.peak, self.used)
        self._hold(key)
        return True

    def touch(self, key: Hashable) -> None:
        """Marks a key as the most recently used; nothing if it is not charged (any more)."""
        if key in self._entries:
            self._entries.move_to_end(key)
            self._hold(key)

    def release(self, key: Hashable) -> None:
        """Takes the bytes of a key off, without ``drop``; nothing if it is not charged (any more)."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.used -= entry[0]
            if key in self._held:
                self._held.remove(key)
                self._held_bytes -= entry[0]

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Keeps what is charged or touched inside until the end of the block: parts of one whole do not push
        each other out."""
        self._holding += 1
        try:
            yield
        finally:
            self._holding -= 1
            if not self._holding:
                self._held.clear()
                self._held_bytes = 0

    def _hold(self, key: Hashable) -> None:
        if self._holding and key not in self._held:
            self._held.add(key)
            self._held_bytes += self._entries[key][0]

    def _drop_one(self) -> None:
        key = next(key for key in self._entries if key not in self._held)
        _, drop = self._entries[key]
        self.release(key)
        self.dropped += 1
        drop()


def default_limit(devices: Iterable[torch.device]) -> int:
    """Bytes: a share of the memory of these devices, each below a ceiling; the machine's is divided among a
    run's processes."""
    total = 0.0
    for device in {d for d in devices if d.type != "meta"} or {torch.device("cpu")}:
        if device.type in ("cpu", "mps"):
            group = torch.distributed
            processes = group.get_world_size() if group.is_available() and group.is_initialized() else 1
            total += min(MACHINE_SHARE * machine_memory(), CEILING) / processes
        else:
            memory = torch.get_device_module(device).get_device_properties(device).total_memory
            total += min(ACCELERATOR_SHARE * memory, CEILING)
    return int(total)


def machine_memory() -> int:
    """Bytes that this process may use: the machine's, or its container's limit."""
    found = [8 << 30]  # where nothing tells
    with suppress(AttributeError, OSError, ValueError):
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _LIMITS:
        with suppress(OSError, ValueError):  # "max" is none
            found.append(int(Path(path).read_text(encoding="ascii")))
    return min(found)
