r"""How one answer may be written in several ways: numbers, texts, numerals, lists, labels.

Only the writing is looked at here, nothing is computed; every function takes and gives text.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

from nabla.problems.answers.extraction import stripped
from nabla.problems.answers.units import FUNCTIONS

#: Brackets nested deeper than this are not taken apart.
DEEPEST = 8

_SPACE = re.compile(
    r"(?<!\\)\\(?:[,;: ]|q?quad(?![a-zA-Z])|enspace(?![a-zA-Z])|thinspace(?![a-zA-Z]))|~|\\!\s*"
)
#: Commands that only change the size of brackets.
SIZE = re.compile(r"\\(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])\s*(?:\.(?![0-9]))?")
_RAISED = re.compile(r"(?<=[A-Za-z]{2})[²³]|(?<= m)[²³]")  # of units; alone they may be anything
_ROOT = re.compile(r"√\s*(?:([0-9]+|[A-Za-z])|\(([^()]*)\))")
_SIGNS = {
    "−": "-",
    "–": "-",
    "×": "\\times ",
    "·": "\\cdot ",
    "⋅": "\\cdot ",
    "÷": "\\div ",
    "±": "\\pm ",
    "≤": "\\le ",
    "≥": "\\ge ",
    "≠": "\\ne ",
    "≈": "\\approx ",
    "∞": "\\infty ",
    "∪": "\\cup ",
    "∩": "\\cap ",
    "∈": "\\in ",
    "∅": "\\emptyset ",
    "π": "\\pi ",
    "∴": "\\therefore ",
    "⇒": "\\Rightarrow ",
    "ℝ": "\\mathbb{R}",
    "θ": "\\theta ",
}
_THUS = re.compile(
    r"^(?:\\(?:therefore|implies|Rightarrow|Longrightarrow|rightarrow|to|quad)(?![a-zA-Z])\s*)+"
)
_UPRIGHT = re.compile(r"\\mathrm\s*\{\s*([eid])\s*\}")
_INLINE = re.compile(r"(?<!\\)\$([^$]*)(?<!\\)\$")
_GREEK_ABOVE = re.compile(r"(\\[dt]?frac)\s*(\\(?:pi|theta|alpha|beta))(?![a-zA-Z])\s*")
_ARTICLE = re.compile(r"^(?:the )?(?:answer )?(?:option|choice) (?=[a-z]$)|^(?:an?|the) (?=[a-z]{3})")
_BOLD = re.compile(r"\\(?:textbf|mathbf|boldsymbol)\s*\{([^{}]*)\}")
_QUOTED = re.compile(r"\\(?:text\w*|mbox|mathrm)\s*\{\s*([-+$]?\s*\.?[0-9][^{}]*)\}")
_MIXED = re.compile(r"(?<![\w.^}\])/\\])([0-9]+) ([0-9]+) ?/ ?([0-9]+)(?![0-9.])")
_REPEATING = re.compile(
    r"(?<![0-9.])([0-9]*)\.([0-9]{0,40})\\(?:overline|bar)\s*\{\s*([0-9]{1,40})\s*\}(?!\s*[_0-9])"
)
_THOUSANDS = re.compile(r"(?<![0-9.,^_])([0-9]{1,3})((?: [0-9]{3})+)(?![0-9])")
_COMMAS = re.compile(r"(?<![0-9,.])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])")
_NUMBER = re.compile(
    r"([+-]?)\s*((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?(?:\.[0-9]+)?)"
    r"(?:[eE]([+-]?[0-9]{1,4})|\s*(?:\\times|\\cdot|×|·|\*)\s*10\s*\^\s*(?:\{\s*([+-]?[0-9]{1,4})\s*\}|([0-9])))?"
)
_WORDS = re.compile(r"(\\(?:text|textbf|textit|textrm|mbox|mathrm)\s*\{)?\(?([A-Za-z][A-Za-z ]*?)\)?\s*(\})?")
_PHRASE = re.compile(r"(?:\\(?:text\w*|mbox|mathrm)\s*\{)?\s*([A-Za-z0-9][A-Za-z0-9 ,.'’:-]*)\}?")
_MONTH = re.compile(
    r"\b(?:january|february|march|april|may|june|july|august|september|october|november|december)\b"
)
_CHOICE = re.compile(r"\(?([A-Z])\)?\.?")
_BASES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen"),
)
_NUMERAL = re.compile(
    r"(?:\\text\s*\{)?\(?([0-9A-Za-z][0-9A-Za-z ,]*(?:\.[0-9A-Za-z]+)?)\)?\}?\s*"
    r"(?:_\s*(?:\{\s*\(?(?:\\text\s*\{)?\s*([0-9]+|[a-z]+)\s*\}?\)?\s*\}|\\text\s*\{\s*([a-z]+)\s*\}|([0-9]+))"
    r"|\s\(?(?:\\text\s*\{)?\s*\(?(?:in )?base[ -]\}?\s*\$?([0-9]+|[a-z]+)\)?\}?)"
)
_TEXT_WORD = re.compile(
    r"\\(?:text\w*|mbox|mathrm)\s*\{\s*,?\s*(and|or)\s*\}|\\(lor|land|vee|wedge)(?![a-zA-Z])"
)
_WORD = re.compile(r"(?<![A-Za-z\\])(and|or)(?![A-Za-z])")
_COMMAND = re.compile(r"\\[A-Za-z]+")

_GREEK = (
    r"\\(?:var)?(?:alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|rho|sigma|tau|phi|chi|psi"
    r"|omega|Gamma|Delta|Theta|Lambda|Xi|Sigma|Phi|Psi|Omega|ell)(?![A-Za-z])"
)
_DRESSED = (
    r"\\(?:text\w*|mbox|mathrm|mathbf|mathcal|mathbb|mathit|operatorname|overline|underline|vec|hat|bar|tilde|dot|widehat"
    r"|widetilde|overrightarrow|boldsymbol)\s*\{[^{}]*\}"
)
_INDEX = r"(?:\s*_\s*(?:\{(?:[^{}]|\{[^{}]*\})*\}|\\?[A-Za-z0-9]+))"
_POWER = r"(?:\s*\^\s*(?:\{[^{}]*\}|\\?[A-Za-z0-9*]+))"
_ARGUMENTS = r"(?:\s*\((?:[^()]|\([^()]*\))*\))"
_LETTER = rf"(?:{_GREEK}|{_DRESSED}|[A-Za-z])"
_SYMBOL = rf"{_LETTER}(?:'|’|\\prime|{_INDEX})*"
_NAMES = rf"\(\s*{_SYMBOL}(?:\s*,\s*{_SYMBOL})+\s*\)"
_WORDY = r"[A-Za-z]{3,}(?: [A-Za-z]+)*"
_SEGMENT = r"(?:m\s*)?(?:\\(?:angle|triangle|measuredangle)\s*)?(?:[A-Z]{1,5}|\\overline\s*\{[A-Z]+\})"
_MEASURE = (
    r"\[\s*[A-Z]{3,}\s*\]"
    r"|\\?\|\s*(?:[A-Z]{1,2}|[a-z]|\\(?:vec|overline|overrightarrow|mathbf)\s*\{[^{}]*\})\s*\\?\|"
)
_FUNCTION = (
    r"\\(?:sin|cos|tan|cot|sec|csc|log|ln|exp|max|min|sup|inf|gcd|det|dim|deg|Pr|arg|angle|lim)(?![a-zA-Z])"
)

#: What an answer may be called: a symbol, a function's value, a tuple of symbols, a segment, a word.
_NAME = re.compile(rf"(?:{_SYMBOL}{_ARGUMENTS}?|{_NAMES}|{_SEGMENT}|{_MEASURE}|{_WORDY})")


def tidy(answer: str) -> str:
    """Without what is not mathematics, and with numbers written in one way."""
    answer = answer.replace("{,}", ",").replace("{:}", ":").replace("\\displaystyle", "").replace(":=", "=")
    answer = _UPRIGHT.sub(r" \1", answer.replace("\\varnothing", "\\emptyset"))
    answer = _SPACE.sub(lambda found: "" if found[0].startswith("\\!") else " ", answer)
    if not answer.isascii():
        answer = _RAISED.sub(lambda found: "^2" if found[0] == "²" else "^3", answer)
        answer = _ROOT.sub(lambda found: f"\\sqrt{{{found[1] or found[2]}}}", answer)
        answer = "".join(_SIGNS.get(c) or _vulgar(c) for c in answer)
    answer = stripped(_THUS.sub("", stripped(" ".join(answer.split()))))
    answer = _INLINE.sub(r"\1", _GREEK_ABOVE.sub(r"\1{\2}", answer))
    for pattern in (_BOLD, _QUOTED):
        whole = pattern.fullmatch(answer)
        if whole is not None:
            answer = stripped(whole[1])
    answer = _REPEATING.sub(_repeated, _MIXED.sub(_fraction, answer))
    return _THOUSANDS.sub(lambda found: found[0].replace(" ", ""), answer)


def _vulgar(c: str) -> str:
    parts = unicodedata.decomposition(c).split()
    if not parts or parts[0] != "<fraction>":
        return c
    above, below = "".join(chr(int(part, 16)) for part in parts[1:]).split("⁄")
    return f"\\frac{{{above}}}{{{below}}}"


def _fraction(found: re.Match[str]) -> str:
    """A mixed number as LaTeX writes it, unless the fraction is 1 or more: then it is a product."""
    whole, above, below = found.groups()
    return f"{whole}\\frac{{{above}}}{{{below}}}" if int(above) < int(below) else found[0]


def _repeated(found: re.Match[str]) -> str:
    """A decimal number with repeating digits as a fraction."""
    whole, fixed, again = found.groups()
    shift = 10 ** len(fixed)
    value = Fraction(int(whole + fixed or "0"), shift) + Fraction(int(again), shift * (10 ** len(again) - 1))
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def number(answer: str) -> Fraction | None:
    """The value of a plain decimal number; a dollar sign, thousands' commas, a power of ten are allowed."""
    found = _NUMBER.fullmatch(answer.replace("\\$", "").replace("$", "").strip())
    if found is None or not found[2]:
        return None
    power = next((e for e in found.groups()[2:] if e), "0")
    return Fraction(f"{found[1]}{found[2].replace(',', '')}e{power}")


