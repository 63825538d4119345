"""A run's folder taken up again, as a kill may have left it."""

from __future__ import annotations

import errno
import json
import os

import pytest

from nabla.core.errors import ConfigError, PromptError
from nabla.core.files import require_free
from nabla.core.locks import Lock
from nabla.core.prompt import Prompt, numbered
from nabla.launch.config.run import RunConfig
from nabla.launch.fingerprint import difference
from nabla.launch.resume import IDENTITY, LEFTOVERS, LOCK, SOLUTIONS, Earlier, Share, identity

PROMPTS = numbered([Prompt.of(text, id=str(i)) for i, text in enumerate(("1+1", "2+2", "3+3", "4+4"))])
ABOUT = {"config": {"seed": 0}, "models": {}, "versions": {}, "plugins": {}}


def begun(folder, lines: str = "") -> None:
    with Earlier(folder, ABOUT, PROMPTS) as earlier:
        earlier.begin()
    if lines:
        (folder / SOLUTIONS).write_text(lines, encoding="utf-8")


def row(key: str) -> str:
    return json.dumps({"id": key, "response": "∇"}, ensure_ascii=False)


def test_a_new_folder_has_nothing_to_take_up(tmp_path):
    earlier = Earlier(tmp_path / "new", ABOUT, PROMPTS)
    assert (earlier.found, earlier.lines) == (False, {})
    assert not (tmp_path / "new").exists()  # nothing is written before the models are there
    assert Earlier(None, {}, PROMPTS).lines == {}


@pytest.mark.parametrize("torn", ["", row("2")[:9], row("2")])  # the last without its end of line
def test_solved_prompts_are_known_and_a_torn_line_is_cut(torn, tmp_path):
    begun(tmp_path, f"{row('1')}\n{row('0')}\n{torn}")
    with Earlier(tmp_path, ABOUT, PROMPTS) as earlier:
        assert earlier.found
        assert earlier.lines == {"1": row("1"), "0": row("0")}
    assert (tmp_path / SOLUTIONS).read_text(encoding="utf-8") == f"{row('1')}\n{row('0')}\n"


def test_other_processes_rows_are_moved_to_the_first_ones_once(tmp_path):
    begun(tmp_path, f"{row('1')}\n")
    (tmp_path / "solutions-1.jsonl").write_text(f"{row('1')}\n{row('2')}\n", encoding="utf-8")
    (tmp_path / "solutions-2.jsonl").write_text(f"{row('3')}\n{{", encoding="utf-8")
    (tmp_path / "failures.jsonl").write_text('{"id": "0"}\n')  # is tried again
    (tmp_path / "failures-1.jsonl").write_text('{"id": "0"}\n')
    with Earlier(tmp_path, ABOUT, PROMPTS) as earlier:
        assert sorted(earlier.lines) == ["1", "2", "3"]
        assert len(list(tmp_path.glob("failures*"))) == 2  # kept until something runs
        earlier.begin()
    lines = (tmp_path / SOLUTIONS).read_text(encoding="utf-8").splitlines()
    assert lines == [row("1"), row("2"), row("3")]
    assert {p.name for p in tmp_path.iterdir()} == {SOLUTIONS, IDENTITY, LOCK}


def test_a_share_is_found_by_the_next_run_and_taken_while_its_process_lives(tmp_path):
    begun(tmp_path)
    share = Share(tmp_path, 1)
    share.append("solutions.jsonl", {"id": "0"})
    with pytest.raises(ConfigError, match="Another process"):
        Earlier(tmp_path, ABOUT, PROMPTS)
    share.close()
    with Earlier(tmp_path, ABOUT, PROMPTS) as earlier:
        assert list(earlier.lines) == ["0"]


def test_a_process_whose_parent_was_killed_ends(tmp_path, monkeypatch):
    share = Share(tmp_path, 1)
    monkeypatch.setattr("os.getppid", lambda: 1)
    with pytest.raises(SystemExit):
        share.append("solutions.jsonl", {"id": "0"})
    share.close()
    assert (tmp_path / "solutions-1.jsonl").read_text() == '{"id": "0"}\n'  # not lost


