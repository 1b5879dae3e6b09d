"""What is wrong with a checkpoint: a damaged file, another model, a disk that does not take it."""

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

SCORE = "score"


class CheckpointError(ValueError):
    """No usable checkpoint, or one of another model; the message says which and what to do."""


@contextlib.contextmanager
def write_errors() -> Iterator[None]:
    """A failure of the operating system that tensorstore reports as a ``ValueError`` leaves as the ``OSError`` it is.

    Orbax writes in threads: the failure of one save is raised by the next one, by ``wait`` or by ``close``.
    """
    try:
        yield
    except ValueError as error:
        told = re.search(r"os_error_code='(\d+)'|OS error (\d+)", str(error))
        if told:
            number = int(told[1] or told[2])
        elif str(error).startswith("RESOURCE_EXHAUSTED"):
            number = errno.ENOSPC
        else:
            raise
        raise OSError(number, os.strerror(number)) from error


def read_score(folder: Path) -> float | None:
    """The score of a checkpoint, by which Orbax keeps the best; ``None`` if its file is missing, which Orbax bears.

    Raises:
      CheckpointError: the file is damaged.
    """
    path = folder / "metrics" / "metrics"
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))[SCORE])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"the score in {path} cannot be read ({error})") from error


def check_same_shapes(saved: Any, wanted: Any) -> None:
    """Compares names and shapes of two trees of arrays, or of their descriptions.

    Raises:
      CheckpointError: they differ; names the first leaf.
    """
    saved, wanted = _shapes(saved), _shapes(wanted)
    for name in sorted(saved.keys() | wanted.keys()):
        if saved.get(name) != wanted.get(name):
            there, here = (_words(shapes.get(name)) for shapes in (saved, wanted))
            raise CheckpointError(f"it is of another model: {name} is {there} there and {here} here")


def shapes_of(tree: Any) -> Any:
    """Shapes, types and shardings of arrays, without what they hold."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree
    )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves
    }


def _words(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else f"of shape {list(shape)}"


__all__ = ["SCORE", "CheckpointError", "check_same_shapes", "read_score", "shapes_of", "write_errors"]
