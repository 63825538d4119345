"""Several processes of one run: one that dies is told, and nothing that was finished is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from nabla.core.errors import NablaError
from nabla.launch.group import together
from tests.core.test_processes import alive
from tests.study.evaluation.small import VALUES

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
SMALL = {
    **VALUES, "methods": {"best": {"name": "best-of-n", "n": 2}}, "seeds": [0], "budgets": {"calls": [50]},
}  # fmt: skip


def test_a_run_whose_other_process_was_killed_says_so_and_goes_on_later(tmp_path):
    file, out = tmp_path / "e.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump({**SMALL, "problems": 24, "shard": 3}))
    command = [sys.executable, "-m", "nabla", "evaluate", str(file), "--workers", "2", "--output", str(out)]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        other = _other(process.pid, out)
        os.kill(other, signal.SIGKILL)
        _, said = process.communicate(timeout=120)
    assert process.returncode in (2, 128 + signal.SIGTERM), said
    assert "process 2 of 2 was killed by SIGKILL" in said or "Another process of this run has died" in said
    assert "start the same command again" in said
    assert "Traceback" not in said
    assert not alive(other)
    kept = sum(path.read_bytes().count(b'"problem"') for path in out.rglob("journal-*.jsonl"))
    assert kept
    assert subprocess.run(command[:-4] + command[-2:], env=ENVIRONMENT, check=False).returncode == 0
    assert _problems(out) == 24


def _problems(out: Path) -> int:
    lines = (out / "records.jsonl").read_text().splitlines()
    return len({json.loads(line)["problem"] for line in lines})


def _other(parent: int, out: Path) -> int:
    """The second process, once it has solved something."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        time.sleep(0.1)
        if any(path.stat().st_size for path in out.glob("journal-1.jsonl")):
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
            return next(int(c) for c in children if b"evaluate" in Path(f"/proc/{c}/cmdline").read_bytes())
    raise AssertionError("the second process has solved nothing")


def run(folder: Path, *how: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *how],
        cwd=folder,
        env=ENVIRONMENT,
        input=PROGRAM,
        timeout=240,
        capture_output=True,
        text=True,
    )


PROGRAM = """
from pathlib import Path
from nabla.study.evaluation.runner import Evaluation
from tests.study.evaluation.small import small
for name, problems in (("a", 2), ("b", 3), ("c", 2)):
    config = small(problems=problems, seeds=[0], methods={"greedy": {"name": "greedy", "rm": None}}, shard=1)
    Evaluation(config, Path(name), workers=2).run()
"""


def test_several_evaluations_of_one_program_and_some_of_them_whole(tmp_path):
    """The second process comes to an evaluation that the first one found whole before there was a second."""
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    counts = {"a": 2, "b": 3, "c": 2}
    for _ in range(2):
        done = run(tmp_path, str(file))
        assert done.returncode == 0, done.stderr
        for name, count in counts.items():
            assert _problems(tmp_path / name) == count
        shutil.rmtree(tmp_path / "b")


@pytest.mark.parametrize("how", [["-c", PROGRAM], ["-"]])
def test_a_program_that_no_process_can_start_again(how, tmp_path):
    done = run(tmp_path, *how)
    assert done.returncode == 1
    assert "it is no file" in done.stderr
    assert not (tmp_path / "a").exists()


SLOW = """
import atexit, os, sys, time
from pathlib import Path

def wait(*_):
    Path("waits").write_text(str(os.getpid()))
    time.sleep(100)

def end():  # after it has left the group
    os.close(2)
    time.sleep(2)
    Path("ended").touch()

if __name__ == "__main__":
    if os.environ.get("LOCAL_RANK") == "1":
        if os.environ["WHERE"] == "joins":
            wait()
        atexit.register(end)
        import nabla.study.evaluation.runner as runner
        runner.Workshop = wait
    from nabla.cli import program
    raise SystemExit(program())
"""


@pytest.mark.parametrize("where", ["joins", "works"])
def test_a_signal_is_heard_while_the_first_process_waits_for_another_one(where, tmp_path):
    (tmp_path / "program.py").write_text(SLOW)
    (tmp_path / "e.yaml").write_text(yaml.safe_dump({**SMALL, "problems": 2, "shard": 1}))
    command = [sys.executable, "program.py", "evaluate", "e.yaml", "--workers", "2", "--output", "out"]
    environment = {**ENVIRONMENT, "WHERE": where}
    waits, own = tmp_path / "waits", tmp_path / "out" / "journal-0.jsonl"
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        end = time.monotonic() + 120
        while not waits.exists() or (where == "works" and not (own.exists() and own.stat().st_size)):
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < end
            time.sleep(0.1)
        time.sleep(1)  # until it waits
        process.terminate()
        begin = time.monotonic()
        _, said = process.communicate(timeout=60)
    assert time.monotonic() - begin < 25, said
    assert process.returncode == 128 + signal.SIGTERM, said
    assert said.count("nabla: error:") == 1
    assert "Interrupted (SIGTERM). What was finished is kept: the same command goes on" in said
    assert "Traceback" not in said
    assert (tmp_path / "ended").exists() == (where == "works")
    assert not alive(int(waits.read_text()))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("[pair.cc:553] Connection closed by peer [127.0.0.1]:46738. GLHF!", r"run has died\. What was"),
        ("Timed out waiting 1800000ms for recv", r"run does not answer \(Timed out .*\)\. What was"),
    ],
)
def test_what_is_done_together_says_who_is_missing(error, said):
    with pytest.raises(NablaError, match=said), together():
        raise RuntimeError(error)
