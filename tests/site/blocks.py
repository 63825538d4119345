"""Code blocks of documents, and commands in them made small enough for a test."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(
    r'^```(?P<language>\w+)(?: title="(?P<title>[\w./-]+)")?\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file that it is (or none), and its text."""

    language: str
    title: str | None
    text: str

    @property
    def commands(self) -> list[str]:
        """Lines of a shell block."""
        return [line for line in self.text.splitlines() if line.strip() and not line.startswith("#")]


def blocks(text: str, language: str | None = None) -> list[Block]:
    """All blocks of a document, or those of a language."""
    found = [Block(m["language"], m["title"], m["text"]) for m in _FENCE.finditer(text)]
    return [block for block in found if language in (None, block.language)]


def needs_other_models(text: str) -> bool:
    return any(mark in text for mark in ("Qwen", "/path/to", "nabla_reasoner.yaml"))


def small(line: str) -> list[str]:
    """A command's arguments, made small and without traces in the checkout."""
    arguments = shlex.split(line)[1:]
    command = arguments[0]
    if command == "compare":
        arguments[arguments.index("--problems") + 1] = "1"
    if command == "demo":
        return [*arguments, "--problems", "1"]
    if command == "estimators":
        return [*arguments, "--estimators", "straight-through", "--output", "none"]
    if command == "theory":
        return arguments if "--list" in arguments else [*arguments, "--list"]  # tests/theory runs the checks
    if "experiments/" in line:  # the repository's own studies are run whole elsewhere
        if command == "evaluate":
            few = ["--methods", "greedy,nabla", "--budget", "calls=100"]
            return [*arguments, "--problems", "1", *few, "--output", "evaluation"]
        if command == "ablate":
            return [*arguments, "--problems", "1", "--output", "ablation-of-experiments"]
    if command == "bench":
        return [*arguments, "--targets", "1", "--repeats", "1", "--dense-repeats", "0", "--output", "bench"]
    if command in ("solve", "compare"):
        if "--output" in arguments:
            at = arguments.index("--output")
            del arguments[at : at + 2]
        return [*arguments, "--output", "none", "--accelerator", "cpu"]
    return arguments


def furnish(folder: Path) -> None:
    """What documents take to be there: the repository's experiments, and files of problems."""
    (folder / "experiments").symlink_to(ROOT / "experiments")
    (folder / "problems.txt").write_text("28*6+68-71+94\n53*6-50+29-41\n")
    (folder / "problems.jsonl").write_text('{"prompt": "What is 1 + 1?", "answer": "2"}\n')
