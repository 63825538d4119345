"""Writes the tables of results in README.md from what ``experiments/results`` has.

python -m experiments.site.results
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
RESULTS = ROOT / "experiments" / "results"
#: Of all methods: label in the results → in the table.
METHODS = {
    "best-of-n": "best-of-N",
    "revision": "revision, no gradient",
    "nabla": "∇-Reasoner, published steps",
    "nabla long detached": "∇-Reasoner, long steps, δ_postfix detached",
}
FAMILIES = {"latin": "Latin squares", "arithmetic": "arithmetic"}
BUDGETS = (("calls", 150.0, "150 calls"), ("flops", 1.5e9, "1.5 GFLOPs"))
VALUES = {"best-of-n": "best-of-N", "revision": "revision", "backtrack": "backtrack"}
FLOPS = ((6e8, "0.6 GFLOPs"), (1.5e9, "1.5 GFLOPs"))


def read(name: str) -> list[dict[str, str]]:
    """Rows of a study's ``results.csv``."""
    with (RESULTS / name / "results.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table(head: list[str], rows: dict[str, list[float]]) -> str:
    """In percent."""
    lines = [["", *head], ["---"] * (len(head) + 1)]
    lines += [[name, *(f"{100 * value:.1f} %" for value in own)] for name, own in rows.items()]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines).replace("|  |", "| |")


def methods() -> str:
    """All methods' study: both budgets of both families."""
    rows = read("sandbox")
    found = {(r["task"], r["unit"], float(r["value"]), r["method"]): float(r["accuracy"]) for r in rows}
    head = [f"{family}, {said}" for family in FAMILIES.values() for *_, said in BUDGETS]
    return table(
        head,
        {
            said: [found[task, unit, value, name] for task in FAMILIES for unit, value, _ in BUDGETS]
            for name, said in METHODS.items()
        },
    )


def values() -> str:
    """The study with a reward that is read at every token: a family has a folder of its own."""
    rows = [row for family in FAMILIES for row in read(f"values/{family}") if row["unit"] == "flops"]
    found = {(r["task"], float(r["value"]), r["method"]): float(r["accuracy"]) for r in rows}
    problems = {r["task"]: r["problems"] for r in rows}
    tasks = {f"{task} process": said for task, said in FAMILIES.items()}
    head = [f"{said} ({problems[task]}), {budget}" for task, said in tasks.items() for _, budget in FLOPS]
    return table(
        head,
        {
            said: [found[task, flops, name] for task in tasks for flops, _ in FLOPS]
            for name, said in VALUES.items()
        },
    )


def filled(text: str) -> str:
    """A document with what stands between ``<!-- results: NAME -->`` and ``<!-- end -->`` written anew."""
    for name, made in (("methods", methods), ("values", values)):
        pattern = re.compile(rf"(<!-- results: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, count = pattern.subn(lambda at, made=made: at[1] + made() + at[2], text)
        if count != 1:
            raise ValueError(f"<!-- results: {name} --> stands {count} times in the document")
    return text


if __name__ == "__main__":
    README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")
