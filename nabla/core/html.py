"""Small tables for notebooks; everything is escaped."""

from __future__ import annotations

import html
from collections.abc import Collection, Mapping, Sequence

_STYLE = "border-collapse:collapse;font-variant-numeric:tabular-nums"
_CELL = "padding:2px 10px;border-bottom:1px solid #8884"
_MARKED = "background:#5aa7f055;text-decoration:underline;text-underline-offset:2px"


def escape(text: object) -> str:
    """As text."""
    return html.escape(str(text), quote=True)


def table(head: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "") -> str:
    """A table, its first column to the left, all others to the right."""

    def line(cells: Sequence[object], tag: str) -> str:
        sides = ("left", *["right"] * (len(cells) - 1))
        made = (
            f'<{tag} style="text-align:{side};{_CELL}">{escape(cell)}</{tag}>'
            for side, cell in zip(sides, cells, strict=True)
        )
        return f"<tr>{''.join(made)}</tr>"

    over = f'<caption style="text-align:left;font-weight:600">{escape(caption)}</caption>' if caption else ""
    body = "".join(line(row, "td") for row in rows)
    top = f"<thead>{line(head, 'th')}</thead>" if head else ""
    return f'<table style="{_STYLE}">{over}{top}<tbody>{body}</tbody></table>'


def card(title: str, facts: Mapping[str, object]) -> str:
    """A name and some facts."""
    rows = "".join(
        f'<tr><td style="text-align:left;opacity:.7;{_CELL}">{escape(name)}</td>'
        f'<td style="text-align:left;{_CELL}">{escape(value)}</td></tr>'
        for name, value in facts.items()
    )
    return f'<div style="font-weight:600">{escape(title)}</div><table style="{_STYLE}">{rows}</table>'


def box(text: str) -> str:
    """A text that keeps its line breaks; ``text`` is HTML."""
    style = "white-space:pre-wrap;font-family:monospace;border-left:3px solid #8886"
    return f'<div style="{style};padding:4px 10px;margin:6px 0">{text}</div>'


def marked(pieces: Sequence[str], chosen: Collection[int]) -> str:
    """Pieces of a text, those at chosen places told by colour and underline."""
    return "".join(
        f'<span style="{_MARKED}">{escape(piece)}</span>' if i in chosen else escape(piece)
        for i, piece in enumerate(pieces)
    )

