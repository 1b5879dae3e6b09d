"""Histories in every form that callers have, unknown items, and lists back to frames."""

import datetime
import uuid

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


TIMED = {
    "user_id": ["ann", "bob", "ann", "ann", "bob"],
    "item_id": ["pear", "fig", "apple", "plum", "fig"],
    "ts": [3, 9, 1, 1, 8],
}


def in_order(frame):
    read = read_histories(frame, CATALOGUE, on_unknown="raise")
    return dict(zip(read.users.to_list(), as_lists(read), strict=True))


@pytest.mark.parametrize(
    "frame", [pl.DataFrame, pl.LazyFrame, pd.DataFrame], ids=["polars", "lazy", "pandas"]
)
@pytest.mark.parametrize(
    ("name", "times"),
    [
        ("ts", [3, 9, 1, 1, 8]),
        ("pos", [3, 9, 1, 1, 8]),
        ("timestamp", [3.5, 9.0, 1.0, 1.0, 8.0]),
        ("Date", ["2024-01-03", "2024-01-09", "2024-01-01", "2024-01-01", "2024-01-08"]),
        ("event_time", [datetime.datetime(2024, 1, day, tzinfo=datetime.UTC) for day in (3, 9, 1, 1, 8)]),
    ],
)
def test_the_events_of_a_frame_are_sorted_by_time_stably(frame, name, times):
    events = {"user_id": TIMED["user_id"], "item_id": TIMED["item_id"], name: times}
    assert list(in_order(frame(events)).items()) == [("ann", [1, 3, 2]), ("bob", [4, 4])]


def test_without_times_the_order_of_the_rows_counts():
    assert in_order(pl.DataFrame(TIMED).drop("ts"))["ann"] == [2, 1, 3]
    assert in_order(pl.DataFrame(TIMED).rename({"ts": "whenever"}))["ann"] == [2, 1, 3]


@pytest.mark.parametrize("columns", [["item_id"], ["item_id", "ts"]])
def test_one_row_a_user_with_lists(columns):
    nested = pl.DataFrame(TIMED).group_by("user_id", maintain_order=True).agg(columns)
    ann = [1, 3, 2] if "ts" in columns else [2, 1, 3]
    for form in (nested, nested.lazy(), nested.cast({"user_id": pl.Categorical})):
        assert in_order(form) == {"ann": ann, "bob": [4, 4]}
    last = pl.DataFrame(TIMED).group_by("user_id", maintain_order=True).agg("item_id", pl.col("ts").max())
    assert in_order(last) == {"ann": [2, 1, 3], "bob": [4, 4]}
    nothing = pl.DataFrame({"user_id": ["ann", "bob"], "item_id": [[], []]})
    assert in_order(nothing) == {"ann": [], "bob": []}
    empty = pl.DataFrame({"user_id": ["ann", "bob"], "item_id": [[], ["fig"]], "ts": [[], [1]]})
    assert in_order(empty) == {"ann": [], "bob": [4]}


def test_lists_that_pandas_groups():
    grouped = pd.DataFrame(EVENTS).groupby("user_id")["item_id"]
    expected = {"ann": [2, 1], "bob": [4, 4]}
    assert in_order(grouped.apply(list)) == expected
    assert in_order(grouped.apply(list).reset_index()) == expected
    assert in_order(grouped.apply(tuple).reset_index()) == expected
    assert in_order(grouped.unique().reset_index()) == {"ann": [2, 1], "bob": [4]}


def test_users_of_a_pandas_frame_keep_their_kind():
    frame = pd.DataFrame({"user_id": [7.0, None, 8.0], "item_id": ["fig", "fig", "pear"]}).dropna()
    assert in_order(frame) == {7: [4], 8: [2]}
    assert read_histories(frame, CATALOGUE).users.dtype == pl.Int64
    whole = frame.groupby("user_id")["item_id"].apply(list)
    assert read_histories(whole, CATALOGUE).users.to_list() == [7, 8]
    key = uuid.UUID(int=5)
    assert read_histories({key: ["fig"]}, CATALOGUE).users.to_list() == [key]
    unnamed = pd.DataFrame({"user_id": [7], "item_id": ["fig"], 5: [{1, 2}]})
    assert in_order(unnamed) == {7: [4]}


@pytest.mark.parametrize(
    ("histories", "words"),
    [
        (pl.DataFrame({"user_id": [1.0, np.nan], "item_id": ["fig", "fig"]}), "rows without a user"),
        (
            pl.DataFrame({"user_id": ["a", "a"], "item_id": [["fig"], ["pear"]]}),
            "user 'a' more than once; join",
        ),
        (pl.DataFrame({"user_id": ["a"], "item_id": [["fig", None]]}), "lists with a missing item"),
        (
            pl.DataFrame({"user_id": ["a"], "item_id": [["fig", "pear"]], "ts": [[1]]}),
            "lists of ts that are not as long",
        ),
        (
            pl.DataFrame({"user_id": ["a"] * 2, "item_id": ["fig"] * 2, "ts": ["2024-01-01", "soon"]}),
            "column ts holds 'soon' in event 2, which is not a time .* drop the column",
        ),
        (
            pl.DataFrame({"user_id": ["a"] * 2, "item_id": ["fig"] * 2, "ts": [1, None]}),
            "column ts holds None in event 2",
        ),
        (
            pl.DataFrame({"user_id": ["a"], "item_id": ["fig"], "ts": [1], "date": [1]}),
            "time could be ts or date; there should be one such column, e.g. time",
        ),
        ({"a": ["fig"], 2: ["fig"]}, r"several types: 'a' \(str\) and 2 \(int\); make all of them text"),
        ({2: ["fig"], "a": ["fig"]}, r"several types: 2 \(int\) and 'a' \(str\)"),
        ({"a": ["fig"], None: ["fig"]}, "user without a name"),
        ({1.0: ["fig"], float("nan"): ["fig"]}, "user without a name"),
        (pd.Series(["fig", "pear"], index=["ann", "bob"]), "history of user 'ann' must be a list"),
        (pd.Series([["fig"], ["pear"]], index=["ann", "ann"]), "user 'ann' more than once"),
    ],
)
def test_frames_and_mappings_that_are_not_understood(histories, words):
    with pytest.raises(ValueError, match=words) as caught:
        read_histories(histories, CATALOGUE)
    assert "\n" not in str(caught.value)
