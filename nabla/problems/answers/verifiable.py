"""What math-verify needs done to an answer before it is asked, and what it passes over."""

from __future__ import annotations

import re
from fractions import Fraction

from nabla.problems.answers.notation import number
from nabla.problems.answers.units import CHANGING

#: Longest decimal number, in places, that a product is written as; a fraction otherwise.
PLACES = 500

_TEXT = re.compile(r"\\(?:text\w*|mbox|mathrm)\s*\{([^{}]*)\}")
_NOT = re.compile(r"\\(?:neq?|not)(?![a-zA-Z])|≠|!=")
_ANGLE = re.compile(r"([0-9.]+)\s*(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ)|°)")
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")


def times(value: str, factor: Fraction | int) -> str:
    """An answer's value times a number; a decimal number stays one where it can, for it may be rounded."""
    plain = number(value)
    product = Fraction(factor) * (1 if plain is None else plain)
    sign, above, below = "-" if product < 0 else "", abs(product.numerator), product.denominator
    places = next((n for n in range(PLACES) if 10**n % below == 0), None) if "." in value else None
    if below == 1:
        written = f"{sign}{above}"
    elif places is not None and plain is not None:
        digits = str(above * 10**places // below).zfill(places + 1)
        written = f"{sign}{digits[:-places]}.{digits[-places:]}"
    else:
        written = f"{sign}\\frac{{{above}}}{{{below}}}"
    return written if plain is not None else f"{written} \\cdot ({value})"


def radians(answer: str) -> str:
    """Angles of trigonometric functions as math-verify needs them."""
    if not _TRIGONOMETRIC.search(answer):
        return answer
    return _ANGLE.sub(r"{\\frac{\1 \\pi}{180}}", answer)


def qualifiers(answer: str) -> frozenset[str]:
    """What math-verify passes over although it changes the meaning."""
    found = {"not"} if _NOT.search(answer) else set()
    for text in _TEXT.findall(answer):
        text = text.casefold().strip()
        if text not in ("or", "and"):  # math-verify reads these as a set
            found.update(CHANGING.findall(text))
            if re.search("[0-9]", text) and re.search("[a-z]", text):
                found.add(text)
    return frozenset(found)
