from __future__ import annotations

import pytest

from nabla.core.errors import ConfigError
from nabla.core.trust import code_allowed, require_trusted


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"trust_remote_code": True}, "trust_remote_code"),
        ({"trust_remote_code": "yes"}, "trust_remote_code"),
        ({"name": "function", "function": "os:getcwd"}, "function"),
        ({"members": ["a", {"function": "os:getcwd"}]}, "members.1.function"),
        ({"metric": "os.path:commonprefix"}, "metric"),
        ({"weights_only": False}, "weights_only"),
        ({"attn_implementation": "somebody/kernels"}, "attn_implementation"),
        ({"use_kernels": True}, "use_kernels"),
    ],
)
def test_settings_that_run_code_need_leave(values, path):
    require_trusted(values)  # in Python nobody is asked
    with code_allowed(True):
        require_trusted(values)
    with code_allowed(False), pytest.raises(ConfigError, match="--allow-code") as caught:
        require_trusted(values, "rm")
    assert caught.value.path == f"rm.{path}"


def test_data_needs_none():
    with code_allowed(False):
        require_trusted({"trust_remote_code": False, "dtype": "auto", "attn_implementation": "sdpa"})
        require_trusted(["a", 1, None])
        with code_allowed(True):
            require_trusted({"use_kernels": 1})
        with pytest.raises(ConfigError):  # the leave has ended
            require_trusted({"use_kernels": 1})
