"""Splits against plain-Python definitions, and what they say about logs that cannot be split."""

import dataclasses
import datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrec.data.identifiers import IdMap
from jaxrec.data.interactions import Interactions
from jaxrec.data.source import DataConfig, load_split, moved
from jaxrec.data.splits import Split, leave_one_out, temporal

users_events = st.lists(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 6)), max_size=8), min_size=1, max_size=8
)


def timed(events: list[list[tuple[int, int]]]) -> Interactions:
    """A log from (time, item) lists, sorted by time within each user."""
    events = [sorted(user, key=lambda event: event[0]) for user in events]
    flat = [event for user in events for event in user]
    return Interactions.from_arrays(
        np.array([item for _, item in flat], np.int32),
        np.cumsum([0, *map(len, events)]),
        item_ids=IdMap.range(6),
        times=np.array([time for time, _ in flat], np.int64),
    )


def rows(log: Interactions, split: Split, part: str) -> list[tuple[int, list[int], int]]:
    """(user, history, target) of every row of a part."""
    targets = split.targets(part)
    assert targets.users.dtype == np.int32
    assert targets.positions.dtype == targets.starts.dtype == np.int64
    return [
        (int(user), log.items[start:position].tolist(), int(log.items[position]))
        for user, start, position in zip(*targets, strict=True)
    ]


def trained(log: Interactions, split: Split) -> list[list[int]]:
    return [
        log.items[start:end].tolist() for start, end in zip(log.offsets[:-1], split.train_ends, strict=True)
    ]


def check_counts(log: Interactions, split: Split) -> None:
    counts = split.train_item_counts()
    flat = [item for items in trained(log, split) for item in items]
    assert counts.tolist() == [flat.count(item) for item in range(log.num_items + 1)]
    assert split.summary()["train_interactions"] == len(flat)


@settings(max_examples=100, deadline=None)
@given(users_events, st.integers(3, 5))
def test_leave_one_out_equals_its_definition(events, min_events):
    log = timed(events)
    sequences = [
        log.items[start:end].tolist() for start, end in zip(log.offsets, log.offsets[1:], strict=False)
    ]
    long = [(user, items) for user, items in enumerate(sequences) if len(items) >= min_events]
    if not long:
        with pytest.raises(ValueError, match=f"no user of log has the {min_events} interactions"):
            leave_one_out(log, min_events=min_events)
        return
    split = leave_one_out(log, min_events=min_events)
    assert rows(log, split, "validation") == [(user, items[:-2], items[-2]) for user, items in long]
    assert rows(log, split, "test") == [(user, items[:-1], items[-1]) for user, items in long]
    assert trained(log, split) == [items[:-2] if len(items) >= min_events else items for items in sequences]
    assert split.summary()["users_train_only"] == sum(0 < len(items) < min_events for items in sequences)
    check_counts(log, split)


@settings(max_examples=150, deadline=None)
@given(users_events, st.integers(1, 29), st.integers(1, 10), st.sampled_from(["first", "last", "all"]))
def test_temporal_equals_its_definition(events, validation_time, width, targets):
    test_time = validation_time + width
    log = timed(events)
    expected = {"validation": [], "test": []}
    training = []
    for user, (start, end) in enumerate(zip(log.offsets, log.offsets[1:], strict=False)):
        items, times = log.items[start:end].tolist(), log.times[start:end].tolist()
        training.append([item for item, time in zip(items, times, strict=True) if time < validation_time])
        for part, low, high in (("validation", validation_time, test_time), ("test", test_time, 10**9)):
            places = [place for place, time in enumerate(times) if low <= time < high and place > 0]
            chosen = {"first": places[:1], "last": places[-1:], "all": places}[targets]
            expected[part] += [(user, items[:place], items[place]) for place in chosen]
    if not (any(training) and expected["validation"] and expected["test"]):
        with pytest.raises(
            ValueError,
            match=r"leaves log no (training|validation|test) part: its times run|log has no interactions",
        ):
            temporal(log, validation_time=validation_time, test_time=test_time, targets=targets)
        return
    split = temporal(log, validation_time=validation_time, test_time=test_time, targets=targets)
    assert trained(log, split) == training
    assert {part: rows(log, split, part) for part in expected} == expected
    assert split.name == (
        f"temporal(validation_time={validation_time}, test_time={test_time}, targets={targets})"
    )
    check_counts(log, split)


