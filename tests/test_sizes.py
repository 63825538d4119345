"""No file of the package has more than 400 lines, and no function more than 60."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_LINES, MOST_OF_A_FUNCTION, MOST_EXCEPTIONS = 400, 60, 5

#: File, or file and function → why it stays whole.
EXCEPTIONS = {
    "nabla/testing/estimators.py": "the laws of estimators, read as one list beside SPEC section 3",
    "nabla/models/body.py run": "one pass of a batch: its steps share all of their local values",
    "nabla/models/loading.py load": "tokenizer, weights, adapter in this order, each with its own error",
}


def sizes() -> dict[str, tuple[int, int]]:
    """Lines and the most allowed, of every file and every function."""
    found = {}
    for path in sorted((ROOT / "nabla").rglob("*.py")):
        text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
        found[name] = len(text.splitlines()), MOST_LINES
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                lines = max(node.end_lineno - node.lineno + 1, found.get(f"{name} {node.name}", (0, 0))[0])
                found[f"{name} {node.name}"] = lines, MOST_OF_A_FUNCTION
    return found


def test_files_and_functions_are_short_but_for_a_few() -> None:
    assert len(EXCEPTIONS) <= MOST_EXCEPTIONS
    found = sizes()
    assert len(found) > 1000
    assert set(found) >= set(EXCEPTIONS)
    long = {name: size for name, size in found.items() if size[0] > size[1] and name not in EXCEPTIONS}
    assert not long
