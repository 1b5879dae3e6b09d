"""Words that a setting may take: checked when a config is built, not when the program is traced."""

import functools
import typing
from typing import Any


@functools.cache
def _choices(cls: type) -> dict[str, tuple[Any, ...]]:
    """The fields of a dataclass that take one of a few words."""
    hints = typing.get_type_hints(cls)
    return {
        name: typing.get_args(hint)
        for name, hint in hints.items()
        if typing.get_origin(hint) is typing.Literal
    }


def check_choices(settings: Any) -> None:
    """Refuses a word that a dataclass's field of type ``Literal`` does not take.

    Raises:
      ValueError: names the field, its value and the words it takes.
    """
    for name, words in _choices(type(settings)).items():
        if (value := getattr(settings, name)) not in words:
            known = " or ".join(map(repr, words))
            raise ValueError(f"{type(settings).__name__}.{name} is {value!r}, but must be {known}")


__all__ = ["check_choices"]
