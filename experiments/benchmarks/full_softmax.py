"""Section ``softmax``: full and sampled softmax over large catalogues, the loss alone and a whole step."""

import gc
import itertools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.device import free_memory, peak_memory, program_memory, tree_bytes
from benchmarks.rows import Row, row, skipped
from benchmarks.settings import Settings
from benchmarks.timing import repeat, resident_bytes
from benchmarks.words import describe_flops
from jaxrec.batch import SequenceBatch
from jaxrec.devices.mesh import ParallelConfig
from jaxrec.losses import Loss, SampledSoftmaxLoss, SoftmaxLoss
from jaxrec.models.encoder import EncoderRecommender
from jaxrec.recommender import table_rows
from jaxrec.train.optimizer import OptimizerConfig, make_optimizer
from jaxrec.train.parallel import Placement
from jaxrec.train.state import create_state
from jaxrec.typing import ComputeType

NEEDS: tuple[str, ...] = ()
DETAILS: tuple[str, ...] = ("loss",)
PARTS = ("loss", "step")
LOSSES: dict[str, Callable[[ComputeType], Loss]] = {
    "softmax": lambda dtype: SoftmaxLoss(dtype=dtype),
    "sampled_softmax": lambda dtype: SampledSoftmaxLoss(dtype=dtype),
}
LIMITS = {
    ("softmax", 1_000_000, 128): ("peak_memory_bytes", 4e9),
    ("softmax", 1_000_000, 64): ("memory_beside_bytes", 1e9),
    ("sampled_softmax", 10_000_000, 64): ("peak_memory_bytes", 24 * 2**30),
    ("sampled_softmax", 10_000_000, 128): ("peak_memory_bytes", 24 * 2**30),
}
"""By loss, items and width: the memory that a step of 128 x 50 may take at most."""


def cases(settings: Settings) -> list[dict[str, Any]]:
    """Losses, types, sizes of the catalogue, widths; the loss with its gradient, and SASRec's whole step."""
    catalogues = [("softmax", items) for items in settings.softmax_items]
    catalogues += [("sampled_softmax", items) for items in settings.sampled_items]
    return [
        {"loss": loss, "dtype": dtype, "items": items, "width": width, "part": part}
        for dtype, width, (loss, items), part in itertools.product(
            settings.dtypes, settings.softmax_widths, catalogues, PARTS
        )
    ]


def measure(settings: Settings, case: dict[str, Any]) -> Iterator[Row]:
    """One row: time, and memory beside parameters, gradients and optimizer state.

    On a CPU the memory of the process before any array of the model is made (Python and jax, some hundred
    megabytes) is taken off too; what compiling takes is not.
    """
    batch, length = settings.softmax_batch, settings.softmax_length
    case = {**case, "batch": batch, "length": length}
    jax.jit(lambda x: x + 1)(np.zeros(8)).block_until_ready()
    needed, free = least_bytes(case), free_memory()
    if free is not None and needed > free:
        yield skipped(case, f"it takes {needed / 2**30:.3g} GiB, and {free / 2**30:.3g} GiB are free")
        return
    gc.collect()
    before = resident_bytes() if jax.default_backend() == "cpu" else 0
    make = loss_program if case["part"] == "loss" else step_program
    start = time.perf_counter()
    run, state_bytes, compiled = make(case)
    setup_seconds = time.perf_counter() - start
    times = repeat(run, repeats=settings.repeats, warmups=1, budget_seconds=20.0)
    memory = peak_memory()
    results = {
        "step_seconds": times.median,
        "targets_per_second": batch * length / times.median,
        "setup_seconds": setup_seconds,
        "state_bytes": state_bytes,
        **memory,
        **program_memory(compiled),
    }
    if case["loss"] == "softmax":
        results["softmax_flops_per_second"] = (
            6.0 * batch * length * case["items"] * case["width"] / times.median
        )
    if before is not None:
        results["memory_before_bytes"] = before
        results["memory_beside_bytes"] = memory["peak_memory_bytes"] - before - state_bytes
    of, limit = LIMITS.get((case["loss"], case["items"], case["width"]), ("", 0))
    if (
        case["part"] == "step"
        and case["dtype"] == "float32"
        and of in results
        and (batch, length) == (128, 50)
    ):
        results |= {"limit_of": of, "limit_bytes": limit, "within_limit": results[of] <= limit}
    yield row(case, results, times.record())


