"""What the core dependencies suffice for, and what is said where an extra is missing."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from nabla.cli import main
from nabla.core.errors import ConfigError
from nabla.core.extras import EXTRAS, installed, require_extra

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED = PROJECT["optional-dependencies"]
OPTIONAL = {package for packages in EXTRAS.values() for package in packages}
PROMPT = "28*6+68-71+94"
SHORT = ["--output", "none", "--accelerator", "cpu", "--method.max_rollouts", "2"]

#: Read by every child process at its start: what is not in the core's closure cannot be found.
SITE = """
import os, sys
from importlib.machinery import PathFinder

ABSENT = set(os.environ["ABSENT"].split(","))
DISTRIBUTIONS = set(os.environ["ABSENT_DISTRIBUTIONS"].split(","))

class Core:
    invalidate_caches = PathFinder.invalidate_caches

    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in ABSENT else PathFinder.find_spec(name, path, target)

    @staticmethod
    def find_distributions(*context):
        return (d for d in PathFinder.find_distributions(*context) if d.name.lower() not in DISTRIBUTIONS)

sys.meta_path[sys.meta_path.index(PathFinder)] = Core
"""


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(r).name) for r in requirements}


def closure(requirements: list[str]) -> set[str]:
    """Distributions that these requirements bring, theirs included."""
    found: set[str] = set()
    waiting = [Requirement(r) for r in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        key = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if key in seen:
            continue
        seen.add(key)
        try:
            own = metadata.requires(wanted.name) or []
        except metadata.PackageNotFoundError:  # for another platform
            continue
        found.add(key[0])
        for text in own:
            inner = Requirement(text)
            marks = [{"extra": extra} for extra in ("", *wanted.extras)]
            if inner.marker is None or any(inner.marker.evaluate(mark) for mark in marks):
                waiting.append(inner)
    return found


@pytest.fixture(scope="module")
def core_only(tmp_path_factory):
    """Environment of a process that has the core dependencies and nothing else."""
    core = closure(PROJECT["dependencies"])
    owners = metadata.packages_distributions()
    absent = {top for top, dists in owners.items() if not {canonicalize_name(d) for d in dists} & core}
    absent -= {"nabla", "_distutils_hack"}
    gone = {d.name.lower() for d in metadata.distributions() if canonicalize_name(d.name) not in core}
    assert absent >= OPTIONAL  # or this test shows nothing
    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(SITE)
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]),
        "ABSENT": ",".join(absent),
        "ABSENT_DISTRIBUTIONS": ",".join(gone - {PROJECT["name"]}),
    }


def nabla(environment, *arguments, cwd=None):
    command = [sys.executable, "-m", "nabla", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, check=False)


def test_the_core_lists_every_component(core_only, capsys):
    found = nabla(core_only, "list")
    assert found.returncode == 0, found.stderr
    assert main(["list"]) == 0
    assert found.stdout == capsys.readouterr().out


def test_the_core_lists_the_arguments_of_every_slot(core_only, capsys):
    script = "from nabla.cli import main\nfrom nabla.launch.config.slots import slots\n"
    script += "for slot in slots():\n    assert main(['list', slot]) == 0"
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, capture_output=True, text=True, env=core_only, check=False)
    assert found.returncode == 0, found.stderr
    exec(script, {})
    assert found.stdout == capsys.readouterr().out


def test_the_core_shows_a_configuration(core_only):
    found = nabla(core_only, "show", str(ROOT / "experiments" / "configs" / "nabla_reasoner.yaml"))
    assert found.returncode == 0, found.stderr
    assert "nabla-reasoner" in found.stdout


def test_the_core_solves(core_only, tmp_path):
    found = nabla(core_only, "solve", PROMPT, "--json", *SHORT, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    solution = json.loads(found.stdout)
    assert solution["response"]
    assert solution["cost"]["counts"]["refined_positions"] > 0


def test_the_core_runs_the_demo(core_only, tmp_path):
    found = nabla(core_only, "demo", "--problems", "1", cwd=tmp_path)
    assert found.returncode in (0, 1), found.stderr  # 1: a single problem may be right at once
    assert not found.stderr.startswith("nabla: error"), found.stderr
    assert "reward" in found.stdout


_CALLS = """
import contextlib, io, json, sys
from nabla.cli import main
from nabla.core.errors import NablaError

def command(*arguments):
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        status = main(arguments)
    return status, errors.getvalue()

def call(run):
    try:
        run()
    except NablaError as error:
        return 2, str(error)
    return 0, ""

def grade():
    from nabla.problems.answers.math import MathAnswers
    assert MathAnswers().equal("42", "42.0")  # plain numbers need nothing
    MathAnswers().equal("x+1", "1+x")

def load():
    from nabla.problems.tasks.base import tasks
    tasks.build("gsm8k").problems()

def check():
    import nabla.testing
    nabla.testing.check_estimator

def draw():
    from pathlib import Path
    from nabla.study.ablation.plots import write_plots
    write_plots({"tasks": ["t"], "effects": [], "factors": {}}, Path("."))

def search():
    from nabla.study.ablation.config import AblationConfig
    from nabla.study.ablation.search import Search
    Search(AblationConfig.load(CONFIGS + "/ablations/proposals.yaml"))

def play():
    from nabla.problems.tasks.base import tasks
    tasks.build("reasoning-gym").problems(1)

def blocks():
    from pathlib import Path
    from nabla.models.causal_lm import CausalLM
    Path("model.gguf").write_bytes(b"GGUF")
    CausalLM.from_pretrained("model.gguf")