def test_fractions_are_shares_of_all_interactions():
    log = timed([[(time, 1 + time % 6) for time in range(start, 100, 2)] for start in (0, 1)])
    split = temporal(log, fractions=(0.6, 0.3, 0.1), targets="all")
    assert split.name == "temporal(validation_time=60, test_time=90, targets=all)"
    summary = split.summary()
    assert (summary["train_interactions"], summary["validation_targets"], summary["test_targets"]) == (
        60,
        30,
        10,
    )


def test_a_split_that_the_log_does_not_tell_has_a_fingerprint():
    log = timed([[(time, 1 + time % 6) for time in range(start, 100, 2)] for start in (0, 1)])
    later = timed([[(time + 5, 1 + time % 6) for time in range(start, 100, 2)] for start in (0, 1)])
    assert leave_one_out(log).fingerprint() is None
    splits = [temporal(one, validation_time=60, test_time=90) for one in (log, later)]
    assert splits[0].name == splits[1].name
    assert log.fingerprint() == later.fingerprint()
    assert splits[0].fingerprint() != splits[1].fingerprint()
    assert splits[0].fingerprint() == temporal(log, validation_time=60, test_time=90).fingerprint()


@pytest.mark.parametrize(
    ("validation", "test"),
    [
        ("2024-01-02", datetime.date(2024, 1, 3)),
        (datetime.datetime(2024, 1, 2), "2024-01-03T01:00:00+01:00"),
        (1704153600, 1704240000),
    ],
)
def test_dates_are_seconds_in_utc(validation, test):
    first = 1704067200
    log = timed([[(first, 1), (first + 86400, 2), (first + 2 * 86400, 3)]])
    split = temporal(log, validation_time=validation, test_time=test)
    assert rows(log, split, "validation") == [(0, [1], 2)]
    assert rows(log, split, "test") == [(0, [1, 2], 3)]
    assert "validation_time=1704153600, test_time=1704240000" in split.name


def test_items_never_trained_are_counted():
    log = Interactions.from_sequences([["a", "b", "c"], ["a", "a", "b", "a"], ["c"]])
    summary = leave_one_out(log).summary()
    assert summary == {
        "split": "leave-one-out",
        "users": 3,
        "users_train_only": 1,
        "train_interactions": 4,
        "train_items": 2,
        "validation_targets": 2,
        "test_targets": 2,
        "test_targets_never_trained": 0,
    }
    assert (
        leave_one_out(Interactions.from_sequences([[1, 2, 3]])).summary()["test_targets_never_trained"] == 1
    )
    assert leave_one_out(log, min_events=4).name == "leave-one-out(min_events=4)"


def test_counts_are_the_same_in_blocks(monkeypatch):
    log = Interactions.from_sequences([[1, 2, 3, 1], [3, 1, 2, 2, 2]])
    whole = leave_one_out(log).train_item_counts()
    monkeypatch.setattr("jaxrec.data.splits.COUNTED_AT_ONCE", 2)
    assert leave_one_out(log).train_item_counts().tolist() == whole.tolist()


def test_a_split_of_a_saved_log_is_the_same(tmp_path):
    log = timed([[(0, 1), (5, 2), (9, 3), (12, 4)], [(1, 2), (6, 2), (11, 5)]])
    opened = Interactions.open(log.save(tmp_path / "log"))
    for split in (leave_one_out, lambda log: temporal(log, validation_time=5, test_time=10)):
        one, two = split(log), split(opened)
        assert rows(log, one, "test") == rows(opened, two, "test")
        assert one.summary() == two.summary()


def test_users_with_too_few_events_are_explained():
    log = Interactions.from_sequences([[1], [2, 3]], name="tiny")
    with pytest.raises(ValueError, match=r"no user of tiny has the 3 .* longest of 2 histories has 2"):
        leave_one_out(log)
    with pytest.raises(ValueError, match="min_events is 2; a user needs 3"):
        leave_one_out(log, min_events=2)


