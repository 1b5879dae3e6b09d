"""External ids: look-up both ways, id types, ranges, and files."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrec.data.identifiers import IdMap

ids = st.lists(st.integers(-(2**62), 2**62), unique=True) | st.lists(st.text(), unique=True)


@settings(max_examples=60, deadline=None)
@given(ids, st.randoms())
def test_lookup_and_external_are_inverse(values, random):
    id_map = IdMap(pl.Series(values, dtype=pl.String if not values else None))
    assert len(id_map) == len(values)
    shuffled = random.sample(values, len(values))
    rows = id_map.lookup(shuffled)
    assert rows.dtype == np.int64
    assert [values[row] for row in rows] == shuffled
    assert id_map.external(rows).to_list() == shuffled


def test_unknown_and_null_ids_are_minus_one():
    assert IdMap(["b", "a"]).lookup(["a", "c", None, "b", ""]).tolist() == [1, -1, -1, 0, -1]
    assert IdMap([5, 3]).lookup([3, 4, None, 5, 99]).tolist() == [1, -1, -1, 0, -1]
    assert IdMap(["b", "a"]).lookup([]).tolist() == []
    assert IdMap(pl.Series([], dtype=pl.Int64)).lookup([1, 2]).tolist() == [-1, -1]


@pytest.mark.parametrize(
    "asked",
    [
        ["12", "012", "x", 7],
        [12, "012", None, 7],
        np.array(["12", "012", "x", "7"]),
        np.array([12, "012", None, 7], dtype=object),
        pl.Series(["12", "012", None, "7"]),
        pl.Series(["12", "012", None, "7"]).cast(pl.Categorical),
    ],
)
def test_text_matches_an_integer_map_only_in_its_shortest_form(asked):
    assert IdMap([7, 12]).lookup(asked).tolist() == [1, -1, -1, 0]


def test_integers_match_a_map_of_text():
    assert IdMap(["7", "012", "12"]).lookup([12, 7, 1]).tolist() == [2, 0, -1]
    assert IdMap(["7", "012", "12"]).lookup(np.array([12, 7], np.uint8)).tolist() == [2, 0]


def test_floats_of_pandas_match_whole_numbers():
    assert IdMap([7, 12]).lookup(np.array([12.0, np.nan, 7.5])).tolist() == [1, -1, -1]
    assert IdMap(["7", "12"]).lookup([12.0, None, 7]).tolist() == [1, -1, 0]


def test_integers_beyond_64_bits_are_unknown():
    assert IdMap([7]).lookup([7, 2**70]).tolist() == [0, -1]


def test_range_takes_no_memory_and_behaves_like_its_values():
    implicit, explicit = IdMap.range(10**9, first=5), IdMap(range(5, 15))
    assert len(implicit) == 10**9
    asked = [5, "6", 4, 14, None, "x"]
    assert implicit.lookup(asked).tolist() == explicit.lookup(asked).tolist() == [0, 1, -1, 9, -1, -1]
    assert implicit.external([0, 3]).to_list() == [5, 8]
    assert implicit.dtype == explicit.dtype == pl.Int64
    assert IdMap.range(3).values.to_list() == [1, 2, 3]


def test_integers_keep_their_type():
    assert IdMap(pl.Series([1, 2], dtype=pl.UInt16)).external([1]).dtype == pl.UInt16


def test_a_file_is_read_on_first_use(tmp_path):
    IdMap(["b", "a"]).save(tmp_path / "ids.arrow")
    id_map = IdMap.open(tmp_path / "ids.arrow", 2)
    assert len(id_map) == 2
    assert "on disk" in repr(id_map)
    assert id_map.lookup(["a"]).tolist() == [1]
    with pytest.raises(ValueError, match="2 ids, not 3 as recorded"):
        IdMap.open(tmp_path / "ids.arrow", 3).lookup(["a"])


def test_take_selects_rows():
    assert IdMap(["c", "a", "b"]).take(np.array([2, 0])).values.to_list() == ["b", "c"]
    assert IdMap.range(4, first=10).take(np.array([1, 3])).values.to_list() == [11, 13]
    whole = IdMap.range(4)
    assert whole.take(np.arange(4)) is whole


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", None], "ids must not be null, but 1 of 2 are"),
        (["a", "b", "a"], "'a' stands there more than once"),
        ([1.5, 2.0], "ids must be integers or text"),
    ],
)
def test_bad_ids_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        IdMap(values)


def test_bad_queries_are_refused():
    with pytest.raises(ValueError, match=r"write \['ann'\]"):
        IdMap(["ann"]).lookup("ann")
    with pytest.raises(IndexError, match="rows run from 0 to 2, and 0 to 3 were asked for"):
        IdMap.range(3).external([0, 3])
