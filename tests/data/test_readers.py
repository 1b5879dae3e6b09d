"""Readers: round trips through every format against a plain-Python reading, guesses and options."""

import gzip
import uuid
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrec.data import tables
from jaxrec.data.interactions import Interactions
from jaxrec.data.readers import read_interactions, read_sequences

FORMATS = ("csv", "tsv", "parquet", "jsonl")
texts = st.text("017aé,;\"'|-", min_size=1, max_size=4)
numbers = st.integers(-3, 10**12).map(str)
rows = st.tuples(st.shared(st.sampled_from([texts, numbers]), key="ids").flatmap(lambda ids: ids), numbers)
logs = st.lists(st.tuples(rows, st.integers(0, 5)), min_size=1, max_size=30)


def write(path, frame: pl.DataFrame) -> None:
    """Writes a frame in the format of the suffix, packed if it ends in .gz."""
    kind, *packed = path.name.split(".")[1:]
    buffer = path.with_suffix(".plain")
    if kind == "parquet":
        frame.write_parquet(buffer, row_group_size=7)
    elif kind == "jsonl":
        frame.write_ndjson(buffer)
    else:
        frame.write_csv(buffer, separator="," if kind == "csv" else "\t")
    content = buffer.read_bytes()
    buffer.unlink()
    path.write_bytes(gzip.compress(content) if packed else content)


def typed(values: list[str]) -> list:
    """The documented rule for ids written as text."""
    try:
        integers = [int(value) for value in values]
    except ValueError:
        return values
    return integers if [str(value) for value in integers] == values else values


def histories(log: Interactions) -> list[tuple]:
    """(user, items, times) of each user in internal order, external ids."""
    names = log.item_ids.values.to_list()
    return [
        (
            user,
            [names[item - 1] for item in log.items[start:end]],
            None if log.times is None else log.times[start:end].tolist(),
        )
        for user, start, end in zip(
            log.users.values.to_list(), log.offsets[:-1], log.offsets[1:], strict=True
        )
    ]


def slow_reading(users: list, items: list, times: list[int]) -> list[tuple]:
    """What ``read_interactions`` must give, row by row."""
    users, items = typed(users), typed(items)
    return [
        (user, [items[row] for row in order], [times[row] for row in order])
        for user in dict.fromkeys(users)
        for order in [sorted((row for row, u in enumerate(users) if u == user), key=lambda row: times[row])]
    ]


@settings(max_examples=40, deadline=None)
@given(log=logs, kind=st.sampled_from(FORMATS), packed=st.booleans(), batch=st.sampled_from([2, 7, 1000]))
def test_every_format_reads_as_plain_python_does(tmp_path_factory, log, kind, packed, batch):
    users = [user for (user, _), _ in log]
    items = [item for (_, item), _ in log]
    times = [time for _, time in log]
    path = tmp_path_factory.mktemp("log") / f"log.{kind}{'.gz' if packed else ''}"
    write(path, pl.DataFrame({"user_id": users, "item_id": items, "timestamp": times}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables.Table.batches, "__defaults__", (batch,))
        found = read_interactions(path, duplicates="keep")
    assert histories(found) == slow_reading(users, items, times)
    appearance = list(dict.fromkeys(found.items.tolist()))
    assert appearance == list(range(1, found.num_items + 1))
    assert found.name == "log"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(texts, min_size=1, max_size=5), min_size=1, max_size=6), st.booleans())
def test_sequences_round_trip(tmp_path_factory, sequences, packed):
    path = tmp_path_factory.mktemp("log") / f"log.seq.txt{'.gz' if packed else ''}"
    content = "".join(f"u{row}\t{' '.join(items)}\n" for row, items in enumerate(sequences)).encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    log = read_sequences(path)
    names = typed([item for items in sequences for item in items])
    expected = iter(names)
    assert [items for _, items, _ in histories(log)] == [
        [next(expected) for _ in items] for items in sequences
    ]
    assert log.users.values.to_list() == [f"u{row}" for row in range(len(sequences))]
    assert log.times is None


def test_integer_columns_of_wide_range_and_small_types(tmp_path):
    users = [2**62, -(2**62), 2**62, 7]
    write(
        tmp_path / "a.parquet",
        pl.DataFrame({"user": users, "item": pl.Series([9, 1, 9, 200], dtype=pl.UInt8)}),
    )
    log = read_interactions(tmp_path / "a.parquet", duplicates="keep")
    assert [user for user, _, _ in histories(log)] == [2**62, -(2**62), 7]
    assert log.item_ids.values.to_list() == [9, 1, 200]


def test_integers_beyond_64_bits_are_text(tmp_path):
    big = pl.Series([2**64 - 1, 3], dtype=pl.UInt64)
    write(tmp_path / "a.parquet", pl.DataFrame({"user": big, "item": [1, 2]}))
    assert read_interactions(tmp_path / "a.parquet").users.values.to_list() == [str(2**64 - 1), "3"]


