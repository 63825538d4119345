"""The picture of the loop: one drawing for all slots, each lit up by its name (``loop.svg#selectors``).

``python -m experiments.site.picture`` writes docs/pictures/loop.svg.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

PICTURE = Path(__file__).parents[2] / "docs" / "pictures" / "loop.svg"
WIDTH, HEIGHT, TOP = 880, 380, 48


@dataclass(frozen=True)
class Box:
    """A slot in the drawing: its place, and what it says there."""

    slot: str
    label: str
    x: int
    y: int
    width: int = 112
    height: int = 36


#: What encloses others comes first. The rest is in the order of a step.
BOXES = (
    Box("methods", "method: how a problem is answered", 150, 62, 560, 298),
    Box("tasks", "task", 8, 120, 92),
    Box("answers", "answers", 780, 120, 92),
    Box("rollouts", "rollout", 180, 110),
    Box("boundaries", "boundary", 180, 162, 112, 28),
    Box("screens", "screen", 180, 196, 112, 28),
    Box("selectors", "selector", 330, 110),
    Box("moves", "move", 330, 162, 112, 28),
    Box("objectives", "objective", 480, 110, 200, 28),
    Box("estimators", "estimator", 480, 142, 96, 28),
    Box("anchors", "anchor", 584, 142, 96, 28),
    Box("rows", "rows", 480, 174, 96, 28),
    Box("parameterizations", "parameter", 584, 174, 96, 28),
    Box("schedulers", "scheduler", 480, 206, 200, 28),
    Box("proposals", "proposal", 480, 270, 200, 36),
    Box("rewards", "reward", 330, 270),
    Box("acceptance", "acceptance", 180, 270),
    Box("callbacks", "callbacks hear of every event", 150, 380, 560, 32),
)

#: From, to, and what goes along; points of a path.
ARROWS = (
    ("M100,138 H178", "prompt", 125, 131),
    ("M292,128 H328", "text", 310, 121),
    ("M442,128 H478", "place", 460, 121),
    ("M580,234 V268", "row", 594, 256),
    ("M480,288 H444", "text′", 462, 281),
    ("M330,288 H294", "r, r′", 312, 281),
    ("M236,270 V226", "next", 252, 252),
    ("M710,138 H778", "answer", 744, 131),
)

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1b2733; text-anchor: middle; }
.small { font-size: 11px; fill: #51606f; }
.outer text { text-anchor: start; }
rect { fill: #f4f6f8; stroke: #8896a4; stroke-width: 1.2; rx: 6px; }
.paper { fill: #ffffff; stroke: none; }
.outer rect { fill: #fbfcfd; stroke-dasharray: 5 4; }
path { fill: none; stroke: #51606f; stroke-width: 1.4; marker-end: url(#head); }
g:target > rect { fill: #ffd166; stroke: #b45309; stroke-width: 2.4; }
g:target > text { font-weight: 700; }
.outer:target > rect { fill: #fff3d6; }
"""


def drawing() -> str:
    """The SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 {TOP} {WIDTH} {HEIGHT}" role="img">',
        "<title>The loop of a solve and the slots in it</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0,0 L8,4 L0,8 z" style="fill:#51606f;stroke:none"/></marker></defs>',
        f'<rect class="paper" y="{TOP}" width="{WIDTH}" height="{HEIGHT}"/>',
    ]
    parts += [_box(box) for box in BOXES]
    parts += [
        f'<path d="{line}"/><text class="small" x="{x}" y="{y}">{escape(label)}</text>'
        for line, label, x, y in ARROWS
    ]
    inner = '<text class="small" x="580" y="102">refinement (DTO)</text>'
    loop = '<text class="small" x="430" y="340">one position after another, until the text is final</text>'
    return "\n".join([*parts, inner, loop, "</svg>", ""])


def _box(box: Box) -> str:
    outer = box.slot in ("methods", "callbacks")
    x, y = (box.x + 14, box.y + 21) if outer else (box.x + box.width // 2, box.y + box.height // 2 + 5)
    kind = ' class="outer"' if outer else ""
    return (
        f'<g id="{box.slot}"{kind}>'
        f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}"/>'
        f'<text x="{x}" y="{y}">{escape(box.label)}</text></g>'
    )


if __name__ == "__main__":
    PICTURE.write_text(drawing(), encoding="utf-8")
