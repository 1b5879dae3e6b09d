"""Classes of one's own for the scripts: modules that call ``jaxrec.register``, imported before anything else."""

import argparse
import importlib
import importlib.util
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated

import tyro
from commands import shown_path

FLAG = "--plugin"
Plugins = Annotated[str, tyro.conf.arg(metavar="MODULE_OR_FILE.py")]
"""The type of the flag, in the arguments of the scripts that read or make runs."""


def import_plugins(argv: list[str]) -> None:
    """Imports what ``--plugin`` names, before the other flags are read: these may be of classes in it.

    Raises:
      ValueError: something cannot be imported; says why.
    """
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    peek.add_argument(FLAG, nargs="?", default="")
    for name in plugin_names(peek.parse_known_args(argv)[0].plugin or ""):
        try:
            _import(name)
        except Exception as error:
            raise ValueError(f"{FLAG} {name}: {_reason(error)}") from error


def plugin_names(text: str) -> list[str]:
    """The modules and files of the flag's value, between commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def plugin_flag(text: str, *, shown: bool = False) -> str:
    """The flag as one types it, behind a blank; nothing without plugins.

    Args:
      text: the flag's value.
      shown: whether the folders of this machine are left out (``shown_path``).
    """
    names = [shown_path(name) if shown else name for name in plugin_names(text)]
    return f" {FLAG} {shlex.quote(','.join(names))}" if names else ""


def _import(name: str) -> ModuleType:
    if not name.endswith(".py"):
        _find_also_in(Path.cwd())
        return importlib.import_module(name)
    path = Path(name).resolve()
    former = sys.modules.get(path.stem)
    if former is not None:
        if Path(getattr(former, "__file__", None) or "").resolve() == path:
            return former
        raise ValueError(f"a module named {path.stem} is loaded already; give the file another name")
    if not path.is_file():
        raise ValueError("there is no such file; check the path")
    _find_also_in(path.parent)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # where dataclasses look for the types of their fields
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module


def _find_also_in(folder: Path) -> None:
    """Lets a folder's modules be imported, behind all others."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _reason(error: Exception) -> str:
    if isinstance(error, ValueError):
        return str(error)
    return f"it cannot be imported ({type(error).__name__}: {error}); --debug shows where"


__all__ = ["Plugins", "import_plugins", "plugin_flag", "plugin_names"]
