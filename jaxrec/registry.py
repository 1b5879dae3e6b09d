"""The classes that a config may hold, by the names under which its JSON form knows them."""

import dataclasses
import inspect
import typing
from typing import TypeVar

import flax.linen as nn

from jaxrec.serialization import Components, config_fields, holds_only_json, qualified_name

Component = TypeVar("Component", bound=type)

COMPONENTS: Components = {}
"""Filled by ``register``; what ``config_to_json`` writes and ``config_from_json`` reads."""


def register(cls: Component) -> Component:
    """Lets configs hold a class of your own, so that its runs can be saved, loaded and gone on with.

    Used as a decorator, above ``@dataclasses.dataclass(frozen=True)`` where there is one::

        @jaxrec.register
        class Uniform(nn.Module):
            num_heads: int | None = None
            dtype: Any = jnp.float32
            ...

    A config's JSON form names the class without its module: whoever loads a run imports the module of the class first,
    scripts by ``--plugin``. The same class registered again, as when a notebook's cell is run twice, replaces the
    former.

    Args:
      cls: a frozen dataclass or a Linen module whose fields (but for those that a module's owner fills in) hold
        numbers, strings, ``None``, tuples of these, or other such classes.

    Returns:
      The class.

    Raises:
      ValueError: it is no such class, or another one has the name.
    """
    if not isinstance(cls, type):
        raise ValueError(
            f"jaxrec.register takes a class, and {cls!r:.200} is none; decorate the class itself"
        )
    name = qualified_name(cls)
    if not (issubclass(cls, nn.Module) or _is_frozen_dataclass(cls)):
        raise ValueError(
            f"{name} cannot be registered, for it is neither a frozen dataclass nor a Linen module; decorate it with"
            " @dataclasses.dataclass(frozen=True), below @jaxrec.register"
        )
    _check_fields(cls)
    former = COMPONENTS.get(cls.__name__, cls)
    if qualified_name(former) != name:
        raise ValueError(
            f"{name} cannot be registered, for configs know {qualified_name(former)} as {cls.__name__!r} already; give"
            " your class another name"
        )
    COMPONENTS[cls.__name__] = cls
    return cls


def _is_frozen_dataclass(cls: type) -> bool:
    """Whether all fields of a class are those of a frozen dataclass; one that only inherits them adds none."""
    if not dataclasses.is_dataclass(cls) or not cls.__dataclass_params__.frozen:
        return False
    return "__dataclass_fields__" in vars(cls) or not inspect.get_annotations(cls)


def _check_fields(cls: type) -> None:
    try:
        hints = typing.get_type_hints(cls)
    except NameError as error:
        raise ValueError(
            f"{qualified_name(cls)} cannot be registered, for the type of a field is unknown when it is read back"
            f" ({error}); define or import it at the top of the module, not under TYPE_CHECKING"
        ) from error
    for field in config_fields(cls):
        kind = hints[field.name]
        if not holds_only_json(kind):
            raise ValueError(
                f"{qualified_name(cls)} cannot be registered, for its field {field.name!r} is of type"
                f" {getattr(kind, '__name__', kind)}, and a config holds numbers, strings, None, tuples of these,"
                " frozen dataclasses and Linen modules"
            )


__all__ = ["COMPONENTS", "register"]
