"""Plots as data: what a check draws, without matplotlib."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One curve of a figure; ``style`` is matplotlib's format string."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    style: str = "-"


@dataclass(frozen=True)
class Panel:
    """One pair of axes; ``ticks`` names the points 0, 1, ... of the x axis."""

    title: str
    x: str
    y: str
    lines: tuple[Line, ...]
    log_x: bool = False
    log_y: bool = False
    ticks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figure:
    """Panels side by side, saved as ``<name>.png``."""

    name: str
    panels: tuple[Panel, ...]
