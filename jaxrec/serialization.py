"""Frozen dataclasses (Linen modules among them) to JSON and back, with clear words on what does not fit."""

import dataclasses
import difflib
import inspect
import types
import typing
from typing import Any

import flax.linen as nn

KIND = "class"  # no dataclass can have a field of this name
PLAIN = (bool, int, float, str)
FILLED_BY_OWNER = ("parent", "name", "num_heads", "max_length", "dtype")
Components = dict[str, type]


def config_fields(cls: type) -> list[dataclasses.Field]:
    """The fields of a dataclass that a person sets; for a Linen module, not those that its owner fills in."""
    left_out = FILLED_BY_OWNER if issubclass(cls, nn.Module) else ()
    return [field for field in dataclasses.fields(cls) if field.init and field.name not in left_out]


def to_json(value: Any) -> Any:
    """A JSON-able form: a dataclass becomes an object with its class name under ``class``."""
    if dataclasses.is_dataclass(value):
        fields = {field.name: to_json(getattr(value, field.name)) for field in config_fields(type(value))}
        return {KIND: type(value).__name__, **fields}
    if isinstance(value, tuple | list):
        return [to_json(part) for part in value]
    if value is None or isinstance(value, PLAIN):
        return value
    raise ValueError(f"a config holds numbers, strings, tuples and dataclasses; {value!r} is none of them")


def from_json(data: Any, expected: Any, components: Components, path: str = "config") -> Any:
    """Builds a value of a type from its JSON form.

    Args:
      data: what ``json.load`` gave.
      expected: the type hint of the place it goes to.
      components: the dataclasses that ``class`` may name.
      path: where in the config this is, for messages.

    Raises:
      ValueError: an unknown key or kind, or a value of another type; says where, and the nearest name.
    """
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    holds_objects = origin not in (tuple, typing.Literal) and expected not in PLAIN
    if dataclasses.is_dataclass(expected) or (isinstance(data, dict) and holds_objects):
        return _dataclass_from_json(data, expected, components, path)
    if origin is typing.Literal:
        if data in arguments:
            return data
        raise ValueError(f"{path} must be one of {', '.join(map(repr, arguments))}, got {data!r}")
    if origin is tuple:
        if not isinstance(data, list):
            raise ValueError(f"{path} must be a list, got {data!r}")
        inner = arguments[0] if arguments[-1] is Ellipsis or len(set(arguments)) == 1 else Any
        return tuple(from_json(part, inner, components, f"{path}[{i}]") for i, part in enumerate(data))
    if origin in (typing.Union, types.UnionType):
        return _union_from_json(data, arguments, components, path)
    if expected is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if isinstance(expected, type) and (type(data) is not expected):
        raise ValueError(f"{path} must be of type {expected.__name__}, got {data!r}")
    return data


def _union_from_json(data: Any, alternatives: tuple, components: Components, path: str) -> Any:
    reasons = []
    for alternative in alternatives:
        if alternative is type(None):
            if data is None:
                return None
            continue
        try:
            return from_json(data, alternative, components, path)
        except ValueError as error:
            reasons.append(str(error))
    raise ValueError(reasons[0] if reasons else f"{path} must be null, got {data!r}")


def _dataclass_from_json(data: Any, expected: Any, components: Components, path: str) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"{path} must be an object with keys, got {data!r}")
    cls = expected if dataclasses.is_dataclass(expected) else None
    if KIND in data:
        cls = components.get(data[KIND])
        if cls is None:
            raise ValueError(f"{path}.{KIND} is {data[KIND]!r}{nearest(data[KIND], components)}")
    if cls is None:
        raise ValueError(f"{path} needs a {KIND!r}, one of {', '.join(sorted(components))}")
    allowed = [kind for kind in typing.get_args(expected) or (expected,) if kind is not type(None)]
    if expected is not Any and not any(_fits(cls, kind) for kind in allowed):
        names = " or ".join(getattr(kind, "__name__", str(kind)) for kind in allowed)
        raise ValueError(f"{path} must be of type {names}, got a {cls.__name__}")
    hints = typing.get_type_hints(cls)
    fields = config_fields(cls)
    names = [field.name for field in fields]
    values = {}
    for key, value in data.items():
        if key == KIND:
            continue
        if key not in names:
            raise ValueError(f"{path}.{key} is not a key of {cls.__name__}{nearest(key, names)}")
        values[key] = from_json(value, hints[key], components, f"{path}.{key}")
    for field in fields:
        has_default = (
            field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        )
        if field.name not in values and not has_default:
            raise ValueError(f"{path} lacks the key {field.name!r} of {cls.__name__}")
    return cls(**values)


def _fits(cls: type, expected: type) -> bool:
    """Whether a class may stand where another is expected; a protocol is met by an equal ``__call__``."""
    if not getattr(expected, "_is_protocol", False):
        return isinstance(expected, type) and issubclass(cls, expected)
    if "__call__" not in dir(cls):
        return False
    own, wanted = (inspect.signature(kind.__call__).parameters for kind in (cls, expected))
    return list(own) == list(wanted)


def set_value(content: dict[str, Any], path: str, value: Any, name: str) -> None:
    """Replaces a value of a config's JSON form in place; the form is checked when the config is built.

    Args:
      content: what ``to_json`` gave.
      path: keys with dots between, ``train.epochs``; numbers in lists.
      value: JSON-able.
      name: of the config, for errors.

    Raises:
      ValueError: there is no such place; says which there are.
    """
    *way, last = path.split(".")
    place: Any = content
    for depth, key in enumerate([*way, last]):
        keys = list(place) if isinstance(place, dict) else [str(index) for index in range(len(place))]
        if key not in keys:
            raise ValueError(f"{name}.{path}: there is no {key!r}{nearest(key, keys)}")
        key = int(key) if isinstance(place, list) else key
        if depth == len(way):
            place[key] = value
        elif isinstance(place[key], dict | list):
            place = place[key]
        else:
            raise ValueError(
                f"{name}.{path}: {'.'.join(way[: depth + 1])} is {place[key]!r}, which has no parts"
            )


def nearest(name: str, known: Any) -> str:
    """Words for an error message: the name that was probably meant, or all of them."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(sorted(known))}"


__all__ = ["KIND", "Components", "config_fields", "from_json", "nearest", "set_value", "to_json"]
