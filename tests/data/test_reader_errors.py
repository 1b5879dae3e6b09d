"""Bad input: one clear sentence that says what was found, where, and what to do."""

import gzip

import polars as pl
import pytest

from jaxrec.data import diagnosis, tables
from jaxrec.data.item_readers import read_items
from jaxrec.data.readers import read_interactions, read_sequences

HEADER = "user,item,time\n"
GOOD = HEADER + "1,2,3\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"log\.csv is empty"),
        (b"\n\n", r"log\.csv is empty"),
        (HEADER.encode(), "there are no rows"),
        (
            b"who,item\n1,2\n",
            r"no column that looks like user; name it with user=\.\.\. \(--user of prepare\.py\); the columns are"
            " who, item",
        ),
        (b"user,user_id,item\n1,1,2\n", "user could be user or user_id; name it with user="),
        (b"user,item,date,time\n1,1,2,3\n", "time could be date or time; name it with time="),
        ((GOOD + "1,4\n1,5,6\n").encode(), r"line 3: 2 fields where 3 are expected \('1,4'\)"),
        ((GOOD + "\n1,4,5,6\n").encode(), "line 4: 4 fields where 3 are expected"),
        (b"user,item,note\n1,2,x\n1,3\n", "line 3: 2 fields where 3 are expected"),
        ((GOOD + "1,5,soon\n").encode(), "line 3: column time holds 'soon', which is not a time"),
        ((GOOD + "1,5,nan\n").encode(), "line 3: column time holds 'nan', which is not a time"),
        ((GOOD + "1,5,2024-01-01\n").encode(), "line 3: column time holds '2024-01-01', which is not a time"),
        (
            (HEADER + "1,5,2024-01-01\n1,5,17\n").encode(),
            "line 3: column time holds '17', which is not a time",
        ),
        (
            (HEADER + "1,5,2024-13-01\n").encode(),
            "line 2: column time holds '2024-13-01', which is not a time",
        ),
        ((GOOD + "1,4,5\n").encode() + b"1,\xe9,7\n", r"line 4: byte 3 of the line \(0xe9\) is not UTF-8"),
        (GOOD.encode() + b'1,"4,5\n1,3,5\n', "line 3"),
        ((GOOD + ",4,5\n").encode(), "line 3: column user is empty"),
        ((GOOD + "1,  ,5\n").encode(), "line 3: column item is empty"),
        ((GOOD + '1,"",5\n').encode(), "line 3: column item is empty"),
        ((GOOD + "1,4,\n").encode(), "line 3: column time is empty"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_faulty_csv(tmp_path, content, message, packed):
    path = tmp_path / ("log.csv.gz" if packed else "log.csv")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(ValueError, match=message.replace(r"log\.csv", path.name)) as caught:
        read_interactions(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n", "is empty"),
        (b"[1, 2]\n", "line 1: a JSON object is expected"),
        (b'{"user": 1, "item": 2}\n{"user": 1, "item"\n', "line 2: not JSON"),
        (b'{"user": 1, "item": 2}\n{"user": 1, "item": "\xff"}\n', "line 2: byte 22 .* is not UTF-8"),
        (b'{"user": 1, "item": 2}\n\n{"user": 1}\n', "line 3: column item is empty"),
        (b'{"user": 1, "item": 2}\n{"user": 1, "item": ""}\n', "line 2: column item is empty"),
        (
            b'{"user": 1, "item": 2, "ts": 5}\n{"user": 1, "item": 2, "ts": "x"}\n',
            "line 2: column ts holds 'x'",
        ),
        (b'{"u": 1, "item": 2}\n', "no column that looks like user"),
    ],
)
def test_faulty_json_lines(tmp_path, content, message):
    (tmp_path / "log.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_interactions(tmp_path / "log.jsonl")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"u\t1 2\nv 3 4\n", "line 2: 1 fields where 2 are expected"),
        (b"u\t1 2\nv\t\n", "line 2: column column_2 is empty"),
        (b"u\t1 2\nv\t3\nu\t3\n", "user 'u' has more than one line; join them"),
        (b"u 1 2\n", "must hold lines 'user<TAB>item item item'"),
        (b"", "is empty"),
        (b"u\t1 2\nv\t\xff\n", "line 2: byte 3 of the line"),
    ],
)
def test_faulty_sequences(tmp_path, content, message):
    (tmp_path / "log.seq.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_sequences(tmp_path / "log.seq.txt")


def test_missing_files(tmp_path):
    for path in (tmp_path / "no.csv", str(tmp_path / "*.csv"), [tmp_path / "no.csv"]):
        with pytest.raises(FileNotFoundError, match=r"there is no file .* check the path"):
            read_interactions(path)
    with pytest.raises(ValueError, match="is a directory; give the files in it"):
        read_interactions(tmp_path)


@pytest.mark.parametrize("kept", [0.5, 0.999])
def test_a_gzip_file_cut_short_says_so(tmp_path, kept):
    content = gzip.compress(
        (HEADER + "".join(f"{row},{row * 7919 % 1009},3\n" for row in range(5000))).encode()
    )
    (tmp_path / "log.csv.gz").write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ValueError, match=r"cannot be unpacked beyond line .* fetch it again"):
        read_interactions(tmp_path / "log.csv.gz")


