"""The flat log: construction, k-core filter against a slow one, fingerprint, the directory form."""

import collections
import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from jaxrec.data.identifiers import IdMap
from jaxrec.data.interactions import Interactions
from jaxrec.data.items import ItemMetadata

histories = st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=9), min_size=1, max_size=12)


def external_histories(log: Interactions) -> dict:
    """Each user's external item ids by external user id, in plain Python."""
    names = log.item_ids.values.to_list()
    return {
        user: [names[item - 1] for item in log.items[log.offsets[row] : log.offsets[row + 1]]]
        for row, user in enumerate(log.users.values.to_list())
    }


def slow_k_core(sequences: dict, min_user: int, min_item: int) -> dict:
    """The definition: drop short users, then rare items, until nothing drops."""
    while True:
        counts = collections.Counter(item for items in sequences.values() for item in items)
        kept = {user: [i for i in items if counts[i] >= min_item] for user, items in sequences.items()}
        kept = {user: items for user, items in kept.items() if len(items) >= max(min_user, 1)}
        if kept == sequences:
            return kept
        sequences = kept


def timed_log() -> Interactions:
    items = ItemMetadata(IdMap(["y", "x"]), ["Why", "Ex"], [["late"], ["late", "odd"]])
    return Interactions.from_arrays(
        np.array([1, 2, 1, 3, 2]),
        np.array([0, 3, 5]),
        users=IdMap(["u", "v"]),
        item_ids=IdMap(["x", "y", "z"]),
        times=np.array([10, 20, 20, 5, 6]),
        metadata=items,
        name="small",
    )


def test_from_sequences_numbers_items_by_first_appearance():
    log = Interactions.from_sequences([["b", "a"], ["a", "c", "b"]])
    assert log.items.tolist() == [1, 2, 2, 3, 1]
    assert log.items.dtype == np.int32
    assert log.offsets.tolist() == [0, 2, 5]
    assert log.item_ids.values.to_list() == ["b", "a", "c"]
    assert log.history(2).tolist() == [2, 3, 1]
    assert (log.num_users, log.num_items, log.num_interactions) == (2, 3, 5)
    assert log.lengths.tolist() == [2, 3]


def test_from_sequences_takes_user_ids_and_mixed_items():
    log = Interactions.from_sequences([[3, "x"], []], users=["ann", "bob"])
    assert external_histories(log) == {"ann": ["3", "x"], "bob": []}
    with pytest.raises(ValueError, match="item 2 of the sequences is None"):
        Interactions.from_sequences([[1, None]])


def test_whole_floats_are_integers_and_gaps_are_refused():
    log = Interactions.from_sequences([[1.0, 2.0], [np.float32(2), 7]])
    assert log.item_ids.values.to_list() == [1, 2, 7]
    assert_array_equal(log.item_ids.lookup([1.0, 2.0, 7]), [0, 1, 2])
    for gap in (None, float("nan"), 1.5):
        with pytest.raises(ValueError, match=f"item 2 of the sequences is {gap}; leave such items out"):
            Interactions.from_sequences([[1.0, gap]])


@pytest.mark.parametrize(
    ("items", "words"), [([3_000_000_000, 1], "above 2147483647"), ([1.7, 2.9], "float64")]
)
def test_ids_that_would_change_in_32_bits_are_refused(items, words):
    with pytest.raises(ValueError, match=words):
        Interactions.from_arrays(np.array(items), [0, 2])


def test_history_under_external_ids():
    log = Interactions.from_sequences([["b", "a"], ["a", "c", "b"]], users=[1, 2])
    assert log.history(2).tolist() == [2, 3, 1]
    assert log.history_ids(2) == ["a", "c", "b"]


def test_titles_of_other_items_are_missed():
    log = Interactions.from_sequences([["S-1", "S-2", "S-1"]], name="shop")
    items = IdMap(["S_1", "S_2"])
    metadata = ItemMetadata(items, pl.Series(["one", "two"]), pl.Series([["a"], []]))
    with pytest.warns(
        UserWarning, match=r"none of the 2 items of shop .*'S-1', 'S-2' here, 'S_1', 'S_2' there"
    ):
        log.with_metadata(metadata)


def test_history_of_an_unknown_user_is_a_key_error():
    with pytest.raises(KeyError, match="'nobody' is not among the 2 users of small"):
        timed_log().history("nobody")


def test_summary_and_repr():
    summary = timed_log().summary()
    assert summary == {
        "name": "small",
        "users": 2,
        "items": 3,
        "interactions": 5,
        "length_min": 2,
        "length_median": 2.5,
        "length_mean": 2.5,
        "length_max": 3,
        "density": 5 / 6,
        "fingerprint": timed_log().fingerprint(),
        "time_min": 5,
        "time_max": 20,
    }
    json.dumps(summary)
    assert repr(timed_log()) == "Interactions(small: 2 users, 3 items, 5 interactions, times, metadata)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"items": np.array([1, 0])}, "item ids must be 1 to 3"),
        ({"items": np.array([1, 4])}, "item ids must be 1 to 3"),
        ({"items": np.array([1, 2**32 + 2])}, "item ids must be 1 to 3"),
        ({"offsets": np.array([0, 1])}, "offsets must run from 0 to the 2 interactions"),
        ({"offsets": np.array([0, 3, 2])}, "offsets must not decrease, and do at user 1"),
        ({"users": IdMap.range(5)}, "1 histories and 5 user ids"),
        ({"times": np.array([1])}, r"2 interactions and \(1,\) times"),
        ({"times": np.array([2, 1])}, "times must not decrease within a user, and do for user row 0"),
    ],
)
def test_inconsistent_arrays_are_refused(changes, message):
    arrays = {"items": np.array([1, 2]), "offsets": np.array([0, 2]), "item_ids": IdMap.range(3)} | changes
    with pytest.raises(ValueError, match=message):
        Interactions.from_arrays(arrays.pop("items"), arrays.pop("offsets"), **arrays)


