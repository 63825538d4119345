"""What the site is made of: pages and links, generated tables, the picture."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import yaml

from experiments.site import hooks, picture, results, roles, tables
from experiments.site.assemble import assemble, places, relinked
from nabla.engine.engine import Engine
from nabla.launch.config.run import RunConfig
from nabla.launch.config.slots import SLOTS
from nabla.refinement.dto import DTO
from nabla.study.ablation.config import AblationConfig
from nabla.study.evaluation.config import EvaluationConfig, TaskSetup
from tests.site.blocks import ROOT


def nav() -> list[str]:
    found: list[str] = []

    def walk(entry):
        if isinstance(entry, str):
            found.append(entry)
        for value in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
            walk(value)

    config = re.sub(r"!!\S+", "", (ROOT / "mkdocs.yml").read_text())
    walk(yaml.safe_load(config)["nav"])
    return found


@pytest.fixture(scope="module")
def generated():
    return tables.pages()


def test_every_page_is_in_the_navigation_once(generated):
    notebooks = {f"notebooks/{path.stem}.md" for path in (ROOT / "docs" / "notebooks").glob("*.ipynb")}
    written = {place for place in places().values() if place.endswith(".md")}
    hidden = {place for place in written if place.startswith(("experiments/results/", "notebooks/README"))}
    pages = (written | notebooks | set(generated)) - hidden
    assert len(set(nav())) == len(nav())
    assert pages == set(nav())


def test_pages_are_put_together_with_their_links(tmp_path):
    target = assemble(tmp_path / "site", generated=False)
    index = (target / "index.md").read_text()
    assert "(experiments/RESULTS.md)" in index
    assert (target / "experiments" / "theory" / "gap.png").exists()
    every = "".join(path.read_text() for path in target.rglob("*.md"))
    assert not re.search(r"\]\((?:\.\./)*(?:nabla|tests)/", every)


def test_a_page_loads_nothing_from_the_network(tmp_path):
    """The theme's offline plug-in loads a polyfill unless one of this name is given."""
    config = yaml.safe_load(re.sub(r"!!\S+", "", (ROOT / "mkdocs.yml").read_text()))
    target = assemble(tmp_path / "site", generated=False)
    assert config["theme"]["font"] is False
    (polyfill,) = config["extra"]["polyfills"]
    assert "iframe-worker" in polyfill
    for name in (polyfill, *config["extra_css"]):
        assert "http" not in (target / name).read_text()


def test_the_page_whose_links_begin_at_a_servers_root_is_left_out():
    config = SimpleNamespace(theme=SimpleNamespace(static_templates={"404.html", "sitemap.xml"}))
    assert hooks.on_config(config).theme.static_templates == {"sitemap.xml"}
    (hook,) = yaml.safe_load(re.sub(r"!!\S+", "", (ROOT / "mkdocs.yml").read_text()))["hooks"]
    assert (ROOT / hook).samefile(hooks.__file__)


def test_a_bar_in_a_cell_ends_no_cell_and_shows_as_itself():
    assert tables._cell("`str | None` or a\n|b|") == "<code>str &#124; None</code> or a &#124;b&#124;"
    assert tables._cell("`a<b | c` and `d`") == "<code>a&lt;b &#124; c</code> and `d`"


def test_a_class_breaks_between_its_names_alone():
    (row,) = [line for line in tables.components("methods").splitlines() if line.startswith("| `dvts` |")]
    assert "nabla.<wbr>methods.<wbr>searches.<wbr>dvts.<wbr>DVTS</code>" in row


def test_links_are_made_those_of_the_site():
    known = {"docs/a.md": "a.md", "docs/b/c.md": "b/c.md", "README.md": "about/readme.md"}
    text = relinked("[x](b/c.md#here), [y](../README.md) and [w](https://e.org)", "docs/a.md", known)
    assert text.startswith("[x](b/c.md#here), [y](about/readme.md) and ")
    link = "[the code](../nabla/core/errors.py)"
    assert relinked(link, "docs/a.md", known) == "the code (`nabla/core/errors.py`)"
    code = "```text\n[no](link.md)\n```"
    assert relinked(code, "docs/a.md", known) == code
    with pytest.raises(FileNotFoundError, match=r"docs/missing\.md"):
        relinked("[x](missing.md)", "docs/a.md", known)


def test_the_picture_is_the_one_that_is_drawn_and_has_every_slot():
    assert picture.PICTURE.read_text() == picture.drawing(), "python -m experiments.site.picture"
    assert {box.slot for box in picture.BOXES} == set(SLOTS)


def test_the_tables_of_the_readme_are_those_of_the_results():
    text = results.README.read_text()
    assert results.filled(text) == text, "python -m experiments.site.results"
    assert "| backtrack |" in text
    with pytest.raises(ValueError, match="stands 0 times"):
        results.filled("no table")


def test_roles_of_docstrings_are_code():
    said = "Asked by :meth:`~nabla.a.B.c` (:data:`LATER`), not by `:x`."
    assert roles.plain(said) == "Asked by `c` (`LATER`), not by `:x`."


@pytest.mark.parametrize("maker", [RunConfig, EvaluationConfig, TaskSetup, AblationConfig, DTO, Engine])
def test_every_setting_says_what_it_means(maker):
    import inspect

    said = tables.arguments(inspect.getdoc(maker) or "")
    names = [n for n, p in inspect.signature(maker).parameters.items() if p.kind is not p.VAR_KEYWORD]
    assert [name for name in names if not said.get(name)] == []
    shown = tables.settings(maker)
    assert shown.count("\n") == len(names) + 1
    assert all(f"| `{name}` |" in shown for name in names)


def test_the_reference_has_every_command_component_and_setting(generated):
    from nabla.cli.commands import COMMANDS
    from nabla.launch.config.slots import slots

    assert all(f"## nabla {name}\n" in generated["reference/commands.md"] for name in COMMANDS)
    for slot, registry in slots().items():
        for name in registry:
            if registry[name].__module__.startswith("nabla."):
                assert f"| `{name}` |" in generated["reference/components.md"], (slot, name)
    assert "`budgets`" in generated["reference/evaluate.md"]
    assert "`sampler`" in generated["reference/ablate.md"]
    assert "`estimator`" in generated["reference/solve.md"]
