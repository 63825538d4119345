"""Where in a response to a mathematical problem its final answer stands; linear time, no parsing."""

from __future__ import annotations

import re

_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])")
# A heading such as "#### Step 2" is no answer: mathematics, or the response's last line.
_HASHES = re.compile(r"####[ \t]*(?=[-+$\\(\[.0-9]|[^\n]*\n?\Z)([^\n]*)")
_PHRASE = re.compile(r"\banswer(?: is)?(?:\*\*)? ?(?::|(?<= is)|(?<= is\*\*))", re.IGNORECASE)
_END = re.compile(r"\.(?=\s|\*|$)|\n")
# A minus sign right behind a number, a letter or a bracket is none of the next number's: "10-3", "pages 5-7".
_NUMBER = re.compile(
    r"(?:(?<![\w)\]}])[-−])?\$?(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
)
_MATHEMATICS = re.compile(r"[0-9$\\]")
_FORMULA = re.compile(
    r"\$\$((?:\\.|[^\\$])+)\$\$|\$((?:\\.|[^\\$])+)\$|\\\(((?:(?!\\[()]).)+)\\\)|\\\[((?:(?!\\[\[\]]).)+)\\\]",
    re.DOTALL,
)
#: Between boxes that are one answer: a comma, "and" or "or", and mathematics delimiters.
_JOINT = re.compile(
    r"(?:[\s$.~,;&]|\\[()\[\],;: ]|\\q?quad|\b(?:and|or)\b"
    r"|\\(?:text|mbox|mathrm)\s*\{\s*,?\s*(?:and|or)?\s*\})*"
)
_JOINING = re.compile(r"[,;&]|\b(?:and|or)\b")
#: Thoughts of reasoning models, as their templates mark their beginning and end.
_NAMED = "(?:think|thinking|thoughts?|reason|reasoning|analysis|reflection|scratchpad|seed:think)"
#: What may stand between a channel's name and its text: who it is for, and in which format.
_HEADER = r"(?:[^<\n]|<\|constrain\|>)*<\|message\|>"
_THINKING = (
    (f"<{_NAMED}>", f"</{_NAMED}>"),
    ("◁think▷", "◁/think▷"),
    (r"\[THINK\]", r"\[/THINK\]"),
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),
    (rf"<\|channel\|>(?:analysis|commentary){_HEADER}", rf"<\|channel\|>final{_HEADER}"),
    ("(?!)", "assistantfinal"),  # the same, its special tokens left out
)
#: Where the text of a channel ends; up to the next one's there is nothing but its header.
_OVER = re.compile(r"<\|(?:end|return|call|start)\|>")
_THOUGHTS = re.compile(
    "|".join(f"(?P<open{k}>{start})|(?P<close{k}>{end})" for k, (start, end) in enumerate(_THINKING)),
    re.IGNORECASE,
)
_ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)
_CODE = re.compile(r"`([^`]+)`")

#: At most so many layers of these are taken off.
_LAYERS = 100

#: Boxes that belong together are no farther apart, in characters.
_FARTHEST = 40

#: A response of one line that is no longer than this, in characters, is taken for the bare answer.
BARE = 200


def final_answer(response: str, *, last_number: bool = False) -> str | None:
    r"""The final answer as written, or None.

    Only what stands outside the model's thoughts counts (``outside_thoughts``), and of that what stands in
    the last ``<answer>...</answer>``, if there is one. The response may be given as the model wrote it, with
    any space around. In this order, the first that this text has at all decides:

    1. the last ``\boxed{...}`` with anything in it, as in "5, wait, \boxed{}": an empty box states nothing;
       None if all are empty, or if the last is cut off. Boxes with nothing but a comma, "and" or "or" between
       them are one list;
    2. the last ``#### ...`` that is no heading (GSM8K);
    3. the last "answer is ..." or "answer: ...", if no number or formula follows it: what was merely
       quoted on the way is no conclusion;
    4. a text of one short line, entire;
    5. with ``last_number``, the last number.
    """
    text = outside_thoughts(response)
    framed = _ANSWER.findall(text)
    text = (framed[-1] if framed else text).strip()
    boxes = list(_BOX.finditer(text))
    if boxes:
        return _last_boxes(text, boxes) or None
    hashes = _HASHES.findall(text)
    if hashes:
        return stripped(hashes[-1]) or None
    phrases = list(_PHRASE.finditer(text))
    if phrases:
        found = _stated(text[phrases[-1].end() :].lstrip(" \n*"))
        if found is not None:
            return found
    elif len(text) <= BARE and "\n" not in text:
        return stripped(text) or None
    numbers = _NUMBER.findall(text) if last_number else []
    return numbers[-1] if numbers else None


def outside_thoughts(response: str) -> str:
    """What a response says outside ``<think>...</think>`` and the like (see ``_THINKING``).

    Thoughts that are not closed go on to the end; those that are only closed began in the prompt, as some
    templates have it. So a response that was cut off while it thought says nothing.
    """
    said: list[str] = []
    start, inside = 0, False
    for tag in _THOUGHTS.finditer(response):
        if (tag.lastgroup or "").startswith("open"):
            if not inside:
                said.append(response[start : tag.start()])
            inside = True
        else:
            if not inside:
                said.clear()
            inside, start = False, tag.end()
    if not inside:
        said.append(response[start:])
    if "<|channel|>" in response:
        said = [_OVER.split(text, maxsplit=1)[0] for text in said]
    return "".join(said)


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


def _last_boxes(text: str, boxes: list[re.Match[str]]) -> str:
    """What the last boxes say that belong together; "" for nothing."""
    found: list[str] = []
    joints: list[str] = []
    after: int | None = None  # where the box behind begins, if it is part of the answer
    for box in reversed(boxes):
        inside, end = _boxed(text, box.end())
        if end is None:
            return ""  # cut off: only the last can be
        if after is not None:
            between = text[end:after]
            if len(between) > _FARTHEST or not (_JOINT.fullmatch(between) and _JOINING.search(between)):
                break
            joints.append(between)
        inside = stripped(inside)
        if inside:
            found.append(inside)
            after = box.start()
    # "or" may as well join two ways to write one value.
    joint = r" \text{ or } " if any(re.search(r"\bor\b", between) for between in joints) else ","
    return joint.join(dict.fromkeys(reversed(found)))


def _boxed(text: str, start: int) -> tuple[str, int | None]:
    """What stands in a box, and where it ends: a group in braces, or, as in TeX, the next token.

    No end if it is cut off.
    """
    while start < len(text) and text[start] in " \t":
        start += 1
    if text[start : start + 1] != "{":
        token = re.compile(r"\\[a-zA-Z]+|[^\s$\\{}]").match(text, start)
        return ("", None) if token is None else (token[0], token.end())
    depth, position = 0, start
    while position < len(text):
        if text[position] == "\\":
            position += 1
        elif text[position] == "{":
            depth += 1
        elif text[position] == "}":
            depth -= 1
            if depth == 0:
                return text[start + 1 : position], position + 1
        position += 1
    return "", None


def _stated(rest: str) -> str | None:
    """The answer at the start of what follows the phrase, if that is the last mathematics there."""
    formula = _FORMULA.match(rest)
    if formula is not None:
        found, after = formula[formula.lastindex or 0], rest[formula.end() :]
    else:
        stop = _END.search(rest)
        found, after = (rest, "") if stop is None else (rest[: stop.start()], rest[stop.end() :])
    return None if _MATHEMATICS.search(after) else stripped(found) or None
