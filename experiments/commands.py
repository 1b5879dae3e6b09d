"""Commands as results show them: as one types them, without what is this machine's own."""

import shlex
from collections.abc import Sequence


def shown_path(text: str) -> str:
    """The name alone of a path that leads out of the folder one stands in; any other text as it is."""
    return text.rstrip("/").rsplit("/", 1)[-1] if text.startswith(("/", "../", "~")) else text


def _shown_part(text: str) -> str:
    """A path, or ``NAME=PATH``."""
    name, equals, path = text.rpartition("=")
    return f"{name}{equals}{shown_path(path)}"


def shown_command(program: str, argv: Sequence[str], *, without: Sequence[str] = ()) -> str:
    """A command whose paths are ``shown_path``s, also behind ``=`` or ``NAME=`` and between commas.

    Args:
      program: ``python experiments/...``.
      argv: its arguments.
      without: flags that are left out, each with its value.
    """
    kept: list[str] = []
    previous = ""
    for word in argv:
        flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if (flag or word) not in without and not (previous in without and not word.startswith("--")):
            shown = ",".join(map(_shown_part, value.split(",")))
            kept.append(f"{flag}{equals}{shown}")
        previous = word
    return f"{program} {shlex.join(kept)}".strip()


__all__ = ["shown_command", "shown_path"]