def test_categorical_columns_read_like_text(tmp_path):
    users = pl.Series(["7", "07", "7"]).cast(pl.Categorical)
    items = pl.Series(["3", "1", "2"]).cast(pl.Enum(["1", "2", "3"]))
    write(tmp_path / "a.parquet", pl.DataFrame({"user": users, "item": items}))
    assert histories(read_interactions(tmp_path / "a.parquet")) == [("7", [3, 2], None), ("07", [1], None)]


@pytest.mark.parametrize("kind", FORMATS)
def test_paths_with_pattern_characters_are_taken_literally(tmp_path, kind):
    path = tmp_path / f"log[1].{kind}"
    write(path, pl.DataFrame({"user": ["u"], "item": ["i"]}))
    assert histories(read_interactions(path)) == [("u", ["i"], None)]


def test_a_late_text_id_makes_the_column_text(tmp_path, monkeypatch):
    (tmp_path / "log.csv").write_text("user,item\n1,10\n2,11\n1,11\n003,10\n3,12\n")
    monkeypatch.setattr(tables.Table.batches, "__defaults__", (2,))
    log = read_interactions(tmp_path / "log.csv")
    assert log.users.values.to_list() == ["1", "2", "003", "3"]
    assert log.item_ids.values.to_list() == [10, 11, 12]


def test_whole_floats_are_integers_and_others_text(tmp_path):
    write(tmp_path / "a.parquet", pl.DataFrame({"user": [1.0, 2.0], "item": [1.5, 2.0]}))
    log = read_interactions(tmp_path / "a.parquet")
    assert log.users.values.to_list() == [1, 2]
    assert log.item_ids.values.to_list() == ["1.5", "2.0"]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (["3", "1", "2"], [1, 2, 3]),
        (["3.5", "1", "2"], [1.0, 2.0, 3.5]),
        (["1970-01-02", "1970-01-01", "1970-01-01T12:00:00Z"], [0, 43200, 86400]),
        (["1970-01-01 00:00:02.5", "1970-01-01 00:00:01", "1970-01-01 00:00"], [0.0, 1.0, 2.5]),
        (["1970/01/01 02:00", "1970-01-01T02:00:00+01:00", "1970/01/01"], [0, 3600, 7200]),
        (["1970-01-01 00:00:03 UTC", "1970-01-01 00:00:01 UTC", "1970-01-01 00:00:02.000 UTC"], [1, 2, 3]),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_times_are_numbers_or_dates(tmp_path, kind, times, expected):
    write(tmp_path / f"log.{kind}", pl.DataFrame({"user": ["u"] * 3, "item": ["a", "b", "c"], "ts": times}))
    log = read_interactions(tmp_path / f"log.{kind}")
    assert log.times.tolist() == expected
    assert log.times.dtype == (np.float64 if isinstance(expected[0], float) else np.int64)


@pytest.mark.parametrize(
    "dtype", [pl.Date(), pl.Datetime("ms"), pl.Datetime("ns", "Europe/Berlin"), pl.Datetime("us", "UTC")]
)
def test_date_columns_of_parquet_are_seconds(tmp_path, dtype):
    days = pl.Series([2, 1]).cast(pl.Date).cast(pl.Datetime("us", "UTC"))
    time = days.dt.date() if dtype == pl.Date else days.cast(dtype)
    write(tmp_path / "log.parquet", pl.DataFrame({"user": [1, 1], "item": [1, 2], "date": time}))
    assert read_interactions(tmp_path / "log.parquet").times.tolist() == [86400, 2 * 86400]


def test_time_format_decides_ambiguous_dates(tmp_path):
    (tmp_path / "log.csv").write_text("user,item,date\n1,1,02.01.1970\n1,2,01.02.1970\n")
    log = read_interactions(tmp_path / "log.csv", time_format="%d.%m.%Y")
    assert log.times.tolist() == [86400, 31 * 86400]


def test_time_kind_may_widen_between_batches(tmp_path, monkeypatch):
    (tmp_path / "log.csv").write_text("user,item,time\n1,1,5\n1,2,6\n1,3,6.5\n1,4,7\n")
    monkeypatch.setattr(tables.Table.batches, "__defaults__", (2,))
    assert read_interactions(tmp_path / "log.csv").times.tolist() == [5.0, 6.0, 6.5, 7.0]


def test_without_times_the_file_order_counts(tmp_path):
    (tmp_path / "log.csv").write_text("user,item,when\n1,a,9\n2,b,8\n1,c,7\n")
    log = read_interactions(tmp_path / "log.csv")
    assert histories(log) == [(1, ["a", "c"], None), (2, ["b"], None)]
    ordered = read_interactions(tmp_path / "log.csv", time="when")
    assert histories(ordered)[0] == (1, ["c", "a"], [7, 9])
    (tmp_path / "log.csv").write_text("user,item,time\n1,a,9\n1,c,7\n")
    assert histories(read_interactions(tmp_path / "log.csv", time=False)) == [(1, ["a", "c"], None)]


