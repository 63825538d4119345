from __future__ import annotations

import base64
import errno
import gzip
import json
import random
import re
from pathlib import Path

import pytest

from nabla.cli import main
from nabla.core import pages
from nabla.core.errors import ConfigError
from nabla.launch.view.page import of_runs, packed
from nabla.launch.view.steps import Steps
from nabla.launch.view.texts import Nodes
from tests.launch.view import made


def data(page: str) -> dict:
    """What the page holds."""
    begin = page.index('type="application/gzip">') + len('type="application/gzip">')
    return json.loads(gzip.decompress(base64.b64decode(page[begin : page.index("</script>", begin)])))


def test_nothing_in_the_data_can_end_it(tmp_path):
    page = of_runs([made.folder(tmp_path / "r")])
    assert made.EVIL not in page
    assert page.count("</script>") == page.count("<script")
    found = data(page)
    problem = found["runs"][0]["problems"][1]
    assert made.EVIL in problem["prompt"]
    assert made.EVIL in problem["response"]
    text = packed(["</script>", "<!--", "\u2028", "&amp;", float("nan"), "\ud800"])
    assert re.fullmatch("[A-Za-z0-9+/]+=*", text)
    unpacked = json.loads(gzip.decompress(base64.b64decode(text)))
    assert unpacked == ["</script>", "<!--", "\u2028", "&amp;", None, "\ud800"]


def test_the_same_runs_are_the_same_page(tmp_path):
    runs = [made.folder(tmp_path / "r")]
    assert of_runs(runs) == of_runs(runs)


def test_the_title_is_escaped(tmp_path):
    page = of_runs([made.folder(tmp_path / "<b>&")])
    assert "<b>" not in page
    assert "&lt;b&gt;&amp;: nabla-reasoner" in page


def test_a_page_loads_nothing(tmp_path):
    page = of_runs([made.folder(tmp_path / "r")])
    assert page.startswith(pages.MARK)
    assert "default-src 'none'" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page
    assert "src=" not in page


def test_fifty_problems_of_500_tokens_stay_below_five_megabytes(tmp_path):
    """16 proposals each, of words that hardly repeat and numbers that do not: nothing is small by luck."""
    draw = random.Random(1)
    trace = made.Made(words=["".join(draw.choices("etaoinshrdlu ", k=5)) for _ in range(4000)])
    for number in range(50):
        trace.problem(f"p{number}", length=500, proposals=16)
    page = of_runs([trace.write(tmp_path / "trace.jsonl")])
    assert len(page.encode()) < 5_000_000
    assert len(data(page)["runs"][0]["problems"]) == 50


def test_a_text_shares_the_tokens_that_it_begins_with():
    nodes = Nodes()
    line = {"log_probs": [], "entropy": [], "top1": []}
    nodes.add({"text": 0, "ids": [1, 2, 3], "pieces": ["a", "b", "c"], **line})
    nodes.add({"text": 1, "like": 0, "shared": 2, "ids": [9], "pieces": ["z"], **line})
    assert nodes.texts[1] == [0, 1, 3]
    assert nodes.find([1, 2, 9]) == 1
    assert nodes.find([7]) is None
    assert nodes.packed()["texts"] == {0: [0, 3], 1: [0, 2, 3, 1]}
    pieces = {"words": ["a", "b", "c", "z"], "at": [0, 1, 2, 3]}
    assert nodes.packed()["columns"] == {"piece": pieces}  # nothing else is known
    again = {"text": 1, "ids": [1, 2, 9], "pieces": ["a", "b", "z"], **line, "entropy": [0.1, 0.2, 0.3]}
    nodes.add(again)
    assert nodes.texts[1] == [0, 1, 3]
    assert nodes.columns["entropy"] == [0.1, 0.2, None, 0.3]
    nodes.judge({"text": 1, "reward": 1.0, "ends": [2], "values": [0.123456]})
    assert nodes.packed()["columns"]["value"] == {"nodes": [3], "values": [0.123]}
    assert nodes.packed()["columns"]["entropy"] == [0.1, 0.2, None, 0.3]


def test_a_text_that_is_written_again_has_its_reward():
    """It is judged once, and drawn anew after a restart, or by another branch of a search."""
    nodes = Nodes()
    line = {"log_probs": [], "entropy": [], "top1": []}
    nodes.add({"text": 0, "ids": [1, 2], "pieces": ["a", "b"], **line})
    nodes.add({"text": 1, "like": 0, "shared": 2, "ids": [3], "pieces": ["c"], **line})
    for text, reward in enumerate((0.5, 2.5)):
        nodes.judge({"text": text, "reward": reward, "ends": [], "values": []})
    steps = Steps(nodes)
    steps.take({"event": "rollout", "text": 0})
    assert [(step["text"], step["reward"]) for step in steps.steps] == [(0, 0.5)]
    steps.take({"event": "rollout", "text": 1})  # the same one, written further
    assert [(step["text"], step["reward"]) for step in steps.steps] == [(1, 2.5)]


def test_the_steps_of_a_solve(tmp_path):
    (run,) = data(of_runs([made.folder(tmp_path / "r")]))["runs"]
    problem = run["problems"][0]
    kinds = [(step["kind"], step.get("outcome")) for step in problem["steps"]]
    assert kinds == [("draft", None), *[("proposal", "rejected"), ("proposal", "accepted")] * 3]
    assert [step.get("stop") for step in problem["steps"]] == [None, None, None, 13, None, None, None]
    assert problem["correct"] is False
    assert len(problem["refined"]) == 6
    calls = [step["spent"][0] for step in problem["steps"]]
    assert calls == sorted(calls)