def words(answer: str) -> str | None:
    """Text of one or more words, or a choice such as (C) in a text group; None for anything else."""
    found = _WORDS.fullmatch(answer)
    if found is not None and (found[1] is None) == (found[3] is None) and (found[1] or len(found[2]) >= 4):
        return _ARTICLE.sub("", " ".join(found[2].casefold().split()))
    phrase = _PHRASE.fullmatch(answer)
    if phrase is None or answer.startswith("\\") != answer.endswith("}"):
        return None
    text = phrase[1].casefold()
    dated = _MONTH.search(text) is not None
    tokens = re.findall(r"[a-z]+|[0-9]+", text)
    if not dated and not re.match("[a-z]{3,}(?![a-z]*[0-9])", text):
        return None
    if not dated and (answer[0] != "\\" and tokens[0] in FUNCTIONS):
        return None
    if dated:  # "June 20th" and "20 June"
        tokens = sorted(token for token in tokens if token not in ("st", "nd", "rd", "th", "of", "the"))
    return " ".join(tokens)


def choice(answer: str) -> str | None:
    """The letter of a multiple choice, in no text group: C, (C), C."""
    found = _CHOICE.fullmatch(answer)
    return None if found is None else found[1].casefold()


def numeral(answer: str) -> tuple[str, int] | None:
    r"""Digits and base of ``52_8``, ``52_{\text{eight}}`` and ``52 base 8``; None for anything else."""
    found = _NUMERAL.fullmatch(answer)
    if found is None:
        return None
    written = next(group for group in found.groups()[1:] if group)
    if not written.isdecimal() and written not in _BASES:
        return None
    base = int(written) if written.isdecimal() else _BASES.index(written)
    digits = re.sub("[ ,]", "", found[1]).casefold()
    values = [int(c, 36) for c in digits if c != "."]
    if not 2 <= base <= 36 or max(values) >= base or not (re.search("[0-9]", digits) or base > 10):
        return None
    if digits[0].isalpha() and not re.search("[0-9]", digits) and len(digits) == 1:
        return None  # A_{16} is a term of a sequence as well
    return digits.lstrip("0") or "0", base


