"""Histories in every form that callers have, unknown items, and lists back to frames."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from jaxrec import data
from jaxrec.data.histories import known_items, read_histories, recommendation_frame
from jaxrec.data.identifiers import IdMap

CATALOGUE = IdMap(["apple", "pear", "plum", "fig"])
EVENTS = {"user_id": ["ann", "bob", "ann", "bob"], "item_id": ["pear", "fig", "apple", "fig"]}


def as_lists(read):
    return [
        read.items[start:end].tolist() for start, end in zip(read.offsets[:-1], read.offsets[1:], strict=True)
    ]


@pytest.mark.parametrize(
    "histories",
    [
        {"ann": ["pear", "apple"], "bob": ["fig", "fig"]},
        pl.DataFrame(EVENTS),
        pd.DataFrame(EVENTS),
        data.Interactions.from_sequences([["pear", "apple"], ["fig", "fig"]], users=["ann", "bob"]),
    ],
    ids=["dict", "polars", "pandas", "log"],
)
def test_named_forms(histories):
    read = read_histories(histories, CATALOGUE)
    assert read.users.to_list() == ["ann", "bob"]
    assert as_lists(read) == [[2, 1], [4, 4]]
    assert (read.items.dtype, read.offsets.dtype) == (np.int32, np.int64)


def test_lists_are_named_by_place():
    read = read_histories([["plum"], [], ("pear", "apple")], CATALOGUE)
    assert read.users.to_list() == [0, 1, 2]
    assert as_lists(read) == [[3], [], [2, 1]]


def test_integer_ids_and_ids_as_text():
    catalogue = IdMap([30, 10, 20])
    assert as_lists(read_histories([[10, 20], ["30"], np.asarray([20])], catalogue, on_unknown="raise")) == [
        [2, 3],
        [1],
        [3],
    ]


def test_unknown_items():
    histories = {"ann": ["pear", "kiwi", "apple"], "bob": ["kiwi", "lime"]}
    with pytest.warns(
        UserWarning, match="2 of the items in the histories are not among the 4 .*'kiwi', 'lime'"
    ):
        read = read_histories(histories, CATALOGUE)
    assert as_lists(read) == [[2, 1], []]
    assert as_lists(read_histories(histories, CATALOGUE, on_unknown="ignore")) == [[2, 1], []]
    with pytest.raises(ValueError, match="kiwi.*leave them out"):
        read_histories(histories, CATALOGUE, on_unknown="raise")
    with pytest.raises(ValueError, match="on_unknown must be"):
        read_histories(histories, CATALOGUE, on_unknown="explode")


def test_many_unknown_items_are_not_all_named():
    with pytest.raises(ValueError, match=r"7 of the .*\.\.\."):
        read_histories([list("abcdefg")], CATALOGUE, on_unknown="raise")


@pytest.mark.parametrize(
    ("histories", "words"),
    [
        ("ann", "got str"),
        (7, "got int"),
        ({"ann": "pear"}, "history of user 'ann' must be a list"),
        ([["pear"], 3], "history of user 1 must be a list"),
        (pl.DataFrame({"who": ["ann"], "item_id": ["pear"]}), "no column that looks like user"),
        (pl.DataFrame({"user_id": ["ann"], "item_id": [None]}), "rows without a user or an item"),
    ],
)
def test_forms_that_are_not_understood(histories, words):
    with pytest.raises(ValueError, match=words):
        read_histories(histories, CATALOGUE)


def test_known_items():
    assert known_items(["fig", "apple"], CATALOGUE).tolist() == [4, 1]
    with pytest.raises(ValueError, match="1 of the candidates"):
        known_items(["kiwi"], CATALOGUE, on_unknown="raise", what="candidates")


def test_frame_of_lists():
    lists = (
        np.asarray([[4, 1], [2, 0]], np.int32),
        np.asarray([[2.0, 1.0], [3.0, -np.inf]], np.float32),
        np.asarray([[True, True], [True, False]]),
    )
    spread = np.asarray([[0.5, 0.25], [0.0, 7.0]], np.float32)
    frame = recommendation_frame(pl.Series(["ann", "bob"]), CATALOGUE, *lists, spread=spread)
    assert frame["spread"].to_list() == [0.5, 0.25, 0.0]
    frame = recommendation_frame(pl.Series(["ann", "bob"]), CATALOGUE, *lists)
    assert frame.to_dict(as_series=False) == {
        "user_id": ["ann", "ann", "bob"],
        "item_id": ["fig", "apple", "pear"],
        "score": [2.0, 1.0, 3.0],
        "rank": [1, 2, 1],
    }
