"""``nabla ablate``: options, output, errors."""

from __future__ import annotations

import json

import pytest
import yaml

from nabla.cli import main
from tests.study.ablation.small import values


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    status = main(["ablate", *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(values(factors={"method.dto.steps": [2, 1]}), sort_keys=False))
    return str(path)


def test_a_quick_run_and_its_report(config, capsys, tmp_path):
    status, out, err = run(capsys, config, "--quick")
    assert status == 0, err
    assert "squares, 1 problems, 1 seed: effects against steps: 2" in out
    assert "2/2 1: squares" in err
    folder = tmp_path / "runs" / "small-ablation-quick"
    summary = (folder / "summary.json").read_text()
    assert json.loads(summary)["complete"]
    status, again, _ = run(capsys, "--report", str(folder))
    assert (status, again) == (0, out)
    assert (folder / "summary.json").read_text() == summary
    status, _, err = run(capsys, config, "--problems", "2", "--output", str(folder))
    assert status == 2
    assert "another ablation" in err
    assert (folder / "summary.json").read_text() == summary


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to ablate"),
        (("nowhere.yaml",), "cannot be read"),
        (("--report", "nowhere"), "no results"),
        (("CONFIG", "--problems", "0"), "problems must be at least 1"),
        (("CONFIG", "--workers", "0"), "workers must be at least 1"),
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(arguments, message, config, capsys, tmp_path):
    status, out, err = run(capsys, *(config if a == "CONFIG" else a for a in arguments))
    assert status == 2
    assert message in err
    assert err.startswith("nabla: error: ")
    assert out == ""
    assert not (tmp_path / "runs").exists()


def test_unknown_levels_leave_nothing(config, capsys, tmp_path):
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(values(factors={"method.selector": ["all", "al"]})))
    status, _, err = run(capsys, "bad.yaml")
    assert status == 2
    assert "At method.selector = al: Unknown component in selectors (got 'al'). Did you mean 'all'" in err
    assert not (tmp_path / "runs").exists()