PROMPT, CONFIGS = sys.argv[1:3]
SHORT = sys.argv[3:]
SHARPENING = ["--method.name", "kl-matched-sharpening"]
BOARD = ["--loggers", "[tensorboard]", "--output", "board"]
found = {
    "theory": command("theory", "--list"),
    "evaluate": command("evaluate", "--config", CONFIGS + "/configs/sandbox.yaml", "--quick"),
    "ablate": command("ablate", CONFIGS + "/ablations/proposals.yaml", "--quick"),
    "compare": command("compare", "--problems", "1", "--output", "none"),
    "estimators": command("estimators", "--quick", "--output", "none"),
    "diagnose": command("diagnose", "--task", "latin", "--problems", "1", "--output", "none"),
    "bench": command("bench", "--targets", "1", "--repeats", "1", "--output", "bench"),
    "sharpening": command("solve", PROMPT, *SHORT, *SHARPENING),
    "tensorboard": command("solve", PROMPT, *SHORT, *BOARD),
    "math": call(grade),
    "datasets": call(load),
    "testing": call(check),
    "figures": call(draw),
    "search": call(search),
    "gguf": call(blocks),
    "gym": call(play),
}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def without_extras(core_only, tmp_path_factory):
    """(exit status, message) of whatever needs an extra, in a process that has none."""
    command = [sys.executable, "-c", _CALLS, PROMPT, str(ROOT / "experiments"), *SHORT]
    folder = tmp_path_factory.mktemp("run")
    done = subprocess.run(command, capture_output=True, text=True, env=core_only, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("feature", "extra", "package"),
    [
        ("theory", "theory", "scipy, ot, matplotlib"),
        ("evaluate", "eval", "scipy, statsmodels, matplotlib"),
        ("ablate", "eval", "scipy, statsmodels, matplotlib, optuna"),
        ("compare", "eval", "scipy, statsmodels"),
        ("estimators", "eval", "scipy, matplotlib"),
        ("diagnose", "eval", "scipy, matplotlib"),
        ("bench", "eval", "matplotlib"),
        ("sharpening", "eval", "scipy"),
        ("tensorboard", "loggers", "tensorboard"),
        ("math", "eval", "math_verify"),
        ("datasets", "eval", "datasets"),
        ("testing", "testing", "hypothesis"),
        ("figures", "eval", "matplotlib"),
        ("search", "eval", "optuna"),
        ("gguf", "gguf", "gguf"),
        ("gym", "gym", "reasoning_gym"),
    ],
)
def test_a_missing_extra_is_one_error_with_the_command(feature, extra, package, without_extras):
    status, message = without_extras[feature]
    assert status == 2
    assert f"Not installed: {package}. " in message
    assert f"pip install 'nabla-reasoner[{extra}]'" in message
    assert "Traceback" not in message
    assert message.count("pip install") == 1


def test_what_is_missing_is_named_and_what_is_there_is_not(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    require_extra("eval", "scipy", purpose="This")
    with pytest.raises(ConfigError, match=r"^Not installed: optuna\. This cannot do without\. Run: pip inst"):
        require_extra("eval", "scipy", "optuna", purpose="This")
    with pytest.raises(ConfigError, match=r"Not installed: optuna\."):
        require_extra("eval", purpose="All of it")


def test_a_folder_of_the_same_name_is_not_a_package(tmp_path, monkeypatch):
    (tmp_path / "someones_data").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not installed("someones_data")
    (tmp_path / "someones_package").mkdir()
    (tmp_path / "someones_package" / "__init__.py").touch()
    assert installed("someones_package")
    assert "someones_package" not in sys.modules


def test_pyproject_declares_what_the_extras_bring():
    owners = metadata.packages_distributions()
    for extra, packages in EXTRAS.items():
        assert {canonicalize_name(owners[package][0]) for package in packages} == names(DECLARED[extra])
    assert set(DECLARED) == {*EXTRAS, "docs", "all", "dev"}
    (everything,) = map(Requirement, DECLARED["all"])
    assert everything.name == PROJECT["name"]
    assert everything.extras == set(EXTRAS)
    assert f"{PROJECT['name']}[all,docs]" in DECLARED["dev"]
    assert "'.[dev]'" in (ROOT / "Makefile").read_text()


def imports(tree: ast.AST) -> set[str]:
    """Top-level packages that a module's code imports, in functions too."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def asked_for(tree: ast.AST) -> set[str]:
    """Packages that a module's code asks for with :func:`require_extra`."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "require_extra":
            extra, *packages = (argument.value for argument in node.args)  # type: ignore[attr-defined]
            assert extra in EXTRAS
            assert set(packages) <= set(EXTRAS[extra])
            found |= set(packages or EXTRAS[extra])
    return found


def test_optional_packages_are_asked_for_wherever_they_are_imported():
    # Programs of their own, started by a module that asks.
    alone = {"problems/answers/worker.py", "problems/tasks/gym_worker.py"}
    used: set[str] = set()
    for path in sorted((ROOT / "nabla").rglob("*.py")):
        tree = ast.parse(path.read_text())
        optional = imports(tree) & OPTIONAL
        used |= optional
        place = path.relative_to(ROOT / "nabla")
        if str(place) in alone:
            continue
        packages = [ROOT / "nabla" / folder / "__init__.py" for folder in place.parents]
        asked = asked_for(tree).union(*(asked_for(ast.parse(gate.read_text())) for gate in packages))
        assert optional <= asked, f"{place} imports {optional - asked} without require_extra"
    # Those are imported by lightning, by transformers and by experiments/training.
    assert used == OPTIONAL - {"tensorboard", "wandb", "gguf", "trl", "vaderSentiment"}
