"""The checksum of a state: any changed element changes it, how it lies on devices does not."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.train.checksum import checksum


def tree(**changes):
    generator = np.random.default_rng(0)
    arrays = {
        "table": generator.normal(size=(40, 6)).astype(np.float32),
        "half": generator.normal(size=(5, 3, 2)).astype(jnp.bfloat16),
        "step": np.int32(7),
        "mask": np.asarray([True, False, True]),
        "bytes": np.arange(9, dtype=np.uint8),
        "nothing": np.zeros((0, 4), np.float32),
    }
    return {name: jnp.asarray(array) for name, array in (arrays | changes).items()}


def mix(word: int) -> int:
    word = ((word ^ (word >> 16)) * 0x7FEB352D) % 2**32
    word = ((word ^ (word >> 15)) * 0x846CA68B) % 2**32
    return word ^ (word >> 16)


def reference(array: np.ndarray) -> int:
    """The sum of one array's mixed words, place by place."""
    words = np.atleast_1d(array).view({1: np.uint8, 2: np.uint16, 4: np.uint32}[array.dtype.itemsize]).ravel()
    return sum(mix(word ^ mix(place)) for place, word in enumerate(words.tolist())) % 2**32


def test_equals_the_reference():
    found = tree()
    expected = 0
    for name in sorted(found):
        expected = (expected * 0x01000193 + reference(np.asarray(found[name]))) % 2**32
    assert checksum(found) == expected


@pytest.mark.parametrize("bit", [0, 12, 22, 23, 31])
def test_one_bit_of_one_element_is_noticed(bit):
    table = np.asarray(tree()["table"]).copy()
    words = table.view(np.uint32)
    seen = {checksum(tree())}
    for place in ((0, 0), (0, 5), (17, 3), (39, 5)):
        words[place] ^= np.uint32(1) << np.uint32(bit)
        seen.add(checksum(tree(table=table)))
        words[place] ^= np.uint32(1) << np.uint32(bit)
    assert len(seen) == 5
    assert checksum(tree(table=table)) == checksum(tree())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step", np.int32(8)),
        ("mask", np.asarray([True, True, True])),
        ("bytes", np.arange(1, 10, dtype=np.uint8)),
        ("half", np.zeros((5, 3, 2), jnp.bfloat16)),
    ],
)
def test_every_kind_of_array_counts(name, value):
    assert checksum(tree(**{name: value})) != checksum(tree())


def test_exchanged_rows_are_noticed():
    table = np.asarray(tree()["table"])
    assert checksum(tree(table=table[::-1])) != checksum(tree())
