"""Where in a response to a mathematical problem its final answer stands; linear time, no parsing."""

from __future__ import annotations

import re

_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])")
# A heading such as "#### Step 2" is no answer: mathematics, or the response's last line.
_HASHES = re.compile(r"####[ \t]*(?=[-+$\\(\[.0-9]|[^\n]*\n?\Z)([^\n]*)")
_PHRASE = re.compile(r"\banswer(?: is)?(?:\*\*)? ?(?::|(?<= is)|(?<= is\*\*))", re.IGNORECASE)
_END = re.compile(r"\.(?=\s|\*|$)|\n")
_NUMBER = re.compile(r"-?\$?(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)")
_MATHEMATICS = re.compile(r"[0-9$\\]")
_FORMULA = re.compile(
    r"\$\$((?:\\.|[^\\$])+)\$\$|\$((?:\\.|[^\\$])+)\$|\\\(((?:(?!\\[()]).)+)\\\)|\\\[((?:(?!\\[\[\]]).)+)\\\]",
    re.DOTALL,
)
_CODE = re.compile(r"`([^`]+)`")

#: At most so many layers of these are taken off.
_LAYERS = 100

#: A response of one line that is no longer than this, in characters, is taken for the bare answer.
BARE = 200


def final_answer(response: str, *, last_number: bool = False) -> str | None:
    r"""The final answer as written, or None.

    In this order, the first that the response has at all decides:

    1. the last ``\boxed{...}``; None if it is empty or cut off;
    2. the last ``#### ...`` that is no heading (GSM8K);
    3. the last "answer is ..." or "answer: ...", if no number or formula follows it: what was merely
       quoted on the way is no conclusion;
    4. a response of one short line, entire;
    5. with ``last_number``, the last number.
    """
    boxes = list(_BOX.finditer(response))
    if boxes:
        return stripped(_boxed(response, boxes[-1].end())) or None
    hashes = _HASHES.findall(response)
    if hashes:
        return stripped(hashes[-1]) or None
    phrases = list(_PHRASE.finditer(response))
    if phrases:
        found = _stated(response[phrases[-1].end() :].lstrip(" \n*"))
        if found is not None:
            return found
    elif len(response.strip()) <= BARE and "\n" not in response.strip():
        return stripped(response) or None
    numbers = _NUMBER.findall(response) if last_number else []
    return numbers[-1] if numbers else None


def stripped(answer: str) -> str:
    """Without surrounding white space, mathematics delimiters, Markdown emphasis and a final full stop."""
    for _ in range(_LAYERS):
        before = answer
        answer = answer.strip().removeprefix("**").removesuffix("**")
        if answer.endswith(".") and not answer.endswith(".."):
            answer = answer[:-1]
        found = _FORMULA.fullmatch(answer) or _CODE.fullmatch(answer)
        if found is not None:
            answer = found[found.lastindex or 0]
        if answer == before:
            break
    return answer


def _boxed(text: str, start: int) -> str:
    """What stands in a box: a group in braces, or, as in TeX, the next token; "" if it is cut off."""
    while start < len(text) and text[start] in " \t":
        start += 1
    if text[start : start + 1] != "{":
        token = re.compile(r"\\[a-zA-Z]+|[^\s$\\{}]").match(text, start)
        return "" if token is None else token[0]
    depth, position = 0, start
    while position < len(text):
        if text[position] == "\\":
            position += 1
        elif text[position] == "{":
            depth += 1
        elif text[position] == "}":
            depth -= 1
            if depth == 0:
                return text[start + 1 : position]
        position += 1
    return ""


def _stated(rest: str) -> str | None:
    """The answer at the start of what follows the phrase, if that is the last mathematics there."""
    formula = _FORMULA.match(rest)
    if formula is not None:
        found, after = formula[formula.lastindex or 0], rest[formula.end() :]
    else:
        stop = _END.search(rest)
        found, after = (rest, "") if stop is None else (rest[: stop.start()], rest[stop.end() :])
    return None if _MATHEMATICS.search(after) else stripped(found) or None