def test_a_guessed_place_in_the_history_sorts_and_is_no_time(tmp_path):
    (tmp_path / "log.csv").write_text("user,item,pos\n1,b,1\n2,b,0\n1,a,0\n")
    assert histories(read_interactions(tmp_path / "log.csv")) == [(1, ["a", "b"], None), (2, ["b"], None)]
    assert histories(read_interactions(tmp_path / "log.csv", time="pos"))[0] == (1, ["a", "b"], [0, 1])


def test_stray_quotes_join_no_lines(tmp_path):
    (tmp_path / "log.tsv").write_text('user\titem\ttitle\n1\t10\t"Great\n1\t11\tx\n2\t10\tend"\n2\t12\ty\n')
    assert histories(read_interactions(tmp_path / "log.tsv")) == [(1, [10, 11], None), (2, [10, 12], None)]
    (tmp_path / "log.csv").write_text('user,item,title\n1,10,5" a\n1,11,x\n2,10,y\n')
    with pytest.raises(ValueError, match=r"log.csv, line 2: a quote without its partner .* pass quote=None"):
        read_interactions(tmp_path / "log.csv")
    plain = read_interactions(tmp_path / "log.csv", quote=None)
    assert histories(plain) == [(1, [10, 11], None), (2, [10], None)]


def test_a_header_of_several_lines_hides_no_row(tmp_path):
    (tmp_path / "log.csv").write_text('user,item,"ts","no\nte"\n1,10,1,x\n1,11,2,y\n2,10,1,z\n')
    assert histories(read_interactions(tmp_path / "log.csv", time=False)) == [
        (1, [10, 11], None),
        (2, [10], None),
    ]


def test_quoted_fields_of_several_lines(tmp_path):
    (tmp_path / "log.tsv").write_text('user\titem\ttitle\n1\t10\t"two\nlines"\n2\t11\tx\n')
    assert histories(read_interactions(tmp_path / "log.tsv")) == [(1, [10], None), (2, [11], None)]
    text = 'user,item,title\n1,10,"two\nlines"\n2,11,"Great" Cats\n'
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(ValueError, match="cannot be read: .* pass quote=None"):
        read_interactions(tmp_path / "log.csv")
    (tmp_path / "log.csv").write_text(text.replace("Great", 'Gr"eat'))
    with pytest.raises(ValueError, match="line 4: a quote without its partner"):
        read_interactions(tmp_path / "log.csv")


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("userId;movieId;x\nu;i;1\n", {}),
        ("user_id:token\titem_id:token\nu\ti\n", {}),
        ("\ufeffUser ID,Item ID\r\nu,i\r\n", {}),
        ("\n\nuser , item\nu , i\n\n", {}),
        ('user,item\n"u","i"', {}),
        ("what,who\ni,u\n", {"user": "who", "item": "what"}),
        ("i u\n", {"user": 1, "item": 0, "has_header": False}),
        ("u::i::5::1\n", {"user": 0, "item": 1, "has_header": False}),
        ("u|i\n", {"user": 0, "item": 1, "has_header": False, "separator": "|"}),
    ],
)
def test_headers_and_separators(tmp_path, text, options):
    path = tmp_path / "log.txt"
    path.write_bytes(text.encode())
    assert histories(read_interactions(path, **options)) == [("u", ["i"], None)]


def test_several_files_are_one_log(tmp_path):
    for part, text in {"b": "user,item\n2,x\n1,y\n", "a": "user,item\n1,x\n"}.items():
        (tmp_path / f"part-{part}.csv").write_text(text)
    expected = [(1, ["x", "y"], None), (2, ["x"], None)]
    assert histories(read_interactions(tmp_path / "part-*.csv")) == expected
    parts = [tmp_path / "part-b.csv", str(tmp_path / "part-a.csv")]
    assert histories(read_interactions(parts, name="both")) == [(2, ["x"], None), (1, ["y", "x"], None)]


def test_low_ratings_are_left_out(tmp_path):
    (tmp_path / "log.csv").write_text("user,item,rating\n1,a,4.5\n1,b,3\n2,c,1\n")
    assert histories(read_interactions(tmp_path / "log.csv", min_rating=3.5)) == [(1, ["a"], None)]
    with pytest.raises(ValueError, match="no row rated 9 or higher"):
        read_interactions(tmp_path / "log.csv", min_rating=9)


