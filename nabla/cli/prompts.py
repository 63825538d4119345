"""Prompts from the command line and from files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nabla.core.errors import NablaError, PromptError
from nabla.core.files import parse_json, read_text
from nabla.core.prompt import Prompt, numbered

_FORMAT = (
    'Use a .txt file with one prompt per line, or a .jsonl file with {"prompt": "..."} or '
    '{"messages": [...]} per line, optionally with "id" and "answer".'
)


def read_prompts(texts: Sequence[str], file: str | None, system: str | None) -> list[Prompt]:
    """All prompts, numbered in order where they have no id. Raises PromptError."""
    prompts = numbered([Prompt.of(text, id=str(i), system=system) for i, text in enumerate(texts)])
    if file is not None:
        prompts += read_file(file, system=system, first=len(prompts))
    if not prompts:
        raise PromptError(
            "There is no prompt to answer",
            fix='Pass prompts (nabla solve "28*6+68-71+94") or a file of them (--prompts FILE).',
        )
    return prompts


def read_file(file: str, *, system: str | None = None, first: int = 0) -> list[Prompt]:
    """Prompts of a file; ``first`` is the number of the first one."""
    path = Path(file)
    text = read_text(file, "prompts", fix=_FORMAT, kind=PromptError)
    before, zero, _ = text.partition("\0")
    if zero:  # of UTF-16 without its mark, or what a crash left of a file
        place = before.count("\n") + 1
        raise PromptError(f"The prompts cannot be read: line {place} has a zero byte; save the file as UTF-8",
                          got=file, fix=_FORMAT)  # fmt: skip
    # Lines end as editors end them, and nowhere else: JSON may hold U+2028 and its like in its strings.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if path.suffix not in (".txt", ".jsonl"):
        raise PromptError("Unknown kind of prompt file", got=file, fix=_FORMAT)
    found: list[Prompt] = []
    unnamed: list[int] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        default = str(first + len(found))
        named = False
        try:
            if path.suffix == ".txt":
                prompt = Prompt.of(line.strip(), id=default, system=system)
            else:
                prompt, named = _from_json(line, default, system)
        except NablaError as error:
            error.at(f"{file}:{number}")
            raise
        found.append(prompt)
        if not named:
            unnamed.append(len(found) - 1)
    if not found:
        raise PromptError("The file has no prompts", got=file, fix=_FORMAT)
    for place, prompt in zip(unnamed, numbered([found[i] for i in unnamed]), strict=True):
        found[place] = prompt
    return found


def _from_json(line: str, default: str, system: str | None) -> tuple[Prompt, bool]:
    """The prompt, and whether it brings an id."""
    try:
        row: Any = parse_json(line)
    except ValueError as error:
        raise PromptError(f"The line is no JSON: {error}", got=line, fix=_FORMAT) from error
    if not isinstance(row, dict) or ("prompt" in row) == ("messages" in row):
        raise PromptError("The line needs either 'prompt' or 'messages'", got=row, fix=_FORMAT)
    content: Any = row.get("prompt", row.get("messages"))
    name = row.get("id")  # null is none
    if isinstance(name, bool) or not isinstance(name, str | int | float | None) or name in ("", float("inf")):
        raise PromptError("An id is a text or a number", got=name, fix="Leave it out to be numbered.")
    prompt = Prompt.of(content, id=default if name is None else str(name), system=system)
    metadata = {key: value for key, value in row.items() if key not in ("prompt", "messages", "id")}
    return Prompt(prompt.id, prompt.messages, metadata), name is not None
