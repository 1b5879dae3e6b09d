"""Section ``prepare``: from a large log in a file to saved arrays, and on to batches: time and peak memory."""

import dataclasses
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.apart import run_apart
from benchmarks.dataset import missing
from benchmarks.rows import Row, row, skipped
from benchmarks.settings import Settings
from benchmarks.timing import Times, peak_resident_bytes
from jaxrec.presets import preset

NEEDS = ("polars",)
DETAILS: tuple[str, ...] = ()
FORMATS = ("csv", "parquet")
MEAN_LENGTH = 25.0
ROWS_AT_ONCE = 1 << 20
BYTES_A_ROW = 100
"""Disk space at most: the simulated log twice, both formats, and what is prepared from one."""
PRESET = "sasrec"
FED_SECONDS = 10.0
FEWEST_CALLS = 10


def cases(settings: Settings) -> list[dict[str, Any]]:
    """Sizes of the log."""
    return [{"rows": rows} for rows in settings.prepare_rows]


def measure(settings: Settings, case: dict[str, Any]) -> Iterator[Row]:
    """One row a format, then one for what comes before the first step of training; each in a process of its own.

    The events are in order of time, as logs are; users are integers, items text.
    """
    needed, free = case["rows"] * BYTES_A_ROW, shutil.disk_usage(tempfile.gettempdir()).free
    if needed > free:
        reason = f"the files take {needed / 1e9:,.0f} GB, and {free / 1e9:,.0f} GB of the disk are free"
        yield skipped(case, reason)
        return
    with tempfile.TemporaryDirectory(prefix="jaxrec-benchmark-") as folder:
        rows = run_apart("benchmarks.preparing:write_log", folder=folder, rows=case["rows"])
        for kind in FORMATS:
            path = Path(folder) / f"events.{kind}"
            found = run_apart("benchmarks.preparing:read_log", path=str(path), out=str(Path(folder) / kind))
            times = Times([found.pop("seconds")], [found.pop("processor_seconds")], warmups=0)
            part = {**case, "rows": rows, "format": kind, "file_bytes": path.stat().st_size}
            yield row(part, {"prepare_seconds": times.median, **found}, times.record())
            path.unlink()
        part = {**case, "rows": rows, "part": "first batch", "preset": PRESET}
        if missing(("grain",)):
            yield skipped(part, "grain not installed")
            return
        found = run_apart("benchmarks.preparing:feed_log", path=str(Path(folder) / FORMATS[-1]))
        times = Times([found.pop("seconds")], [found.pop("processor_seconds")], warmups=0)
        yield row(part, {"first_batch_seconds": times.median, **found}, times.record())


def write_log(folder: str, rows: int) -> int:
    """Writes a simulated log in every format; returns its number of rows."""
    import polars as pl

    from jaxrec.data import SimulatedProcess, sample

    users = max(round(rows / MEAN_LENGTH), 1)
    items = int(min(max(rows // 500, 50), 100_000))
    process = SimulatedProcess(num_items=items, mean_length=MEAN_LENGTH)
    log = sample(process, users, directory=Path(folder) / "simulated")
    order = np.argsort(log.times, kind="stable")
    user = np.repeat(np.arange(1, users + 1, dtype=np.int64), np.diff(log.offsets))[order]
    frame = pl.DataFrame({"user_id": user, "item_id": log.items[order], "timestamp": log.times[order]})
    names = "item-" + pl.col("item_id").cast(pl.String).str.zfill(7)
    frame = frame.with_columns(names.alias("item_id"))
    frame.write_csv(Path(folder) / "events.csv", batch_size=ROWS_AT_ONCE)
    frame.write_parquet(Path(folder) / "events.parquet", row_group_size=ROWS_AT_ONCE)
    shutil.rmtree(Path(folder) / "simulated")
    return len(frame)


def read_log(path: str, out: str) -> dict[str, float]:
    """Reads, saves and opens again; what that took."""
    from jaxrec import data

    start, processor = time.perf_counter(), time.process_time()
    log = data.read_interactions(path, duplicates="keep")
    read = time.perf_counter()
    log.save(out)
    saved, processor = time.perf_counter(), time.process_time() - processor
    del log
    data.Interactions.open(out)
    return {
        "seconds": saved - start,
        "processor_seconds": processor,
        "read_seconds": read - start,
        "save_seconds": saved - read,
        "open_seconds": time.perf_counter() - saved,
        "peak_memory_bytes": peak_resident_bytes(),
    }


def feed_log(path: str) -> dict[str, float]:
    """Opens a saved log and goes on as ``train.py`` does until the first batch is there, then takes more of them.

    The parts are opening, filtering (each user and item 5 times), splitting (leave-one-out) with the counts of the
    items, planning the windows, and the first call of the Grain pipeline.
    """
    from jaxrec.data.interactions import Interactions
    from jaxrec.data.pipeline import CallIterator, CallSource
    from jaxrec.data.splits import leave_one_out
    from jaxrec.fitting import plan_training

    moments, processor = [time.perf_counter()], time.process_time()
    log = Interactions.open(path)
    moments.append(time.perf_counter())
    log = log.filter(min_user=5, min_item=5)
    moments.append(time.perf_counter())
    split = leave_one_out(log)
    split.train_item_counts()
    moments.append(time.perf_counter())
    config = preset(PRESET)
    model = dataclasses.replace(config.model, num_items=log.num_items)
    plan = plan_training(config, model, log.offsets[:-1], split.train_ends)
    moments.append(time.perf_counter())
    with CallIterator(CallSource(log.items, plan)) as calls:
        next(calls)
        moments.append(time.perf_counter())
        processor = time.process_time() - processor
        sequences, taken = 0, 0
        while taken < FEWEST_CALLS or time.perf_counter() < moments[-1] + FED_SECONDS:
            batches = next(calls)
            sequences += batches.items.shape[0] * batches.items.shape[1]
            taken += 1
            if taken >= FEWEST_CALLS and taken >= plan.calls_per_epoch:
                break
        fed = time.perf_counter() - moments[-1]
    names = ("open_seconds", "filter_seconds", "split_seconds", "plan_seconds", "first_call_seconds")
    return {
        "seconds": moments[-1] - moments[0],
        "processor_seconds": processor,
        **dict(zip(names, np.diff(moments).tolist(), strict=True)),
        "calls": taken,
        "sequences_per_second": sequences / fed,
        "peak_memory_bytes": peak_resident_bytes(),
    }


def describe(case: dict[str, Any], results: dict[str, Any]) -> tuple[str, str]:
    """Seconds and peak memory."""
    if case.get("part") == "first batch":
        what = f"from a saved log of {case['rows'] / 1e6:,.3g} M interactions to the first batch ({case['preset']})"
        memory = results["peak_memory_bytes"] / 2**30
        rate = f"then {results['sequences_per_second'] / 1e6:.2f} M sequences/s"
        return what, f"{results['first_batch_seconds']:.3g} s, {rate}, peak {memory:.2f} GiB"
    what = f"preparing a log of {case['rows'] / 1e6:,.3g} M interactions ({case['format']})"
    memory = results["peak_memory_bytes"] / 2**30
    opening = f"opens in {1e3 * results['open_seconds']:.2g} ms"
    return what, f"{results['prepare_seconds']:.3g} s, peak {memory:.2f} GiB, {opening}"


__all__ = ["DETAILS", "NEEDS", "cases", "describe", "feed_log", "measure", "read_log", "write_log"]
