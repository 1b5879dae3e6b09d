"""How the tests and the processes they start compile: quickly rather than well, and each program once."""

import importlib.util
import mmap
import os
from pathlib import Path

CACHE = Path(__file__).parents[1] / ".cache" / "tests"
# Most of the time goes into compiling, little into running.
QUICK_FLAGS = ("xla_cpu_use_fusion_emitters=false", "xla_cpu_parallel_codegen_split_count=1")


def known_flags(flags: tuple[str, ...]) -> list[str]:
    """Those of the flags that this XLA has: one that it does not know would end the process.

    Args:
      flags: ``name=value``.
    """
    found: set[str] = set()
    for library in Path(importlib.util.find_spec("jaxlib").origin).parent.glob("libjax_common.*"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found |= {flag for flag in flags if content.find(flag.split("=")[0].encode()) >= 0}
    return [flag for flag in flags if flag in found]


def compile_quickly() -> None:
    """Sets the environment variables; jax, and processes started from here, read them when they begin."""
    given = os.environ.get("XLA_FLAGS", "")
    flags = known_flags(tuple(flag for flag in QUICK_FLAGS if flag.split("=")[0] not in given))
    os.environ["XLA_FLAGS"] = " ".join([given, *(f"--{flag}" for flag in flags)]).strip()
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"  # no lines of source in the programs
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"


def compiled_well() -> dict[str, str]:
    """The environment of a process that compiles as for users, for a test of the memory that a program takes."""
    quick = {f"--{flag}" for flag in QUICK_FLAGS}
    flags = " ".join(flag for flag in os.environ.get("XLA_FLAGS", "").split() if flag not in quick)
    return {**os.environ, "XLA_FLAGS": flags, "JAX_DISABLE_MOST_OPTIMIZATIONS": "false"}


__all__ = ["CACHE", "compile_quickly", "compiled_well", "known_flags"]
