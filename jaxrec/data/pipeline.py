"""The Grain input pipeline: one element is one call, a pure function of its number.

A per-example pipeline costs tens of microseconds a sequence; here Grain schedules, prefetches, shards and
checkpoints whole calls (``steps`` batches), and numpy gathers them in one go.
"""

import sys
from collections.abc import Iterator

import grain.python as grain
import numpy as np

from jaxrec.batch import SequenceBatch
from jaxrec.data.windows import WindowPlan


class CallSource(grain.RandomAccessDataSource):
    """Random access to the calls of a plan.

    Attributes:
      items: int32 ``[N]``, the flat log (memory-mapped or not).
      plan: the windows and their order.
      process_index: which slice of every batch this process reads.
      process_count: slices there are; must divide the rows of every batch.
    """

    def __init__(self, items: np.ndarray, plan: WindowPlan, process_index: int = 0, process_count: int = 1):
        for bucket in plan.buckets:
            if bucket.rows_per_batch % process_count:
                raise ValueError(
                    f"{process_count} processes cannot share batches of {bucket.rows_per_batch} rows; make"
                    " row_multiple of the plan a multiple of the number of processes"
                )
        self.items = items
        self.plan = plan
        self.process_index = process_index
        self.process_count = process_count

    def __len__(self) -> int:
        return sys.maxsize // 2  # the stream has no end; the training loop decides when it has enough

    def __getitem__(self, index: int) -> SequenceBatch:
        """Call ``index``: arrays ``[S, B / process_count, L]``."""
        plan = self.plan
        rows = plan.buckets[plan.call(index).bucket].rows_per_batch // self.process_count
        return plan.batch(
            self.items, index, slice(self.process_index * rows, (self.process_index + 1) * rows)
        )

    def __repr__(self) -> str:
        # What Grain's messages name; whether a checkpoint fits these buckets, the training loop checks.
        buckets = [(bucket.length, bucket.rows_per_batch, bucket.num_rows) for bucket in self.plan.buckets]
        return f"CallSource(seed={self.plan.seed}, steps={self.plan.steps}, buckets={buckets})"


class CallIterator(Iterator[SequenceBatch]):
    """Iterates over the calls from a given one on, prefetching; its state is a number.

    Use it as a context manager, or close it, so that its threads end.
    """

    def __init__(self, source: CallSource, first_call: int = 0, *, num_threads: int = 1, prefetch: int = 4):
        self.source = source
        dataset = grain.MapDataset.source(source)
        options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=prefetch)
        self.grain_iterator = iter(dataset.to_iter_dataset(options))
        if first_call:
            self.seek(first_call)

    def __next__(self) -> SequenceBatch:
        return next(self.grain_iterator)

    def seek(self, call: int) -> None:
        """Goes to a call by its number; nothing is read on the way."""
        state = self.grain_iterator.get_state()
        self.grain_iterator.set_state({**state, "next_index": call})

    @property
    def next_call(self) -> int:
        """Number of the call that comes next."""
        return int(self.grain_iterator.get_state()["next_index"])

    def close(self) -> None:
        """Ends the prefetching threads."""
        self.grain_iterator.close()

    def __enter__(self) -> "CallIterator":
        return self

    def __exit__(self, *exception) -> None:
        self.close()


__all__ = ["CallIterator", "CallSource"]