def test_duplicates_are_counted_and_treated_as_told(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\n1,a,1\n1,b,2\n1,a,2\n1,a,2\n2,a,2\n1,b,3\n")
    with pytest.warns(
        UserWarning, match="log: 1 of 6 rows repeat another row .* duplicates='first'"
    ) as caught:
        log = read_interactions(path)
    assert caught[0].filename == __file__
    assert histories(log)[0] == (1, ["a", "b", "a", "a", "b"], [1, 2, 2, 2, 3])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert histories(read_interactions(path, duplicates="keep")) == histories(log)
        assert histories(read_interactions(path, duplicates="first"))[0] == (1, ["a", "b"], [1, 2])
        assert histories(read_interactions(path, duplicates="last"))[0] == (1, ["a", "b"], [2, 3])
    with pytest.warns(UserWarning, match=r"3 of 6 rows repeat another row \(same user and item\)"):
        read_interactions(path, time=False)


EVENTS = {"userId": ["u", "v", "u"], "itemId": [7, 8, 9], "ts": [2, 5, 1], "stars": [5.0, 5.0, 1.0]}
FRAMES = pytest.mark.parametrize(
    "frame", [pl.DataFrame, pl.LazyFrame, pd.DataFrame], ids=["polars", "lazy", "pandas"]
)


@FRAMES
def test_frames_read_as_files_do(frame):
    log = read_interactions(frame(EVENTS))
    assert histories(log) == [("u", [9, 7], [1, 2]), ("v", [8], [5])]
    assert log.name == "frame"
    other = read_interactions(frame(EVENTS), item="ts", time=False, min_rating=2, name="mine")
    assert histories(other) == [("u", [2], None), ("v", [5], None)]
    assert other.name == "mine"
    with pytest.warns(UserWarning, match="frame: 1 of 2 rows repeat") as caught:
        read_interactions(frame({"user": [1, 1], "item": [2, 2]}))
    assert caught[0].filename == __file__


def test_what_only_pandas_frames_have():
    days = pd.to_datetime(["1970-01-03", "1970-01-02"])
    for times in (days, days.tz_localize("UTC"), days.strftime("%Y-%m-%d")):
        frame = pd.DataFrame(
            {"user": [1, 1], "item": ["a", "b"], "date": times, 3: [{1}, None]}, index=[5, 5]
        )
        assert histories(read_interactions(frame)) == [(1, ["b", "a"], [86400, 2 * 86400])]
    unnamed = pd.DataFrame([[1, 2], [1, 3]])
    assert histories(read_interactions(unnamed, user=0, item=1)) == [(1, [2, 3], None)]
    key = uuid.UUID(int=5)
    assert read_interactions(pd.DataFrame({"user": [key], "item": [1]})).users.values.to_list() == [str(key)]
    gap = pd.DataFrame({"user": [1, None, 2], "item": pd.Series([3, 4, None], dtype="Int64")})
    assert histories(read_interactions(gap, missing="drop")) == [(1, [3], None)]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("rows", [2, 1000])
def test_rows_without_a_user_or_an_item_are_left_out_on_demand(tmp_path, kind, rows, monkeypatch, caplog):
    users = [None, None, "1", None, "2", "1"]
    items = ["5", "6", "7", None, None, "8"]
    times = ["4", None, "3", None, "2", "1"]
    path = tmp_path / f"log.{kind}"
    write(path, pl.DataFrame({"user": users, "item": items, "time": times}))
    with pytest.raises(
        ValueError, match=r"column user is .*missing='drop' \(--missing drop of prepare\.py\)"
    ):
        read_interactions(path)
    monkeypatch.setattr(tables.Table.batches, "__defaults__", (rows,))
    with caplog.at_level("INFO"):
        assert histories(read_interactions(path, missing="drop")) == [(1, [8, 7], [1, 3])]
    left_out = 4 if kind == "parquet" else 3  # a line of text without a value is blank, no row
    assert f"rows without a user or an item left out: {left_out}\n" in caplog.text


def test_a_gap_in_a_float_column_is_a_missing_id(tmp_path):
    write(tmp_path / "a.parquet", pl.DataFrame({"user": [1.0, float("nan"), 2.0], "item": [3.0, 4.0, 5.0]}))
    with pytest.raises(ValueError, match="column user is null or empty in data row 2"):
        read_interactions(tmp_path / "a.parquet")
    log = read_interactions(tmp_path / "a.parquet", missing="drop")
    assert histories(log) == [(1, [3], None), (2, [5], None)]
    assert log.users.dtype == pl.Int64


def test_a_batch_without_a_row_left_says_nothing_about_the_times(tmp_path, monkeypatch):
    (tmp_path / "log.csv").write_text("user,item,time,rating\n1,1,1970-01-02,1\n1,2,1970-01-02,5\n")
    monkeypatch.setattr(tables.Table.batches, "__defaults__", (1,))
    assert read_interactions(tmp_path / "log.csv", min_rating=3).times.tolist() == [86400]
