from __future__ import annotations

import json
import re

import pytest
import yaml

from nabla.core.errors import ConfigError
from nabla.launch.folder import RunFolder, default_folder, git_commit, versions


def test_a_run_leaves_configuration_versions_and_rows(tmp_path):
    folder = RunFolder(tmp_path / "a" / "b", {"seed": 1}, arguments=["solve"], device="cpu")
    assert yaml.safe_load((folder.path / "config.yaml").read_text()) == {"seed": 1}
    about = json.loads((folder.path / "run.json").read_text())
    assert about["status"] == "running"
    assert about["device"] == "cpu"
    assert about["versions"]["torch"] == versions()["torch"]
    folder.append("rows.jsonl", {"a": "∇"})
    folder.append("rows.jsonl", {"a": 2})
    lines = (folder.path / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"a": "∇"}, {"a": 2}]
    folder.finish("finished", solved=2)
    about = json.loads((folder.path / "run.json").read_text())
    assert (about["status"], about["solved"]) == ("finished", 2)


def test_a_folder_is_never_written_over(tmp_path):
    RunFolder(tmp_path, {}, arguments=[])
    with pytest.raises(ConfigError, match="holds a run already"):
        RunFolder(tmp_path, {}, arguments=[])


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--output"):
        RunFolder(tmp_path / "file" / "run", {}, arguments=[])


def test_default_folders_do_not_collide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = {default_folder("greedy") for _ in range(8)}  # in one second, none of them made
    assert len(folders) > 1
    first = folders.pop()
    assert re.fullmatch(r"runs/\d{8}-\d{6}-greedy-[0-9a-f]{4}", first.as_posix())
    first.mkdir(parents=True)
    drawn = iter([first.name[-4:], "new"])
    monkeypatch.setattr("nabla.launch.folder.secrets.token_hex", lambda _: next(drawn))
    assert default_folder("greedy") != first


def test_the_commit_is_a_hash_or_unknown():
    commit = git_commit()
    assert commit is None or len(commit.removesuffix("-dirty")) == 40