def test_a_damaged_gzip_file_says_so(tmp_path):
    (tmp_path / "log.csv.gz").write_bytes(b"\x1f\x8b" + b"nothing that gzip wrote")
    with pytest.raises(ValueError, match="cannot be unpacked beyond line 0"):
        read_interactions(tmp_path / "log.csv.gz")


def test_faulty_parquet(tmp_path):
    path = tmp_path / "log.parquet"
    path.write_bytes(b"PAR1 but not really")
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        read_interactions(path)
    pl.DataFrame({"user": [1, None, 2], "item": ["a", "b", ""], "ts": [1, 2, 3]}).write_parquet(path)
    with pytest.raises(ValueError, match="column user is null or empty in data row 2"):
        read_interactions(path)
    with pytest.raises(ValueError, match="column item is null or empty in data row 3"):
        read_interactions(path, user="ts")
    pl.DataFrame({"user": [1, 2], "item": [1, 2], "ts": ["1", "later"]}).write_parquet(path)
    with pytest.raises(ValueError, match=r"log\.parquet: column ts holds 'later', which is not a time"):
        read_interactions(path)


def test_wrong_columns_list_what_there_is(tmp_path):
    (tmp_path / "log.csv").write_text(GOOD)
    there = "the columns are user, item, time"
    with pytest.raises(ValueError, match=f"no column 'item_id' for item; {there}"):
        read_interactions(tmp_path / "log.csv", item="item_id")
    with pytest.raises(ValueError, match=f"no column 3 .* for user; {there}"):
        read_interactions(tmp_path / "log.csv", user=3)
    with pytest.raises(ValueError, match=f"no column that looks like rating; .* {there}"):
        read_interactions(tmp_path / "log.csv", min_rating=3)
    with pytest.raises(ValueError, match="user and item are both column item"):
        read_interactions(tmp_path / "log.csv", user="item")
    with pytest.raises(ValueError, match=f"no column 'x' for title; {there}"):
        read_items(tmp_path / "log.csv", title="x")


def test_ratings_that_are_no_numbers(tmp_path):
    (tmp_path / "log.csv").write_text("user,item,rating\n1,2,5\n1,3,good\n")
    with pytest.raises(ValueError, match="line 3: column rating holds 'good', which is not a number"):
        read_interactions(tmp_path / "log.csv", min_rating=3)


def test_files_that_do_not_fit_together(tmp_path):
    (tmp_path / "a.csv").write_text(GOOD)
    (tmp_path / "b.csv").write_text("user,item\n1,2\n")
    with pytest.raises(ValueError, match=r"b\.csv has no time column, unlike .*a\.csv"):
        read_interactions([tmp_path / "a.csv", tmp_path / "b.csv"])


def test_options_out_of_range(tmp_path):
    (tmp_path / "log.csv").write_text(GOOD)
    with pytest.raises(ValueError, match="duplicates is 'drop'; choose"):
        read_interactions(tmp_path / "log.csv", duplicates="drop")
    with pytest.raises(ValueError, match="separator '--' must be one character"):
        read_interactions(tmp_path / "log.csv", separator="--")


def test_the_row_of_a_fault_counts_over_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(tables.Table.batches, "__defaults__", (2,))
    path = tmp_path / "log.parquet"
    pl.DataFrame({"user": [1, 1, 1, 1, None], "item": [1, 2, 3, 4, 5]}).write_parquet(path)
    with pytest.raises(ValueError, match="data row 5"):
        read_interactions(path)


