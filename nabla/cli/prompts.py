"""Prompts from the command line and from files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nabla.core.errors import PromptError
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
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"The prompts cannot be read: {error}", got=file, fix=_FORMAT) from error
    if path.suffix not in (".txt", ".jsonl"):
        raise PromptError("Unknown kind of prompt file", got=file, fix=_FORMAT)
    found: list[Prompt] = []
    unnamed: list[int] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        default = str(first + len(found))
        named = False
        if path.suffix == ".txt":
            found.append(Prompt.of(line.strip(), id=default, system=system))
        else:
            prompt, named = _from_json(line, f"{file}:{number}", default, system)
            found.append(prompt)
        if not named:
            unnamed.append(len(found) - 1)
    if not found:
        raise PromptError("The file has no prompts", got=file, fix=_FORMAT)
    for place, prompt in zip(unnamed, numbered([found[i] for i in unnamed]), strict=True):
        found[place] = prompt
    return found


def _from_json(line: str, where: str, default: str, system: str | None) -> tuple[Prompt, bool]:
    """The prompt, and whether it brings an id."""
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise PromptError(f"{where} is no JSON: {error}", got=line, fix=_FORMAT) from error
    if not isinstance(row, dict) or ("prompt" in row) == ("messages" in row):
        raise PromptError(f"{where} needs either 'prompt' or 'messages'", got=row, fix=_FORMAT)
    content: Any = row.get("prompt", row.get("messages"))
    prompt = Prompt.of(content, id=str(row.get("id", default)), system=system)
    metadata = {key: value for key, value in row.items() if key not in ("prompt", "messages", "id")}
    return Prompt(prompt.id, prompt.messages, metadata), "id" in row