@settings(max_examples=150, deadline=None)
@given(histories, st.integers(0, 4), st.integers(0, 4))
def test_filter_equals_the_slow_k_core(sequences, min_user, min_item):
    log = Interactions.from_sequences(sequences)
    expected = slow_k_core(external_histories(log), min_user, min_item)
    if not expected:
        with pytest.raises(ValueError, match="leaves none of the"):
            log.filter(min_user, min_item)
        return
    kept = log.filter(min_user, min_item)
    assert external_histories(kept) == expected
    assert sorted(set(kept.items.tolist())) == list(range(1, kept.num_items + 1))
    again = kept.filter(min_user, min_item)
    assert again.fingerprint() == kept.fingerprint()


def test_times_and_metadata_follow_the_filter():
    kept = timed_log().filter(min_user=1, min_item=2)
    assert external_histories(kept) == {"u": ["x", "y", "x"], "v": ["y"]}
    assert kept.times.tolist() == [10, 20, 20, 6]
    assert kept.metadata.titles.to_list() == ["Ex", "Why"]
    assert kept.metadata.item_ids is kept.item_ids
    only = timed_log().filter(min_user=3, min_item=1)
    assert external_histories(only) == {"u": ["x", "y", "x"]}
    assert only.metadata.categories.to_list() == [["late", "odd"], ["late"]]


def test_filter_that_leaves_nothing_says_what_there_was():
    with pytest.raises(
        ValueError, match=r"none of the 2 users, 3 items and 5 interactions .* lower min_user"
    ):
        timed_log().filter(min_user=9, min_item=1)


def test_fingerprint_sees_order_and_sizes_but_not_external_ids():
    base = Interactions.from_sequences([[1, 2], [2, 1]])
    assert base.fingerprint() == Interactions.from_sequences([["p", "q"], ["q", "p"]]).fingerprint()
    others = [[[1, 2], [1, 2]], [[1, 2, 2], [1]], [[1, 2]]]
    prints = {Interactions.from_sequences(sequences).fingerprint() for sequences in others}
    catalogue = Interactions.from_arrays(base.items, base.offsets, item_ids=IdMap.range(3))
    assert len(prints | {base.fingerprint(), catalogue.fingerprint()}) == 5


def test_fingerprint_is_the_same_in_blocks(monkeypatch):
    whole = timed_log().fingerprint()
    monkeypatch.setattr("jaxrec.data.interactions.HASHED_AT_ONCE", 2)
    assert timed_log().fingerprint() == whole


def test_saved_log_opens_memory_mapped_and_equal(tmp_path):
    log = timed_log()
    opened = Interactions.open(log.save(tmp_path / "log"))
    assert isinstance(opened.items, np.memmap)
    assert external_histories(opened) == external_histories(log)
    assert opened.times.tolist() == log.times.tolist()
    assert opened.metadata.titles.to_list() == ["Ex", "Why", None]
    assert opened.metadata.categories.to_list() == [["late", "odd"], ["late"], []]
    assert opened.name == "small"
    assert opened.fingerprint() == log.fingerprint()
    assert Interactions(opened.items, opened.offsets, opened.users, opened.item_ids).fingerprint() == (
        log.fingerprint()
    )
    assert opened.filter(1, 2).fingerprint() == log.filter(1, 2).fingerprint()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_saving_replaces_a_log_even_over_itself(tmp_path):
    timed_log().save(tmp_path / "log")
    Interactions.open(tmp_path / "log").filter(1, 2).save(tmp_path / "log")
    again = Interactions.open(tmp_path / "log")
    again.save(tmp_path / "log")
    assert Interactions.open(tmp_path / "log").num_interactions == 4
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_ranges_and_integer_ids_come_back(tmp_path):
    log = Interactions.from_sequences([[30, 10], [10]])
    opened = Interactions.open(log.save(tmp_path / "log"))
    assert opened.users.first == 1
    assert opened.item_ids.dtype == pl.Int64
    assert external_histories(opened) == {1: [30, 10], 2: [10]}


def test_an_interrupted_save_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(IdMap, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        timed_log().save(tmp_path / "log")
    assert list(tmp_path.iterdir()) == []


def test_saving_spares_foreign_directories(tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(FileExistsError, match="exists and is not a saved log"):
        timed_log().save(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_opening_what_is_no_log_or_damaged_is_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a saved log"):
        Interactions.open(tmp_path / "nowhere")
    directory = timed_log().save(tmp_path / "log")
    header = directory / "header.json"
    good = header.read_text()
    for text, message in [
        ("{", "is damaged"),
        ('{"format": "other"}', "is not of format"),
        (good.replace('"interactions": 5', '"interactions": 6'), "has the shape"),
        (good.replace('"fingerprint"', '"thumbprint"'), "lacks 'fingerprint'"),
    ]:
        header.write_text(text)
        with pytest.raises(ValueError, match=message):
            Interactions.open(directory)
    header.write_text(good)
    items = (directory / "items.npy").read_bytes()
    (directory / "items.npy").write_bytes(items[:-4])
    with pytest.raises(ValueError, match=r"items\.npy cannot be read"):
        Interactions.open(directory)
    (directory / "items.npy").write_bytes(items)
    (directory / "users.arrow").unlink()
    with pytest.raises(ValueError, match=r"users\.arrow is missing"):
        Interactions.open(directory)
