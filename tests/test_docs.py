"""What code says about documents is true: each "SPEC section n" has its place in docs/method.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
METHOD = (ROOT / "docs" / "method.md").read_text()
#: Where references are looked for.
FOLDERS = ("nabla", "tests", "experiments", "docs")
KINDS = {".py", ".md", ".yaml", ".toml"}

_NUMBERS = r"\d+(?:\.\d+)?(?:(?:,| and| to|-|–) ?\d+(?:\.\d+)?)*"
_REFERENCE = re.compile(
    rf"\bSPEC (?:(?P<kind>sections?|Algorithms?|Eq\.|Eqs\.) ?)?(?P<numbers>{_NUMBERS})"
    r"(?:, facts? (?P<facts>\d+(?:-\d+)?))?"
)


def unbroken(text: str) -> str:
    """A text in which references that go over a line's end, in prose or in a comment, are on one line."""
    return re.sub(r"\s+", " ", re.sub(r"\n[ \t]*#:? ?", " ", text))


def references(text: str) -> set[str]:
    """Places of the specification that a text names: ``"7"``, ``"7.2"``, ``"Algorithm 3"``, ``"Eq. 2"``."""
    found: set[str] = set()
    for match in _REFERENCE.finditer(unbroken(text)):
        numbers = re.findall(r"\d+(?:\.\d+)?", match["numbers"])
        kind = (match["kind"] or "section").rstrip("s.")
        if match["facts"]:
            first, _, last = match["facts"].partition("-")
            numbers += [f"{numbers[-1]}.{fact}" for fact in range(int(first), int(last or first) + 1)]
        prefix = {"section": "", "Algorithm": "Algorithm ", "Eq": "Eq. "}[kind]
        found |= {prefix + number for number in numbers}
    return found


def places(document: str) -> list[str]:
    """What the headings of a document can be cited as, in their order."""
    heading = r"^(?:## (\d+)\. |### (\d+\.\d+) |### ((?:Algorithm|Eq\.) \d+): )\S"
    return [next(filter(None, groups)) for groups in re.findall(heading, document, re.MULTILINE)]


def files() -> list[Path]:
    every = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in KINDS]
    return sorted(path for path in [*every, *ROOT.glob("*.md")] if path != Path(__file__))


def test_every_reference_to_the_specification_has_its_place():
    known = set(places(METHOD))
    cited = {path.relative_to(ROOT): references(path.read_text()) for path in files()}
    dangling = {str(path): found - known for path, found in cited.items() if found - known}
    assert dangling == {}
    # The search itself works: these are cited, in each of the forms.
    assert {"2", "7.1", "7.2", "7.6", "13", "Algorithm 3", "Eq. 3"} <= set().union(*cited.values())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("as in SPEC section 17.", {"17"}),
        ("(SPEC sections 2 and 5)", {"2", "5"}),
        ("SPEC 7.9)", {"7.9"}),
        ("the control that SPEC\n    # section 10 asks for", {"10"}),
        ("#: first (SPEC\n#: Algorithm 5; the paper)", {"Algorithm 5"}),
        ("SPEC section 7, facts 1-3), and", {"7", "7.1", "7.2", "7.3"}),
        ("SPEC Eq. 3", {"Eq. 3"}),
        ('SPEC = {"name": 3}; *SPECIAL, 4', set()),
    ],
)
def test_references_are_found_in_every_form(text, found):
    assert references(text) == found


def test_a_reference_to_a_place_that_does_not_exist_is_noticed():
    known = set(places(METHOD))
    for text in ("SPEC section 17", "SPEC section 7.9", "SPEC Algorithm 5", "SPEC Eq. 99"):
        assert references(text) - known, text


def test_the_specification_has_all_its_sections_in_order():
    found = places(METHOD)
    assert [place for place in found if place.isdigit()] == [str(n) for n in range(1, 17)]
    assert [place for place in found if place.startswith("7.")] == [f"7.{n}" for n in range(1, 9)]
    assert [place for place in found if place.startswith("Alg")] == [f"Algorithm {n}" for n in range(1, 5)]
    assert len(set(found)) == len(found)


def links_of(text: str) -> list[str]:
    """Relative links of a document, without those to pages of the reference, which is made with the site."""
    links = [link for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text) if "://" not in link]
    return [link for link in links if "reference/" not in link]


def test_documents_link_to_each_other():
    assert sum(bool(links_of(path.read_text())) for path in (ROOT / "docs").rglob("*.md")) > 20


DOCUMENTS = sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT / "docs").as_posix())
def test_links_and_files_that_documents_name_exist(path):
    text = path.read_text()
    links = links_of(re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))
    named = re.findall(r"`((?:nabla|tests|experiments)/[\w/.-]+)`", text)
    assert [link for link in links if not (path.parent / link).exists()] == []
    assert [name for name in named if not (ROOT / name).exists()] == []