def test_a_full_disk_stops_no_process_of_several(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    share = Share(tmp_path, 1)
    monkeypatch.setattr(os, "write", full)
    share.append("solutions.jsonl", {"id": "0"})
    monkeypatch.undo()
    assert "kept in memory" in capsys.readouterr().err
    share.append("solutions.jsonl", {"id": "1"})
    share.close()
    assert (tmp_path / "solutions-1.jsonl").read_text() == '{"id": "0"}\n{"id": "1"}\n'


@pytest.mark.parametrize(
    ("about", "prompts", "message"),
    [
        ({**ABOUT, "config": {"seed": 1}}, PROMPTS, r"another configuration; config\.seed: 0 there, 1 here"),
        (ABOUT, numbered([Prompt.of("9+9", id="0")]), "another prompt of the id '0'"),
    ],
)
def test_another_run_is_refused_and_changes_nothing(about, prompts, message, tmp_path):
    begun(tmp_path, f"{row('1')}\n{{")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match=message):
        Earlier(tmp_path, about, prompts)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_prompts_may_be_added_and_left_out(tmp_path):
    begun(tmp_path, f"{row('1')}\n{row('0')}\n")
    more = [*PROMPTS[1:], Prompt.of("5+5", id="more")]
    with Earlier(tmp_path, ABOUT, more) as earlier:
        assert list(earlier.lines) == ["1"]  # of those that are asked for now
        earlier.begin()
    assert set(json.loads((tmp_path / IDENTITY).read_text())["prompts"]) == {"0", "1", "2", "3", "more"}


def test_two_prompts_of_one_id_leave_the_folder_alone(tmp_path):
    with pytest.raises(PromptError, match="same id"):
        Earlier(tmp_path / "new", ABOUT, [*PROMPTS, PROMPTS[0]])
    assert not (tmp_path / "new").exists()


def test_one_run_at_a_time(tmp_path):
    begun(tmp_path)
    with Lock(tmp_path / LOCK), pytest.raises(ConfigError, match="Another process"):
        Earlier(tmp_path, ABOUT, PROMPTS)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (SOLUTIONS, b"no json\n"),
        (SOLUTIONS, b"[1]\n"),
        (SOLUTIONS, b'{"id": "\xff"}\n'),
        (IDENTITY, b"{"),
        (IDENTITY, b"\xff"),
        (IDENTITY, b'{"prompts": 1}'),
    ],
)
def test_damage_is_named(name, data, tmp_path):
    begun(tmp_path)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match=f"{name} of the run's folder is damaged"):
        Earlier(tmp_path, ABOUT, PROMPTS)


def test_what_a_kill_leaves_of_a_trial_is_no_file_of_somebody_else(tmp_path):
    (tmp_path / ".writable-7-0a").write_text("x")
    require_free(tmp_path, LEFTOVERS)


def test_a_run_of_before_is_not_taken_up(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds a run already"):
        Earlier(tmp_path, ABOUT, PROMPTS).begin()
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_the_identity_is_of_what_results_depend_on():
    def found(**changes):
        config = RunConfig(lm="sandbox:latin-policy", rm="sandbox:latin-reward", **changes)
        return identity(config, config.resolved())

    first = found()
    assert first == found(callbacks=["cost"], loggers=["csv"], devices=2)
    assert set(first["models"]) == {"lm.0", "rm.0"}
    assert first != found(seed=1)
    assert first != found(method="greedy")


def test_the_identity_knows_the_files_that_a_reward_names_itself(tmp_path):
    tokenizer, gate = tmp_path / "tok", tmp_path / "a.gate.json"
    tokenizer.mkdir()
    reward = {"name": "outcome", "path": "sandbox:latin-reward", "tokenizer": str(tokenizer)}
    resolved = {"method": {"name": "backtrack", "gate": {"file": str(gate)}}}
    config = RunConfig(lm="sandbox:latin-policy", rm=reward)

    def found(file, text):
        (tokenizer / "tokenizer.json").write_text("{}")
        gate.write_text("{}")
        file.write_text(text)
        return identity(config, resolved)

    before = found(gate, "{}")
    assert difference(before, found(gate, "{}")) is None
    assert "rm.0.tokenizer" in difference(before, found(tokenizer / "tokenizer.json", "{ }"))
    assert "gates" in difference(before, found(gate, "{ }"))
