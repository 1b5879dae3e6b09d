"""The device: what it is, its memory, the speed of its matrix products, the work of a training step."""

import dataclasses
import datetime
import functools
import math
import os
import platform
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.timing import peak_resident_bytes, repeat
from jaxrec.batch import SequenceBatch
from jaxrec.losses import SoftmaxLoss
from jaxrec.recommender import Recommender
from jaxrec.train.state import create_state
from jaxrec.train.step import make_train_step, scan_steps
from jaxrec.version import __version__

NO_BLOCK = object()


def environment() -> dict[str, Any]:
    """Versions, device, machine, load and date, for every record."""
    devices = jax.devices()
    return {
        "jaxrec": __version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "platform": devices[0].platform,
        "device": devices[0].device_kind,
        "devices": len(devices),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": machine_memory(),
        "compilation_cache": bool(
            jax.config.jax_compilation_cache_dir
        ),  # then it compiles faster than at first
        "load_average": round(os.getloadavg()[0], 2),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine_memory() -> int | None:
    """Bytes of main memory; ``None`` where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def free_memory() -> int | None:
    """Bytes that arrays may still take: on an accelerator of its own, on a CPU of the machine's."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)
    path = Path("/proc/meminfo")
    lines = path.read_text().splitlines() if path.exists() else []
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
    return free[0] if free else machine_memory()


def program_memory(compiled: Any) -> dict[str, int]:
    """What a compiled program says of its memory on one device; empty where it does not tell.

    ``program_bytes`` counts arguments, results and temporaries, what is donated once.
    """
    memory = compiled.memory_analysis() if hasattr(compiled, "memory_analysis") else None
    if memory is None:
        return {}
    whole = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )
    return {"program_bytes": whole, "temporary_bytes": memory.temp_size_in_bytes}


def peak_memory() -> dict[str, Any]:
    """The most memory taken so far: on an accelerator its own, on a CPU that of the whole process."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        return {"peak_memory_bytes": statistics["peak_bytes_in_use"], "memory_of": "device"}
    return {"peak_memory_bytes": peak_resident_bytes(), "memory_of": "process"}


def tree_bytes(tree: Any) -> int:
    """Bytes of all arrays of a tree."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def matrix_product_peak(dtype: str, size: int = 0) -> float:
    """FLOP/s of one large square matrix product on random numbers, summed in float32: the best of several.

    Args:
      dtype: of the operands.
      size: rows and columns; 0 takes 2,048 on a CPU and 8,192 elsewhere.
    """
    size = size or (2048 if jax.default_backend() == "cpu" else 8192)
    keys = jax.random.split(jax.random.key(0))
    left, right = (jax.random.normal(key, (size, size), jnp.dtype(dtype)) for key in keys)
    multiply = jax.jit(functools.partial(jnp.matmul, preferred_element_type=jnp.float32))
    times = repeat(
        lambda: multiply(left, right).block_until_ready(), repeats=10, warmups=2, budget_seconds=5.0
    )
    return 2.0 * size**3 / min(times.wall)


def step_flops(
    recommender: Recommender, optimizer: optax.GradientTransformation, batch: SequenceBatch
) -> float:
    """FLOPs of one optimizer step, by XLA's cost analysis of the program.

    XLA counts the body of a loop once. So the program that is analysed (and not run) takes one batch
    and has its loss in one block; padding, which the softmax leaves out in whole blocks, is taken off
    again. What a chunked softmax computes twice counts once. (The other loops of jaxrec's training steps draw
    random bits.)

    Args:
      recommender: the model.
      optimizer: of the step.
      batch: ``[B, L]`` arrays of numpy.
    """
    loss = getattr(recommender, "loss_function", None)
    if getattr(loss, "block", NO_BLOCK) is NO_BLOCK:
        return _lowered_flops(recommender, optimizer, batch)
    tokens = (
        batch.items.size if getattr(recommender, "target_positions", "all") == "all" else len(batch.items)
    )
    whole = dataclasses.replace(loss, block=tokens, **({"chunk": None} if hasattr(loss, "chunk") else {}))
    flops = _lowered_flops(dataclasses.replace(recommender, loss_function=whole), optimizer, batch)
    if not isinstance(loss, SoftmaxLoss):
        return flops
    table = jax.eval_shape(lambda key: recommender.items(recommender.init(key)), jax.random.key(0))
    block = loss.plan(tokens, table.shape[0], recommender.num_items).block
    real = int(np.count_nonzero(batch.weights))
    used = min(-(-real // block) * block, tokens) / tokens
    return flops - (1.0 - used) * 6.0 * tokens * math.prod(table.shape)


def _lowered_flops(
    recommender: Recommender, optimizer: optax.GradientTransformation, batch: SequenceBatch
) -> float:
    key = jax.random.key(0)
    state = jax.eval_shape(lambda key: create_state(recommender, optimizer, key), key)
    batches = jax.tree.map(lambda part: jax.ShapeDtypeStruct((1, *part.shape), part.dtype), batch)
    steps = jax.jit(scan_steps(make_train_step(recommender, optimizer)))
    return float(steps.lower(state, batches, key).cost_analysis()["flops"])


__all__ = [
    "environment",
    "free_memory",
    "machine_memory",
    "matrix_product_peak",
    "peak_memory",
    "program_memory",
    "step_flops",
    "tree_bytes",
]
