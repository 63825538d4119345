"""The example package of CONTRIBUTING.md, installed beside nabla and not inside it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from nabla.cli.parsing import load_config
from tests.testing.server import serving, writer

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "experiments" / "example_plugin"
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
MODULES = ("top_k", "total_variation", "surprise")
PROMPT = "28*6+68-71+94"


def source(module):
    return (EXAMPLE / "nabla_example" / f"{module}.py").read_text()


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A site folder with the package and its metadata, as an installer leaves them; runs Python with it."""
    site = tmp_path_factory.mktemp("site")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    (site / "nabla_example").symlink_to(EXAMPLE / "nabla_example")
    info = site / f"nabla_example-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    sections = [
        f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in points.items())
        for group, points in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(sections))

    def run(*arguments, status=0):
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True, text=True, env=environment, cwd=site, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def test_the_contract_kit_accepts_it(installed):
    flags = ["-q", "-p", "no:cacheprovider", "--rootdir", str(EXAMPLE), "-c", os.devnull]
    found = installed("-m", "pytest", str(EXAMPLE / "test_contract.py"), *flags)
    assert re.search(r"\b\d\d passed", found)
    assert "failed" not in found


@pytest.mark.parametrize(
    ("slot", "name"),
    [
        ("estimators", "top-k-soft-embedding"),
        ("objectives", "total-variation"),
        ("selectors", "surprise"),
        ("rollouts", "served"),
    ],
)
def test_it_is_listed_with_its_package(installed, slot, name):
    found = installed("-m", "nabla", "list", slot)
    assert re.search(rf"{name} .*\[nabla_example\]", found)


def test_a_configuration_uses_it(installed):
    shown = installed("-m", "nabla", "show", str(EXAMPLE / "config.yaml"))
    for word in ("top-k-soft-embedding", "total-variation", "surprise", "smoothing: 0.01"):
        assert word in shown
    options = ["--accelerator", "cpu", "--output", "none"]
    solved = installed("-m", "nabla", "solve", "--config", str(EXAMPLE / "config.yaml"), PROMPT, *options)
    assert "Cost" in solved


def test_a_configuration_writes_over_http(installed, latin_lm, latin_prompts, tmp_path):
    """A run whose responses come from a server, found by the entry point's name."""
    from nabla.problems.sandbox import model_path

    with serving(writer(latin_lm.model, latin_lm.head.usable)) as server:
        config = {
            "lm": str(model_path("latin-policy")),
            "rm": str(model_path("latin-reward")),
            "method": {"name": "best-of-n", "n": 2, "sampling": {"max_new_tokens": 48}},
            "engine": {"rollout": {"name": "served", "url": server.url, "model": "latin"}},
        }
        (tmp_path / "served.yaml").write_text(yaml.safe_dump(config))
        options = ["--accelerator", "cpu", "--output", "none"]
        prompt = latin_prompts[0].text
        solved = installed(
            "-m", "nabla", "solve", "--config", str(tmp_path / "served.yaml"), prompt, *options
        )
        assert len(server.requests) == 2
    assert "Cost" in solved


def test_the_command_line_uses_it(installed):
    (line,) = re.findall(r"`nabla (solve .*?)`", CONTRIBUTING.replace("\n", " "))
    assert "top-k-soft-embedding" in line
    import shlex

    quick = ["--method.dto.steps", "2", "--accelerator", "cpu", "--output", "none"]
    assert "Cost" in installed("-m", "nabla", *shlex.split(line), *quick)


def test_without_the_package_its_names_are_unknown():
    """Nothing of it is inside nabla."""
    from nabla.core.errors import ConfigError
    from nabla.estimators.base import estimators

    if "top-k-soft-embedding" not in estimators:  # unless it is really installed
        config = load_config(str(EXAMPLE / "config.yaml"))
        with pytest.raises(ConfigError, match="Unknown component"):
            config.resolved()


# -- the worked example of CONTRIBUTING.md ---------------------------------------------------------


@pytest.mark.parametrize("module", MODULES)
def test_contributing_shows_the_files_as_they_are(module):
    assert f"```python\n{source(module)}```" in CONTRIBUTING


def test_contributing_shows_the_entry_points():
    lines = (EXAMPLE / "pyproject.toml").read_text()
    for block in re.findall(r"\[project\.entry-points[^[]*?\n\n", lines):
        assert block.strip() in CONTRIBUTING


@pytest.mark.parametrize("module", MODULES)
def test_each_component_has_under_thirty_lines(module):
    (body,) = re.findall(r"^class .*", source(module), re.MULTILINE | re.DOTALL)
    assert len([line for line in body.splitlines() if line.strip()]) < 30


def test_the_estimator_is_equation_25_on_the_kept_tokens(monkeypatch):
    from nabla.testing import check_estimator

    monkeypatch.syspath_prepend(str(EXAMPLE))
    from nabla_example.top_k import TopKSoftEmbedding

    def kept(z):
        lowest = z.detach().topk(min(3, z.shape[-1]), dim=-1).values[..., -1:]
        return (z.masked_fill(z < lowest, float("-inf")) / 0.5).softmax(-1)

    law = ["backward is the given closed form"]
    check_estimator(TopKSoftEmbedding(3, 0.5), surrogate=kept, laws=law)
    with pytest.raises(Exception, match="k must be at least 2"):
        TopKSoftEmbedding(1)