def least_bytes(case: dict[str, Any]) -> int:
    """What the item table alone takes: with its gradient, and for a step with AdamW's two moments."""
    return (2 if case["part"] == "loss" else 4) * 4 * table_rows(case["items"]) * case["width"]


def loss_program(case: dict[str, Any]) -> tuple[Callable[[], None], int, Any]:
    """``value_and_grad`` of the loss for queries and table; bytes of both and their gradients; the program."""
    tokens, width = case["batch"] * case["length"], case["width"]
    loss, num_items = LOSSES[case["loss"]](case["dtype"]), case["items"]
    key = jax.random.key(0)
    targets = jax.random.randint(key, (tokens,), 1, num_items + 1)
    arrays = jax.jit(
        lambda key: (
            jax.random.normal(key, (tokens, width)),
            jax.random.normal(key, (table_rows(num_items), width)) * 0.02,
        )
    )(key)

    def mean(arrays: tuple, targets: jax.Array) -> jax.Array:
        total, weight = loss(*arrays, targets, jnp.ones(tokens), key, num_items=num_items)
        return total / weight

    compiled = jax.jit(jax.value_and_grad(mean)).lower(arrays, targets).compile()
    return lambda: jax.block_until_ready(compiled(arrays, targets)), 2 * tree_bytes(arrays), compiled


def step_program(case: dict[str, Any]) -> tuple[Callable[[], None], int, Any]:
    """A donated AdamW step of SASRec; bytes of parameters, optimizer state and gradients; the program."""
    model = EncoderRecommender(
        num_items=case["items"],
        max_length=case["length"],
        width=case["width"],
        dtype=case["dtype"],
        loss_function=LOSSES[case["loss"]](case["dtype"]),
    )
    optimizer = make_optimizer(OptimizerConfig(), steps_per_epoch=100, total_steps=1000)
    placement = Placement(ParallelConfig(devices=1))
    shape = (1, case["batch"], case["length"])
    generator = np.random.default_rng(0)
    items, targets = (generator.integers(1, case["items"] + 1, shape).astype(np.int32) for _ in range(2))
    batches = placement.put_batches(SequenceBatch(items, targets, np.ones(shape, np.float32)))
    key = jax.device_put(jax.random.key(1, impl="rbg"), placement.replicated)
    state = placement.put_state(create_state(model, optimizer, jax.random.key(0)))
    compiled = placement.compile_step(model, optimizer).lower(state, batches, key).compile()

    def run() -> None:
        nonlocal state
        state, metrics = compiled(state, batches, key)
        if not math.isfinite(float(metrics["loss"])):
            raise FloatingPointError("the loss of the benchmark's step is not finite")

    return run, tree_bytes(state) + tree_bytes(state.params), compiled


def describe(case: dict[str, Any], results: dict[str, Any]) -> tuple[str, str]:
    """Seconds of a step and memory."""
    kind = "step" if case["part"] == "step" else "loss and gradient"
    loss = {"softmax": "full-softmax", "sampled_softmax": "sampled-softmax"}[case["loss"]]
    what = (
        f"{loss} {kind} over {case['items']:,} items, D {case['width']},"
        f" batch {case['batch']} x {case['length']}, {case['dtype']}"
    )
    figure = f"{results['step_seconds']:.3g} s, {results['targets_per_second']:,.0f} targets/s"
    if "softmax_flops_per_second" in results:
        figure += f", {describe_flops(results['softmax_flops_per_second'])}"
    figure += f", {results['peak_memory_bytes'] / 2**30:.2f} GiB in all"
    if "memory_beside_bytes" in results:
        beside = results["memory_beside_bytes"] / 2**30
        figure += f", {beside:.2f} GiB beside parameters, gradients and optimizer state"
    if "limit_bytes" in results:
        held = "met" if results["within_limit"] else "NOT met"
        of = "in all" if results["limit_of"] == "peak_memory_bytes" else "beside"
        figure += f" (our goal, {results['limit_bytes'] / 2**30:.3g} GiB {of}: {held})"
    return what, figure


__all__ = ["DETAILS", "NEEDS", "cases", "describe", "measure"]
