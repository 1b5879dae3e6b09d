"""What several test files share."""

import numpy as np


def make_log(lengths):
    """Items that tell where they stand: user u's k-th item is 1000 u + k + 1."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = np.concatenate([1000 * user + np.arange(n) + 1 for user, n in enumerate(lengths)]).astype(
        np.int32
    )
    return items, offsets
