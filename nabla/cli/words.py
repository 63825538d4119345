"""Advice in the words of the command line.

Errors name arguments as Python has them (``rm=...``), since that is the door which all others lead to. Here
they become options, or keys of the file that a command reads.
"""

from __future__ import annotations

import re

from nabla.launch.config.run import RunConfig

_METHOD = ("acceptance", "max_rollouts", "method", "proposal", "rounds", "sampling", "selector")
_DTO = ("estimator", "learning_rate", "objective", "steps")
_ENGINE = ("batch_size", "live", "rollout")
_SAMPLING = ("max_new_tokens", "temperature", "top_k", "top_p")
_LOADING = ("adapter", "chat_template", "device_map", "dtype", "num_labels", "special_tokens", "tokenizer")
_ARGUMENT = re.compile(r"\b([a-z_]+)=('[^']*'|\{[^}]*\}|\.\.\.|[\w.]+)")


#: What a message about a reward's model has in it.
_JUDGE = re.compile(r"reward model|For(Sequence|Token)Classification")


def _path(name: str, about: str) -> str | None:
    """Key path of an argument in a run's configuration."""
    if name in RunConfig.__dataclass_fields__:
        return name
    places = {"method": _METHOD, "method.dto": _DTO, "engine": _ENGINE, "method.sampling": _SAMPLING}
    for place, names in places.items():
        if name in names:
            return f"{place}.{name}"
    if name in _LOADING:
        return f"{'rm' if _JUDGE.search(about) else 'lm'}_arguments.{name}"
    return None


def spoken(text: str, *, options: bool, about: str = "") -> str:
    """Advice with its arguments as options, or as keys of the command's file.

    Args:
        text: of an error.
        about: the whole message, which says what model it is about.
        options: the command takes a run's options; else it reads a file alone.
    """

    def say(found: re.Match[str]) -> str:
        name, value = found.groups()
        path = _path(name, about or text)
        if path is None:
            return found.group()
        value = value.strip("'") if value != "..." else {"rm": "PATH", "lm": "PATH"}.get(name, "VALUE")
        if options:
            return f"--{path} {value}"
        return f"rewards: {{NAME: {value}}}" if path == "rm" else f"{name}: {value}"

    said = _ARGUMENT.sub(say, text)
    return said.replace(" or a Python reward", "") if said != text else text
