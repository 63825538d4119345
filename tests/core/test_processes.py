"""Processes that work for this one: a program that would run itself again is told, and none is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nabla.core.errors import NablaError
from nabla.core.processes import spawned

ROOT = Path(__file__).parents[2]
UNGUARDED = """
from pathlib import Path
from nabla.core.processes import spawned
Path("started").open("a").write("x")
def go():
    with spawned(1) as pool:
        print(pool.submit(abs, -3).result())
"""


def program(tmp_path: Path, text: str, *how: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "program.py").write_text(text)
    return subprocess.run(
        [sys.executable, *(how or ("program.py",))],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    "call", ["go()", "if True:\n    go()", "if __name__ == 'x':\n    pass\nelse:\n    go()"]
)
def test_a_program_without_a_guard_is_told_at_once(call, tmp_path):
    done = program(tmp_path, UNGUARDED + call)
    assert done.returncode == 1
    assert "each of them would run again" in done.stderr
    assert "program.py:" in done.stderr
    assert 'if __name__ == "__main__":' in done.stderr
    assert (tmp_path / "started").read_text() == "x"  # nothing else was started


@pytest.mark.parametrize("how", [(), ("-m", "program")])
def test_a_guarded_program(how, tmp_path):
    done = program(tmp_path, UNGUARDED + "if __name__ == '__main__':\n    go()", *how)
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


def test_a_program_that_is_piped_in_is_told(tmp_path):
    done = program(tmp_path, UNGUARDED + "if __name__ == '__main__':\n    go()", "-")
    assert done.returncode == 1
    assert "it is no file" in done.stderr


def test_a_program_on_the_command_line_is_run_by_no_process_again(tmp_path):
    done = program(tmp_path, "", "-c", UNGUARDED + "go()")
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


def test_a_process_that_dies_is_told():
    with pytest.raises(NablaError, match="A process of this run has died"), spawned(1) as pool:
        pool.submit(os._exit, 9).result()


def test_nobody_waits_for_processes_after_a_signal():
    def interrupted():
        with spawned(1) as pool:
            pool.submit(abs, -3).result()
            busy = pool.submit(time.sleep, 60)
            while not busy.running():
                time.sleep(0.01)
            raise KeyboardInterrupt

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - begin < 30


def test_processes_end_with_the_one_that_was_killed(tmp_path):
    text = UNGUARDED.replace("print(pool.submit(abs, -3).result())", "\n        ".join([
        "print(pool.submit(os.getpid).result(), flush=True)", "pool.submit(time.sleep, 60).result()",
    ])) + "if __name__ == '__main__':\n    go()"  # fmt: skip
    (tmp_path / "program.py").write_text("import os, time\n" + text)
    with subprocess.Popen(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.kill()
        end = time.monotonic() + 30
        while alive(child) and time.monotonic() < end:
            time.sleep(0.1)
        left = alive(child)
        if left:
            os.kill(child, signal.SIGKILL)
        assert not left


def alive(process: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
