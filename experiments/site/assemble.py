"""Puts the site's pages together under build/site-source: docs/, experiments/, generated tables.

Links between documents go on working; a link to a file of the source becomes the file's name.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
TARGET = ROOT / "build" / "site-source"
#: What is copied: folder or file of the repository → its place on the site.
SOURCES = {
    "docs": "",
    "experiments": "experiments",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
KEPT = {".md", ".png", ".svg", ".css", ".js"}
#: Folders of experiments that hold code and data only.
LEFT_OUT = ("experiments/example_plugin", "experiments/configs")

#: Pages that are made, and not copied; notebooks become pages.
GENERATED = ("docs/reference/", "docs/notebooks/")

_LINK = re.compile(r"(?P<before>!?\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\()(?P<target>[^()\s]+)(?P<after>\))")
#: Comments that stand for what is generated: a table of a slot's components, a module's reference.
_TABLE = re.compile(r"<!-- components: (\w+) -->")
_MODULE = re.compile(r"<!-- interface: ([\w.]+) -->")


def places() -> dict[str, str]:
    """Path in the repository → path on the site."""
    found: dict[str, str] = {}
    for source, place in SOURCES.items():
        top = ROOT / source
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            name = path.relative_to(ROOT).as_posix()
            if path.is_file() and path.suffix in KEPT and not name.startswith(LEFT_OUT):
                inside = "" if top.is_file() else path.relative_to(top).as_posix()
                found[name] = posixpath.join(place, inside) if inside else place
    return found


def relinked(text: str, source: str, known: dict[str, str]) -> str:
    """A page's text with its links as they are on the site.

    Args:
        text: of the page.
        source: its path in the repository.
        known: see :func:`places`.

    Raises FileNotFoundError for a link to nothing.
    """

    def change(match: re.Match[str]) -> str:
        target, mark, anchor = match["target"].partition("#")
        if "://" in target or not target or target.startswith("mailto:"):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path in known:
            page = posixpath.relpath(known[path], posixpath.dirname(known[source]) or ".")
            return f"{match['before']}{page}{mark}{anchor}{match['after']}"
        if path.startswith(GENERATED):
            return match[0].replace(".ipynb", ".md")
        if not (ROOT / path).exists():
            raise FileNotFoundError(f"{source} links to {target}, and there is no {path}")
        name = match["text"].strip("`")
        return f"`{name}`" if name == path or "/" in name else f"{match['text']} (`{path}`)"

    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else _LINK.sub(change, part) for part in parts)


def assemble(target: Path = TARGET, *, generated: bool = True) -> Path:
    """Writes the site's source; what lay in the folder before is removed.

    Args:
        target: folder.
        generated: also the pages and tables that are read off the code, which imports all of it.
    """
    if target.exists():
        shutil.rmtree(target)
    known = places()
    for source, place in known.items():
        path = target / place
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix != ".md":
            shutil.copy(ROOT / source, path)
            continue
        text = relinked((ROOT / source).read_text(encoding="utf-8"), source, known)
        path.write_text(_with_tables(text) if generated else text, encoding="utf-8")
    if generated:
        from experiments.site.notebooks import pages as notebooks
        from experiments.site.tables import pages

        shown = notebooks(target / "notebooks")
        known |= {f"docs/{place}": place for place in shown}
        shown = {place: relinked(text, f"docs/{place}", known) for place, text in shown.items()}
        for place, text in {**pages(), **shown}.items():
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            (target / place).write_text(text, encoding="utf-8")
    return target


def _with_tables(text: str) -> str:
    from experiments.site.tables import components

    text = _TABLE.sub(lambda match: components(match[1]), text)
    return _MODULE.sub(r"::: \1", text)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    print(assemble())