def test_empty_cells_of_other_columns_are_fine(tmp_path):
    (tmp_path / "log.csv").write_text("user,item,note,last\n1,2,,\n1,3,x,\n\n1,4,,y\n")
    assert read_interactions(tmp_path / "log.csv").item_ids.values.to_list() == [2, 3, 4]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("user,item,note,last\n1,2,,\n1,3,x,\n\n1,4,,y\n\n", [2, 3, 4]),
        ('user,item,last\n"1","2","a, b"\n1,3,"a"\n1,4,""\n1,5,\n', [2, 3, 4, 5]),
        ("user\titem\tlast\n1\t2\t\n1\t3\tx\n", [2, 3]),
        ("user::item::last\n1::2::\n1::3::x\n", [2, 3]),
    ],
)
def test_empty_cells_and_blank_lines_need_no_look_at_single_rows(
    tmp_path, text, expected, packed, monkeypatch
):
    """Which would take many minutes on a large log."""
    path = tmp_path / ("log.csv.gz" if packed else "log.csv")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    monkeypatch.setattr(diagnosis, "find_missing", None)
    separator = "::" if "::" in text else None
    assert read_interactions(path, separator=separator).item_ids.values.to_list() == expected
    assert read_items(path, separator=separator, item="item").item_ids.values.to_list() == expected
    with_gap = text + text.splitlines()[-1].replace(str(expected[-1]), "")
    path.write_bytes(gzip.compress(with_gap.encode()) if packed else with_gap.encode())
    log = read_interactions(path, separator=separator, missing="drop")
    assert log.item_ids.values.to_list() == expected


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1,2,x,\n,,x,\n", "line 3: column user is empty"),
        ("1,2,x,\n,,,\n", "line 3: column user is empty"),
        ("\n1,2,x,\n\n,,x,\n", "line 5: column user is empty"),
        ('1,2,x,\n1,"2,x",\n', "line 3: 3 fields where 4"),
        ('1,2,x,\n1,2,"x\n\n\ny",z\n,,,\n', "line 7: column user is empty"),
        ("1,2,x,\n1,2,\x1f,\n1,2,x\n", "line 4: 3 fields where 4"),
        ("1,2,x,\n1,2,x,\n1,,x,\n", "line 4: column item is empty"),
    ],
)
def test_gaps_between_empty_cells_are_found(tmp_path, rows, message):
    (tmp_path / "log.csv").write_text("user,item,note,last\n" + rows)
    with pytest.raises(ValueError, match=message):
        read_interactions(tmp_path / "log.csv")


def test_quotes_over_several_lines_are_read_in_full(tmp_path):
    (tmp_path / "log.csv").write_text('user,item,note,last\n1,2,"x\n\ny",\n\n1,3,x,z\n')
    assert read_interactions(tmp_path / "log.csv").item_ids.values.to_list() == [2, 3]


def test_a_missing_time_or_a_ragged_row_is_an_error_even_if_ids_may_be_missing(tmp_path):
    (tmp_path / "log.csv").write_text(HEADER + ",2,3\n1,2,\n")
    with pytest.raises(ValueError, match="line 3: column time is empty; fill it in or remove the line$"):
        read_interactions(tmp_path / "log.csv", missing="drop")
    (tmp_path / "log.csv").write_text(HEADER + ",2,3\n1\n")
    with pytest.raises(ValueError, match="line 3: 1 fields where 3"):
        read_interactions(tmp_path / "log.csv", missing="drop")
    frame = pl.DataFrame({"user": [None, "u", "u"], "item": [1, 2, 3], "time": [None, 3, None]})
    with pytest.raises(ValueError, match="the frame: column time is null or empty in data row 3"):
        read_interactions(frame, missing="drop")
    with pytest.raises(ValueError, match="no rows with a user and an item"):
        read_interactions(frame.head(1), missing="drop")
    with pytest.raises(ValueError, match="missing is 'ignore'; choose"):
        read_interactions(frame, missing="ignore")


def test_a_file_without_a_header_line_is_suspected(tmp_path):
    (tmp_path / "u.data").write_text("196\t242\t3\n186\t302\t3\n")
    words = (
        r"if its first line is data, pass has_header=False .*--no-header --user 0.*the columns are 196, 242"
    )
    with pytest.raises(ValueError, match=words):
        read_interactions(tmp_path / "u.data")
    with pytest.raises(ValueError, match="no column that looks like user; name it with") as caught:
        read_interactions(tmp_path / "u.data", has_header=False)
    assert "first line" not in str(caught.value)


def test_frames_where_they_are_not_understood():
    frame = pl.DataFrame({"user": [1], "item": [2]})
    for read, given in (
        (read_items, frame),
        (read_sequences, frame.lazy()),
        (read_interactions, [frame, frame]),
    ):
        with pytest.raises(ValueError, match="Frame stands where files are expected; .* polars.concat"):
            read(given)
    with pytest.raises(ValueError, match="the frame has no column that looks like item"):
        read_interactions(frame.drop("item"))