def test_a_run_without_a_trace_shows_its_proposals(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = ["--method.max_rollouts", "3", "--accelerator", "cpu", "--method.selector", "all"]
    short += ["--method.proposal", "{name: sample, temperature: 3.0}"]
    assert main(["solve", "28*6+68-71+94", "--output", "plain", *short]) == 0
    assert main(["solve", "28*6+68-71+94", "--output", "traced", "--trace", *short]) == 0
    assert main(["view", "plain", "traced", "--output", "page.html"]) == 0
    assert "open it in a browser" in capsys.readouterr().out
    plain, traced = data(Path("page.html").read_text())["runs"]
    assert [plain["traced"], traced["traced"]] == [False, True]
    outcomes = [
        [step["outcome"] for step in run["problems"][0]["steps"] if "outcome" in step]
        for run in (plain, traced)
    ]
    assert outcomes[0] == outcomes[1] != []
    assert plain["problems"][0]["response"] == traced["problems"][0]["response"]
    assert traced["problems"][0]["correct"] in (True, False)
    assert main(["view", "plain", "--output", "page.html"]) == 0  # a page may be made anew
    Path("mine.html").write_text("by hand")
    assert main(["view", "plain", "--output", "mine.html"]) == 2
    assert Path("mine.html").read_text() == "by hand"
    assert main(["view", "plain"]) == 2
    assert main(["view", "nowhere", "--output", "x.html"]) == 2
    Path("empty").mkdir()
    assert main(["view", "empty", "--output", "x.html"]) == 2
    assert main(["solve", "1+1", "--output", "none", "--trace", *short]) == 2
    said = capsys.readouterr().err
    assert "neither trace.jsonl nor solutions.jsonl" in said
    assert "Traceback" not in said


def test_a_run_that_goes_on_has_one_trace(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("one.txt").write_text("28*6+68-71+94\n")
    Path("two.txt").write_text("28*6+68-71+94\n53*6-50+29-41\n")
    rest = ["--output", "out", "--trace", "--method", "greedy", "--accelerator", "cpu"]
    assert main(["solve", "--prompts", "one.txt", *rest]) == 0
    assert main(["solve", "--prompts", "two.txt", *rest]) == 0
    (run,) = data(of_runs([Path("out")]))["runs"]
    assert len(run["problems"]) == 2


@pytest.mark.parametrize("change", [{"like": 9, "shared": 1}, {"ids": None}, {"shared": "x"}])
def test_damaged_lines_are_an_error(tmp_path, change):
    trace = made.Made()
    trace.problem("a", proposals=1)
    for line in trace.lines:
        if line["event"] == "text":
            line |= change
    with pytest.raises(ConfigError, match="damaged"):
        of_runs([trace.write(tmp_path / "t.jsonl")])


@pytest.mark.parametrize(
    ("event", "change"),
    [
        ("problem", {"prompt": None}),
        ("problem", {"prompt": 5}),
        ("text", {"pieces": [{}, [], {}]}),
        ("text", {"entropy": ["x"]}),
        ("text", {"entropy": [10**400]}),
        ("text", {"like": float("inf"), "shared": 1}),
        ("solution", {"cost": []}),
    ],
)
def test_values_of_another_kind_are_damage_and_no_bug(tmp_path, capsys, event, change):
    trace = made.Made()
    trace.problem("a", proposals=1)
    for line in trace.lines:
        if line["event"] == event:
            line |= change
    trace.write(tmp_path / "t.jsonl")
    assert main(["view", str(tmp_path / "t.jsonl"), "--output", str(tmp_path / "x.html")]) == 2
    said = capsys.readouterr().err
    assert "is damaged" in said
    assert "bug" not in said
    assert not (tmp_path / "x.html").exists()


@pytest.mark.parametrize("target", ["loop", "nowhere"])
def test_a_link_of_somebody_is_no_page(tmp_path, capsys, target):
    trace = made.Made()
    trace.problem("a", proposals=1)
    trace.write(tmp_path / "t.jsonl")
    (tmp_path / "loop").symlink_to(target)
    assert main(["view", str(tmp_path / "t.jsonl"), "--output", str(tmp_path / "loop")]) == 2
    assert "no page of nabla" in capsys.readouterr().err
    assert (tmp_path / "loop").is_symlink()
    assert main(["view", "x" * 300, "--output", str(tmp_path / "x.html")]) == 2
    assert "The run cannot be read: File name too long" in capsys.readouterr().err


def test_a_page_behind_a_link_is_made_anew_there(tmp_path):
    pages.save(f"{pages.MARK} one", tmp_path / "x.html")
    (tmp_path / "link").symlink_to("x.html")
    pages.save(f"{pages.MARK} two", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "x.html").read_text() == f"{pages.MARK} two"


def test_a_full_disk_leaves_the_page_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "x.html"
    pages.save(f"{pages.MARK} one", path)

    def full(self, data):
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ConfigError, match="The page cannot be written: No space"):
        pages.save(f"{pages.MARK} two", path)
    assert path.read_text() == f"{pages.MARK} one"
    assert list(tmp_path.iterdir()) == [path]
