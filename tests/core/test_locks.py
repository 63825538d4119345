from __future__ import annotations

import errno
import os

import pytest

from nabla.core import locks
from nabla.core.errors import ConfigError
from nabla.core.locks import Lock


def test_one_has_it_until_it_is_closed(tmp_path):
    with Lock(tmp_path / "lock"), pytest.raises(ConfigError, match="Another process"):
        Lock(tmp_path / "lock")
    Lock(tmp_path / "lock").close()


def test_a_file_system_without_locks_is_no_other_process(tmp_path, monkeypatch):
    def none(_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks, "_take", none)
    with pytest.raises(ConfigError, match=r"cannot be locked.*No locks available.*that has locks"):
        Lock(tmp_path / "lock")
