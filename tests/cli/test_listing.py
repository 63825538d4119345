"""``nabla list``: what it reads from the source is what the registries say; it imports no model library."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nabla.cli import listing as module
from nabla.cli import main
from nabla.cli.listing import Listing, imported, listing, read_source
from nabla.launch.config.slots import SLOTS

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "lightning", "peft", "scipy", "datasets", "hypothesis")


def python(script: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, [ROOT, *folders]))
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )


@pytest.mark.parametrize("slot", SLOTS)
def test_the_source_tells_what_the_registry_holds(slot):
    found = imported(slot)
    assert found.components
    bare = tuple(replace(c, signature=None, home=None) for c in found.components)
    expected = replace(found, components=bare)
    assert read_source(slot) == expected


def test_a_slot_alone_shows_the_class_behind_each_name(capsys):
    assert main(["list", "boundaries"]) == 0
    assert "nabla.rollouts.boundaries.regex.Regex" in capsys.readouterr().out
    homes = {c.name: c.home for c in imported("boundaries").components}
    assert homes["newline"] == "nabla.rollouts.boundaries.newline.Newline"


@pytest.mark.parametrize("arguments", [["list"], ["--help"], ["list", "--help"]], ids=" ".join)
def test_no_model_library_is_imported(arguments):
    script = f"import sys\nfrom nabla.cli import main\nassert main({arguments}) == 0\n"
    script += f"print([name for name in {HEAVY} if name in sys.modules])"
    done = python(script)
    assert done.returncode == 0, done.stderr
    *lines, heavy = done.stdout.splitlines()
    assert heavy == "[]"
    assert len(lines) > 4


def test_components_are_imported_without_what_only_running_them_needs():
    """PyTorch is what they are written in; models are loaded, scored and stored by others."""
    script = "import sys\nfrom nabla.launch.config.slots import slots\n"
    script += "assert sum(len(registry) for registry in slots().values()) > 70\n"
    script += f"print([name for name in {HEAVY} if name in sys.modules])"
    done = python(script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["['torch']"]


def test_a_component_that_was_registered_in_this_process_is_listed():
    script = """
from nabla.cli import main
from nabla.selectors.base import Selector, selectors

@selectors.register("mine")
class Mine(Selector):
    '''Every second position.'''

assert main(["list"]) == 0
"""
    done = python(script)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "Every second position" in line]
    assert line.split() == ["mine", "Every", "second", "position", "[__main__]"]
    assert "straight-through-identity" in done.stdout


def test_a_component_of_another_package_is_listed(tmp_path):
    (tmp_path / "elsewhere.py").write_text(
        "from nabla.selectors.base import Selector\n"
        "class Odd(Selector):\n    '''Odd positions. And no others.'''\n"
    )
    about = tmp_path / "elsewhere-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[nabla.selectors]\nodd = elsewhere:Odd\n")
    done = python("from nabla.cli import main\nassert main(['list']) == 0", tmp_path)
    assert done.returncode == 0, done.stderr
    plain = python("from nabla.cli import main\nassert main(['list']) == 0")
    added = set(done.stdout.splitlines()) - set(plain.stdout.splitlines())
    (line,) = [line for line in added if "[elsewhere]" in line]
    assert line.split() == ["odd", "Odd", "positions", "[elsewhere]"]
    assert all(line in done.stdout.splitlines() for line in plain.stdout.splitlines())


@pytest.fixture
def slot(tmp_path, monkeypatch):
    """A slot ``fruits`` of a package ``market``; call it with the source of a component."""
    folder = tmp_path / "market"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "base.py").write_text(
        '"""Fruits: what is eaten."""\n'
        "from nabla.core.registry import Registry\n"
        "class Fruit:\n    '''A fruit.'''\n"
        'fruits: Registry[Fruit] = Registry("fruits", lambda: Fruit, __package__)\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(SLOTS, "fruits", "market.base")
    monkeypatch.delitem(sys.modules, "market", raising=False)

    def write(component: str):
        (folder / "component.py").write_text("from market.base import Fruit, fruits\n" + component)
        return read_source("fruits")

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == "market"]:
        del sys.modules[name]


APPLE = "@fruits.register('apple')\nclass Apple(Fruit):\n    '''Red.\n\n    Round.\n    '''\n"


def test_a_slots_own_folder_is_read(slot, monkeypatch):
    found = slot(APPLE)
    assert found.about == "Fruits: what is eaten."
    assert [(c.name, c.doc, c.package) for c in found.components] == [("apple", "Red.\n\nRound.", "nabla")]
    assert "market.base" not in sys.modules
    monkeypatch.setattr(module, "imported", lambda _: pytest.fail("it has been imported"))
    assert listing("fruits") == found


@pytest.mark.parametrize(
    "component",
    [
        "",
        "NAME = 'apple'\n" + APPLE.replace("'apple'", "NAME"),
        "@fruits.register('apple')\nclass Apple(Fruit):\n    pass\n",
        APPLE + APPLE.replace("Apple", "Other"),
    ],
    ids=["nothing", "a name that is computed", "an inherited docstring", "a name twice"],
)
def test_where_the_source_does_not_tell_the_slot_is_imported(slot, component, monkeypatch):
    assert slot(component) is None
    monkeypatch.setattr(module, "imported", lambda name: Listing(f"imported {name}", ()))
    assert listing("fruits").about == "imported fruits"