def readable(answer: str) -> bool:
    """Whether an answer is worth parsing at all."""
    if any(c.isdigit() and not c.isascii() for c in answer):
        return False
    depth = 0
    for c in re.sub(r"\\.", "", answer):
        depth += (c == "{") - (c == "}")
        if depth < 0:
            return False
    return depth == 0 and answer.isprintable()


def sides(answer: str) -> list[str]:
    """Split at the equality signs outside brackets."""
    found, depth = [""], 0
    for c in answer:
        depth += (c in "{(") - (c in "})")
        if c == "=" and depth <= 0 and not found[-1].endswith(("!", "<", ">")):
            found.append("")
        else:
            found[-1] += c
    return found


def constant(side: str) -> bool:
    """Whether a side has no variable."""
    return not re.search("[A-Za-z]", _COMMAND.sub("", re.sub(_GREEK, "a", side)))


def name(side: str) -> str | None:
    """A side that only names what the other is, without spaces and braces; None if it says more."""
    side = SIZE.sub("", side).strip()
    return re.sub(r"[\s{}]|\\(?:text|mathrm)", "", side) if _NAME.fullmatch(side) else None


def quantity(side: str) -> bool:
    r"""Whether it is a quantity, as ``AB^2``, ``xy``, ``\sin A``, ``\frac{m}{n}``: no sum, no multiple."""
    side = SIZE.sub("", side).strip()
    if name(side) is not None:
        return True
    bare = re.sub(rf"(?<![xyz]){_ARGUMENTS}", "", side)
    bare = re.sub(rf"{_INDEX}|{_POWER}|{_FUNCTION}|{_MEASURE}|\\circ", "", bare)
    bare = re.sub(r"\\[dt]?frac(?![a-zA-Z])|\\(?:cdot|times|angle|triangle)(?![a-zA-Z])", "", bare)
    bare = re.sub(rf"{_GREEK}|{_DRESSED}", "a", bare)
    return bool(re.search("[A-Za-z]", side)) and re.fullmatch(r"[A-Za-z{}\s/*'’:]+", bare) is not None


