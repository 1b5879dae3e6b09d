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


def qualified_name(cls: type) -> str:
    """A class's name with its module's: what tells two classes of one name apart."""
    return f"{cls.__module__}.{cls.__qualname__}"


def to_json(value: Any, components: Components, path: str = "config") -> Any:
    """A JSON-able form: a dataclass becomes an object with its class name under ``class``.

    Args:
      value: a dataclass, or what one may hold.
      components: the classes that can be read back, by name.
      path: where in the config this is, for messages.

    Raises:
      ValueError: a class is not among the components, or a value is not JSON-able; says where.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        cls = type(value)
        _check_known(cls, components, path)
        fields = {
            field.name: to_json(getattr(value, field.name), components, f"{path}.{field.name}")
            for field in config_fields(cls)
        }
        return {KIND: cls.__name__, **fields}
    if isinstance(value, tuple | list):
        return [to_json(part, components, f"{path}[{i}]") for i, part in enumerate(value)]
    if value is None or isinstance(value, PLAIN):
        return value
    raise ValueError(
        f"{path}: a config holds numbers, strings, tuples and dataclasses; {value!r} is none of them"
    )


def _check_known(cls: type, components: Components, path: str) -> None:
    """Refuses a class that could be written, but not read back; an earlier one of the same name and module may."""
    known = components.get(cls.__name__)
    if known is None:
        raise ValueError(
            f"{path} is a {qualified_name(cls)}, which is not registered, so a run with it could not be loaded; put"
            " @jaxrec.register above the class"
        )
    if qualified_name(known) != qualified_name(cls):
        raise ValueError(
            f"{path} is a {qualified_name(cls)}, and a config knows {qualified_name(known)} as {cls.__name__!r}; give"
            " your class another name, and put @jaxrec.register above it"
        )


def holds_only_json(kind: Any) -> bool:
    """Whether all values of a field's type can be written and read back (``Any`` is taken at its word)."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return all(map(holds_only_json, arguments))
    if origin is tuple:
        return bool(arguments) and all(holds_only_json(part) for part in arguments if part is not Ellipsis)
    if origin is typing.Literal or kind in (*PLAIN, type(None), Any):
        return True
    return isinstance(kind, type) and (_is_component(kind) or issubclass(kind, nn.Module))


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
    if _is_component(expected) or (isinstance(data, dict) and holds_objects):
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
    allowed = [kind for kind in typing.get_args(expected) or (expected,) if kind is not type(None)]
    cls = allowed[0] if len(allowed) == 1 and dataclasses.is_dataclass(allowed[0]) else None
    if KIND in data:
        cls = components.get(data[KIND])
        if cls is None:
            raise ValueError(
                f"{path}.{KIND} is {data[KIND]!r}, and no class of that name is"
                f" registered{nearest(data[KIND], components)} (a class of your own: import the module that registers"
                " it with jaxrec.register first; scripts do with --plugin)"
            )
    if cls is None:
        fitting = [name for name, known in components.items() if _fits_one_of(known, allowed)]
        raise ValueError(f"{path} needs a {KIND!r}, one of {', '.join(sorted(fitting))}")
    if not _fits_one_of(cls, allowed):
        names = " or ".join(getattr(kind, "__name__", str(kind)) for kind in allowed)
        missing = lacking(cls, allowed[0]) if len(allowed) == 1 and _is_protocol(allowed[0]) else []
        lacks = f", which lacks {', '.join(missing)}" if missing else ""
        raise ValueError(f"{path} must be of type {names}, got a {cls.__name__}{lacks}")
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


def _is_protocol(kind: Any) -> bool:
    return getattr(kind, "_is_protocol", False)


def _is_component(kind: Any) -> bool:
    """Whether a type is one of objects with keys: a dataclass, or a protocol that some meet."""
    return dataclasses.is_dataclass(kind) or _is_protocol(kind)


def _fits_one_of(cls: type, allowed: list[Any]) -> bool:
    """Whether a class may stand where one of some types is expected."""
    return any(
        kind is Any
        or (
            not lacking(cls, kind) if _is_protocol(kind) else isinstance(kind, type) and issubclass(cls, kind)
        )
        for kind in allowed
    )


def lacking(cls: type, protocol: type) -> list[str]:
    """The members of a protocol that a dataclass does not have; ``__call__`` must take the same arguments."""
    members = [name for name in vars(protocol) if name == "__call__" or not name.startswith("_")]
    members += [name for name in inspect.get_annotations(protocol) if name not in members]
    fields = {field.name for field in dataclasses.fields(cls)}
    missing = []
    for name in members:
        if name == "__call__":  # each class has one, its metaclass's
            own = inspect.signature(cls.__call__).parameters if "__call__" in dir(cls) else {}
            wanted = inspect.signature(protocol.__call__).parameters
            if list(own) != list(wanted):
                missing.append(f"__call__({', '.join(wanted)})")
        elif name not in fields and not hasattr(cls, name):
            missing.append(name)
    return missing


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


__all__ = [
    "KIND",
    "Components",
    "config_fields",
    "from_json",
    "holds_only_json",
    "lacking",
    "nearest",
    "qualified_name",
    "set_value",
    "to_json",
]
