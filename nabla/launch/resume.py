"""A run's folder taken up again: whether it is of the same run, and which prompts are solved already."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from nabla.core.errors import ConfigError
from nabla.core.files import (
    PROBE,
    Appender,
    decode,
    drop_torn_end,
    json_line,
    parse_json,
    read_bytes,
    replace_whole,
    require_free,
    unwritable,
)
from nabla.core.locks import Lock
from nabla.core.prompt import Prompt, require_distinct
from nabla.launch.config.run import RunConfig
from nabla.launch.fingerprint import difference, digest, known_to, model, parts, surroundings

#: What the folder's solutions are solutions of.
IDENTITY = "fingerprint.json"
SOLUTIONS = "solutions.jsonl"
LOCK = ".lock"
#: What a kill may leave in a folder before it says whose it is.
LEFTOVERS = (LOCK, f"{IDENTITY}.*partial", f"{PROBE}*")
#: Settings of a run that no result depends on; on ``threads`` the last bits of rewards do.
_FREE = ("callbacks", "loggers", "devices", "strategy", "num_nodes", "place", "threads")


def identity(config: RunConfig, resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that two runs must have in common for one to go on with the other, as plain data.

    Args:
        config: of the run.
        resolved: the same with every default written out.
    """
    roles = {"lm": (config.lm, config.lm_arguments), "rm": (config.rm, config.rm_arguments)}
    return {
        "config": {key: value for key, value in resolved.items() if key not in _FREE},
        "models": {
            f"{role}.{index}": model(path, own)
            for role, (spec, arguments) in roles.items()
            for index, (path, own) in enumerate(parts(spec, arguments))
        },
        **surroundings(resolved),
    }


class Earlier:
    """What an interrupted run has left in a folder; nothing where there is none.

    Args:
        path: of the folder, this process's alone from now on if it holds a run; None for no folder.
        about: the :func:`identity` of the run that is to go on.
        prompts: all of its prompts.

    Raises PromptError for two prompts of the same id, and ConfigError for a folder of another configuration,
    of other prompts under the same ids, of a process that still writes, and for a damaged one; nothing is
    changed then.
    """

    def __init__(self, path: Path | None, about: Mapping[str, Any], prompts: Sequence[Prompt]) -> None:
        require_distinct(prompts)
        self.path = path
        self._about = json.loads(json.dumps(about, default=str))  # as it reads from disk
        self._prompts = {p.id: _digest(p) for p in prompts}
        #: Id → the line that was written of its solution.
        self.lines: dict[str, str] = {}
        self._lock: Lock | None = None
        self.found = path is not None and (path / IDENTITY).is_file()
        if path is not None and self.found:
            self._require_same(path)
            wanted = {p.id for p in prompts}
            self._lock = Lock(path / LOCK)
            try:
                for part in sorted(path.glob("solutions-*.jsonl")):
                    Lock(part).close()  # an error if a process has outlived the run
                self.lines = {key: text for key, text in _collect(path).items() if key in wanted}
            except BaseException:
                self.close()
                raise

    def _require_same(self, path: Path) -> None:
        there = _parsed(read_bytes(path / IDENTITY), path / IDENTITY)
        before = there.pop("prompts", {})
        if not isinstance(before, dict):
            raise _damaged(path / IDENTITY)
        found = difference(there, known_to(there, self._about))
        if found is not None:
            raise ConfigError(
                f"The folder holds a run of another configuration; {found}",
                got=str(path),
                fix="Choose another --output; with the configuration of before the run would go on.",
            )
        for key, value in self._prompts.items():
            if before.get(key, value) != value:
                raise ConfigError(
                    f"The folder holds a run with another prompt of the id {key!r}",
                    got=str(path),
                    fix="Choose another --output, or give new prompts ids of their own.",
                )
        self._prompts = {**before, **self._prompts}

    def begin(self) -> None:
        """Writes down whose folder it is, before anything else is in it. Raises ConfigError for a folder that
        holds another run or cannot be written."""
        if self.path is None:
            return
        if not self.found and (self.path / "run.json").exists():
            require_free(self.path)
        text = json.dumps({**self._about, "prompts": self._prompts}, indent=1, ensure_ascii=False)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = self._lock or Lock(self.path / LOCK)
            replace_whole(self.path / IDENTITY, text + "\n")
            for failed in self.path.glob("failures*.jsonl") if self.found else ():
                failed.unlink()  # they are tried again
        except OSError as error:
            raise unwritable(self.path, error) from error

    def close(self) -> None:
        """Lets others have the folder."""
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> Earlier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Share:
    """Rows of a process that is not the first one: beside the first one's, until that has them too.

    Args:
        folder: of the run.
        rank: of the process.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self.path, self.rank = folder, rank
        self._parent = os.getppid()
        self._locks: dict[str, Lock] = {}
        self._files: dict[str, Appender] = {}

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """One line, on disk when this returns; one that the disk does not take is kept, and the first process
        gets it at the end all the same. Ends this process if the first one was killed."""
        path = self.path / f"{Path(name).stem}-{self.rank}.jsonl"
        if name not in self._locks:
            self._locks[name] = Lock(path)
            self._files[name] = Appender(path, shared=True)
        self._files[name].append(json_line(row))
        if os.getppid() != self._parent:
            raise SystemExit(1)

    def close(self) -> None:
        """Ends this process's use of its files."""
        for lock in self._locks.values():
            lock.close()


def gather(folder: Path) -> None:
    """Removes the other processes' rows: the first one has them."""
    for name in ("solutions", "failures"):
        for path in folder.glob(f"{name}-*.jsonl"):
            path.unlink()


def _collect(folder: Path) -> dict[str, str]:
    """Id → line, of all processes; those of others are moved to the first one's file, torn ends cut off."""
    own = folder / SOLUTIONS
    found = _lines(own)
    more: dict[str, str] = {}
    for path in sorted(folder.glob("solutions-*.jsonl")):
        more |= {key: text for key, text in _lines(path).items() if key not in found}
    if more:
        with own.open("ab") as file:
            file.write("".join(text + "\n" for text in more.values()).encode())
            file.flush()
            os.fsync(file.fileno())
    for path in folder.glob("solutions-*.jsonl"):
        path.unlink()
    return found | more


def _lines(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    found: dict[str, str] = {}
    for text in whole.split(b"\n")[:-1]:
        row = _parsed(text, path)
        found.setdefault(str(row.get("id")), text.decode("utf-8"))
    if len(whole) < len(data):  # a kill in the middle of a write
        drop_torn_end(path)
    return found


def _parsed(data: bytes, path: Path) -> dict[str, Any]:
    try:
        found = parse_json(decode(data))
    except ValueError as error:
        raise _damaged(path, f": {error}") from error
    if not isinstance(found, dict):
        raise _damaged(path)
    return found


def _damaged(path: Path, why: str = "") -> ConfigError:
    return ConfigError(
        f"{path.name} of the run's folder is damaged{why}", got=str(path), fix="Choose another --output."
    )


def _digest(prompt: Prompt) -> str:
    return digest([prompt.source, [[m.role, m.content] for m in prompt.messages]])
