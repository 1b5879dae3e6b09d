"""Section ``prepare``: from a large log in a file to saved arrays: time and peak memory."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.apart import run_apart
from benchmarks.rows import Row, row, skipped
from benchmarks.settings import Settings
from benchmarks.timing import Times, peak_resident_bytes

NEEDS = ("polars",)
DETAILS: tuple[str, ...] = ()
FORMATS = ("csv", "parquet")
MEAN_LENGTH = 25.0
ROWS_AT_ONCE = 1 << 20
BYTES_A_ROW = 100
"""Disk space at most: the simulated log twice, both formats, and what is prepared from one."""


def cases(settings: Settings) -> list[dict[str, Any]]:
    """Sizes of the log."""
    return [{"rows": rows} for rows in settings.prepare_rows]


def measure(settings: Settings, case: dict[str, Any]) -> Iterator[Row]:
    """One row a format; reading and saving run in a process that does nothing else.

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


def describe(case: dict[str, Any], results: dict[str, Any]) -> tuple[str, str]:
    """Seconds and peak memory."""
    what = f"preparing a log of {case['rows'] / 1e6:,.3g} M interactions ({case['format']})"
    memory = results["peak_memory_bytes"] / 2**30
    opening = f"opens in {1e3 * results['open_seconds']:.2g} ms"
    return what, f"{results['prepare_seconds']:.3g} s, peak {memory:.2f} GiB, {opening}"


__all__ = ["DETAILS", "NEEDS", "cases", "describe", "measure", "read_log", "write_log"]
