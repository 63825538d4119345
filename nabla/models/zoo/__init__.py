"""Models by name: what installed packages carry, converted once, and the adapters that ship with nabla."""

from __future__ import annotations

from nabla.models.zoo.cache import cache_folder, converted
from nabla.models.zoo.catalogue import ADAPTERS, PUBLISHED, Adapter, Published
from nabla.models.zoo.names import NAMES, is_name, place, prepare

__all__ = [
    "ADAPTERS",
    "NAMES",
    "PUBLISHED",
    "Adapter",
    "Published",
    "cache_folder",
    "converted",
    "is_name",
    "place",
    "prepare",
]