@dataclass(frozen=True)
class Parts:
    """A list taken apart.

    Args:
        items: what stands between the separators.
        opening: its bracket, "" for a bare list, "{" for a set.
        closing: the other one.
        alternatives: whether all separators are "or".
    """

    items: tuple[str, ...]
    opening: str
    closing: str
    alternatives: bool

    @property
    def ordered(self) -> bool:
        return self.opening in ("(", "[")


def parts(answer: str) -> Parts | None:
    """The items of a list, a set, a tuple or an interval; None for anything else.

    A bare list needs two items, so does what stands in brackets; a set may have one.
    """
    plain = SIZE.sub("", answer).strip()
    for opening, closing in (
        (r"\{", r"\}"),
        ("{", "}"),
        ("(", ")"),
        ("(", "]"),
        ("[", "]"),
        ("[", ")"),
        (r"\langle", r"\rangle"),
    ):
        if plain.startswith(opening) and plain.endswith(closing):
            inner = plain[len(opening) : -len(closing)]
            split = separated(inner)
            if split is None:  # a bracket that closes before the end: (0,9) \cup (9,36)
                continue
            if len(split[0]) < 2:  # (12,102) is no 12102
                split = separated(inner, thousands=False) or split
            items, joints = split
            if len(items) < 2 and opening != r"\{":
                return None
            both = {r"\{": "{}", "{": "{}", r"\langle": "()"}.get(opening, opening + closing)
            return Parts(items, both[0], both[1], False) if all(items) and "or" not in joints else None
    split = separated(answer)
    if split is None or len(split[0]) < 2 or not all(split[0]):
        return None
    return Parts(split[0], "", "", set(split[1]) == {"or"})


def separated(text: str, thousands: bool = True) -> tuple[tuple[str, ...], list[str]] | None:
    """Items and joints, "," or "and" or "or", outside brackets; None if brackets are not balanced."""
    if thousands:
        text = _COMMAS.sub(lambda found: found[0].replace(",", ""), text)
    items, joints, depth, position = [""], list[str](), 0, 0
    while position < len(text):
        c = text[position]
        word = (_TEXT_WORD.match(text, position) or _WORD.match(text, position)) if depth == 0 else None
        if word is not None or (depth == 0 and c in ",;"):
            alternative = word is not None and ("or" in word.groups() or word[0] in ("\\lor", "\\vee"))
            joint = "," if word is None else "or" if alternative else "and"
            if items[-1].strip() or not joints:
                items.append("")
                joints.append(joint)
            else:
                joints[-1] = joint  # ", and"
            position = position + 1 if word is None else word.end()
            continue
        if c == "\\" and text[position + 1 : position + 2] in ("{", "}", "\\", "$", "%"):
            depth += (text[position + 1] == "{") - (text[position + 1] == "}")
            items[-1] += text[position : position + 2]
            position += 2
            continue
        depth += (c in "{([") - (c in "})]")
        if depth < 0 or depth > DEEPEST:
            return None
        items[-1] += c
        position += 1
    return (tuple(item.strip() for item in items), joints) if depth == 0 else None


def unwrapped(answer: str) -> str:
    """Without parentheses around a single value; a letter in them is a choice."""
    plain = SIZE.sub("", answer).strip()
    while plain.startswith("(") and plain.endswith(")") and not _CHOICE.fullmatch(plain):
        inside = separated(plain[1:-1])
        if inside is None or len(inside[0]) > 1 or not inside[0][0]:
            break
        plain = answer = plain[1:-1].strip()
    return answer


def signs(item: str) -> tuple[str, ...]:
    r"""Both values of ``a \pm b``; the item itself if it has no such sign, or several."""
    found = re.split(r"\\pm(?![a-zA-Z])|±", item)
    if len(found) != 2 or re.search(r"[,;]|\\\{", item):
        return (item,)
    plus = found[0].strip()
    if not plus or plus.endswith(("=", "(", "{")):
        return found[0] + found[1].lstrip(), f"{found[0]}-{found[1].lstrip()}"
    return "+".join(found), "-".join(found)