def test_columns_are_named_only_where_they_are_read(tmp_path):
    folder = str(timed([[(1, 1), (2, 2), (3, 1)]] * 2).save(tmp_path / "log"))
    for source, kind in (
        (folder, "a prepared folder"),
        ("simulated", "simulated data"),
        ("movielens-1m", "public"),
    ):
        with pytest.raises(
            ValueError, match=rf"data.item is 'movie' and has no effect: {source} is .*{kind}"
        ):
            load_split(DataConfig(source=source, item="movie"))
    with pytest.raises(ValueError, match="data.items_id is 'asin' and has no effect without data.items"):
        load_split(DataConfig(source=folder, items_id="asin"))
    former = DataConfig(source="log.csv", item="movie", items_id="asin", min_user=1, min_item=1)
    assert moved(former) == dataclasses.replace(former, items_id="")
    assert load_split(moved(former, folder)).interactions.num_users == 2


def test_what_a_filter_leaves_out_is_told(tmp_path, caplog):
    log = timed([[(1, 1), (2, 2), (3, 1)], [(1, 1), (2, 2), (3, 2), (4, 3)], [(1, 3)]])
    source = DataConfig(source=str(log.save(tmp_path / "log")), min_user=3, min_item=2)
    with caplog.at_level("INFO", "jaxrec"):
        load_split(dataclasses.replace(source, min_user=1, min_item=1))
        assert not caplog.messages
        load_split(source)
    (message,) = caplog.messages
    assert message.endswith(
        "kept 2 of 3 users, 2 of 6 items and 6 of 8 interactions (min_user 3, min_item 2)"
    )


def test_a_config_sets_the_clock(tmp_path):
    first = 1704067200  # 2024-01-01
    log = timed([[(first + day * 86400, 1 + day % 6) for day in range(10)] for _ in range(2)])
    source = DataConfig(source=str(log.save(tmp_path / "log")), min_user=1, min_item=1, split="temporal")
    assert load_split(source).name == temporal(log).name
    shares = dataclasses.replace(source, fractions=(0.5, 0.2, 0.3), targets="first")
    assert load_split(shares).name == temporal(log, fractions=(0.5, 0.2, 0.3), targets="first").name
    assert load_split(shares).name != load_split(source).name
    for texts in (("2024-01-06", "2024-01-08"), ("1704499200", "1704672000.0")):
        times = dataclasses.replace(source, validation_time=texts[0], test_time=texts[1], targets="all")
        summary = load_split(times).summary()
        assert (summary["train_interactions"], summary["validation_targets"], summary["test_targets"]) == (
            10,
            4,
            6,
        )
    for changes, message in [
        (
            {"validation_time": "2024-01-08", "test_time": "2024-01-06"},
            "2024-01-08 must come before data.test_time",
        ),
        ({"test_time": "May"}, "'May' is not a date in ISO form"),
        (
            {"split": "leave-one-out", "targets": "all"},
            "data.targets is 'all' and has no effect on the split leave",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(source, **changes)


def test_bad_temporal_arguments_are_explained():
    with pytest.raises(ValueError, match="log has no times; use leave_one_out"):
        temporal(Interactions.from_sequences([[1, 2, 3]]))
    log = timed([[(0, 1), (5, 2), (9, 3)]])
    for arguments, message in [
        ({"fractions": (0.8, 0.1)}, "three positive shares"),
        ({"fractions": (0.8, 0.1, 0.2)}, "three positive shares"),
        ({"validation_time": 6, "test_time": 6}, "validation_time 6 must come before test_time 6"),
        ({"validation_time": "May", "test_time": 6}, "'May' is not a date in ISO form"),
        ({"validation_time": 5, "test_time": 6, "targets": "some"}, "choose 'first', 'last' or 'all'"),
        ({"validation_time": 5, "test_time": 60}, "no test part: its times run from 0 to 9"),
    ]:
        with pytest.raises(ValueError, match=message):
            temporal(log, **arguments)
    with pytest.raises(ValueError, match="no part 'train'"):
        temporal(log, validation_time=5, test_time=6).targets("train")


def test_a_split_knows_what_it_was_loaded_from():
    source = DataConfig(simulated_users=60, simulated_items=30, min_user=4)
    split = load_split(source)
    assert split.loaded_from == source
    assert leave_one_out(split.interactions).loaded_from is None
    assert dataclasses.replace(split, test=split.test[:5]).loaded_from is None  # it holds less now
