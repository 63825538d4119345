"""Sets written as conditions on a variable: memberships, set builders, inequalities."""

from __future__ import annotations

import re

from nabla.problems.answers.notation import SIZE, constant, separated

_RELATION = re.compile(r"\\(?:leqslant|geqslant|leq?|geq?|neq?|lt|gt)(?![a-zA-Z])|<=|>=|!=|[<>≤≥≠]")
_ORDER = {
    "<": "<", ">": ">", "<=": "<=", ">=": ">=", "≤": "<=", "≥": ">=", "≠": "!=", "!=": "!=",
    "\\le": "<=", "\\leq": "<=", "\\leqslant": "<=", "\\ge": ">=", "\\geq": ">=", "\\geqslant": ">=",
    "\\lt": "<", "\\gt": ">", "\\ne": "!=", "\\neq": "!=",
}  # fmt: skip
_VARIABLE = re.compile(r"[A-Za-z](?:_\{?\w+\}?)?|\\(?:alpha|beta|gamma|lambda|theta|phi|mu|tau)")
_MEMBER = re.compile(rf"({_VARIABLE.pattern})\s*(?:\\in(?![a-zA-Z])|∈)\s*(.+)", re.DOTALL)
_BUILDER = re.compile(
    rf"\\\{{\s*({_VARIABLE.pattern})\s*(?:(?:\\in(?![a-z])|∈)\s*(?:\\mathbb\s*\{{?R\}}?|ℝ)\s*)?"
    r"(?:\\mid|\\vert|\||:|\\colon)\s*(.+)\\\}",
    re.DOTALL,
)


def members(answer: str) -> tuple[str | None, str]:
    r"""Variable and set of ``x \in (1,2)`` and of ``\{x \mid x > 1\}``; no variable for anything else."""
    plain = SIZE.sub("", answer).strip()
    member = _MEMBER.fullmatch(plain)
    if member is not None:
        return member[1], member[2].strip()
    builder = _BUILDER.fullmatch(plain)
    if builder is not None and _RELATION.search(builder[2]):
        return builder[1], builder[2].strip()
    return None, answer


def relational(answer: str) -> bool:
    """Whether an answer has an inequality sign."""
    return _RELATION.search(answer) is not None


def interval(answer: str) -> tuple[str, str] | None:
    r"""Variable and intervals of ``1 \le x < 2``, ``x > 3 \text{ or } x < 1``, ``x \ne 3``; or None."""
    split = separated(re.sub(r"\\cup(?![a-zA-Z])", " or ", answer)) if relational(answer) else None
    if split is None:
        return None
    items, joints = split
    found = [pair for pair in map(_interval, items) if pair is not None]
    variables = {variable for variable, _ in found}
    if len(found) < len(items) or len(variables) != 1 or len({*joints}) > 1:
        return None
    return variables.pop(), (r" \cup " if "or" in joints else r" \cap ").join(each for _, each in found)


def _interval(item: str) -> tuple[str, str] | None:
    """Variable and interval of one inequality."""
    terms = [term.strip() for term in _RELATION.split(item)]
    order = [_ORDER[sign] for sign in _RELATION.findall(item)]
    at = next((k for k, term in enumerate(terms) if _VARIABLE.fullmatch(term)), None)
    others = [term for k, term in enumerate(terms) if k != at]
    if at is None or len(terms) not in (2, 3) or not all(term and constant(term) for term in others):
        return None
    variable, flipped = terms[at], {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!="}
    if len(terms) == 2:
        sign, bound = (order[0], others[0]) if at == 0 else (flipped[order[0]], others[0])
        if sign == "!=":
            return variable, rf"(-\infty,{bound}) \cup ({bound},\infty)"
        if sign.startswith("<"):
            return variable, rf"(-\infty,{bound}" + ("]" if sign == "<=" else ")")
        return variable, ("[" if sign == ">=" else "(") + rf"{bound},\infty)"
    if at != 1 or order[0][0] != order[1][0] or order[0][0] == "!":
        return None
    low, high = others if order[0][0] == "<" else others[::-1]
    signs_ = order if order[0][0] == "<" else order[::-1]
    return variable, ("[" if "=" in signs_[0] else "(") + f"{low},{high}" + ("]" if "=" in signs_[1] else ")")
