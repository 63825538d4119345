"""A wheel of the checkout, installed by itself, holds all that the package needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from nabla.problems.sandbox import MODELS, TASKS

ROOT = Path(__file__).parents[1]
UNTRACKED = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


def run(*arguments: str, path: Path, cwd: Path) -> str:
    """What Python prints, with modules found at ``path`` before all others."""
    changes = {"PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, **changes},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pip(*arguments: str, cwd: Path) -> None:
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
    run("-m", "pip", *quiet, *arguments, "--no-deps", "--no-index", path=cwd, cwd=cwd)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the builder's own folders do not end up in the checkout."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "nabla", source / "nabla", ignore=UNTRACKED)
    pip("wheel", ".", "--no-build-isolation", "--wheel-dir", str(built), cwd=source)
    (found,) = built.iterdir()
    return found


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's contents, as pip installs them."""
    target = tmp_path_factory.mktemp("site")
    pip("install", "--target", str(target), str(wheel), cwd=wheel.parent)
    return target


def test_wheel_contains_every_file_of_the_package(wheel: Path) -> None:
    files = {p.relative_to(ROOT).as_posix() for p in (ROOT / "nabla").rglob("*") if p.is_file()}
    wanted = {f for f in files if "__pycache__" not in f and not f.endswith(".pyc")}
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert {f for f in packed if ".dist-info/" not in f} == wanted
    assert "nabla/py.typed" in packed
    for model in MODELS:
        assert f"nabla/problems/sandbox/models/{model}/model.safetensors" in packed


def test_installed_wheel_is_what_runs(site: Path, tmp_path: Path) -> None:
    where = run("-c", "import nabla; print(nabla.__file__)", path=site, cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(site)


def test_installed_wheel_lists_what_the_checkout_lists(site: Path, tmp_path: Path) -> None:
    listed = run("-m", "nabla", "list", path=site, cwd=tmp_path)
    assert "nabla-reasoner" in listed
    assert listed == run("-m", "nabla", "list", path=ROOT, cwd=tmp_path)


def test_installed_wheel_runs_the_demo_as_the_checkout_does(site: Path, tmp_path: Path) -> None:
    demo = ("-m", "nabla", "demo", "--problems", "2")
    shown, expected = (solved(run(*demo, path=path, cwd=tmp_path)) for path in (site, ROOT))
    assert len(shown) == 2 * len(TASKS)
    assert shown == expected
    assert not list(tmp_path.iterdir())


def solved(shown: str) -> list[str]:
    """The line of each problem."""
    return [line for line in shown.splitlines() if "proposals accepted" in line]
