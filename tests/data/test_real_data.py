"""Figures of real logs, where they lie beside the repository in ../shared/data."""

from pathlib import Path

import polars as pl
import pytest

from jaxrec.data.interactions import Interactions
from jaxrec.data.item_readers import read_items
from jaxrec.data.readers import read_interactions, read_sequences
from jaxrec.data.splits import leave_one_out, temporal

DATA = Path(__file__).parents[3] / "shared" / "data"


def need(name: str) -> Path:
    if not (DATA / name).is_file():
        pytest.skip(f"{name} does not lie in ../shared/data")
    return DATA / name


def sizes(log: Interactions) -> tuple[int, int, int]:
    return log.num_users, log.num_items, log.num_interactions


@pytest.mark.parametrize(
    ("name", "expected", "five_core"),
    [
        ("amazon-beauty", (22363, 12101, 198502), (22363, 12101, 198502)),
        ("ml-1m-sasrec", (6040, 3416, 999611), (6040, 3416, 999611)),
        ("ml-1m", (6040, 3706, 1000209), (6040, 3416, 999611)),
    ],
)
def test_sequences_and_their_five_core(name, expected, five_core):
    log = read_sequences(need(f"{name}.seq.txt.gz"))
    assert sizes(log) == expected
    kept = log.filter(5, 5)
    assert sizes(kept) == five_core
    if expected == five_core:
        assert kept.fingerprint() == log.fingerprint()
    assert len(leave_one_out(kept).test) == kept.num_users


def test_a_position_column_gives_the_same_log_in_any_order_of_rows(tmp_path):
    path = need("ml-1m.csv.gz")
    sequences = read_sequences(need("ml-1m.seq.txt.gz"))
    assert read_interactions(path).fingerprint() == sequences.fingerprint()
    shuffled = pl.read_csv(path).sample(fraction=1.0, shuffle=True, seed=0)
    shuffled.write_parquet(tmp_path / "shuffled.parquet")
    log = read_interactions(tmp_path / "shuffled.parquet")
    for user in (1, 77, 6040):
        ours, theirs = log.history(user), sequences.history(user)
        assert log.item_ids.external(ours - 1).equals(sequences.item_ids.external(theirs - 1))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ml-100k", (943, 1682, 100000)),
        ("movietweetings-100k", (16554, 10506, 100000)),
        ("online-retail", (4335, 3659, 396370)),
        ("small/online-retail/interactions", (4074, 3145, 264514)),
        ("small/movietweetings/interactions", (4333, 2414, 68055)),
    ],
)
def test_timed_logs(name, expected):
    log = read_interactions(need(f"{name}.csv.gz"), duplicates="keep")
    assert sizes(log) == expected
    assert temporal(log, targets="last").summary()["test_targets"] > 0
    if name.startswith("small"):
        assert log.filter(5, 5).fingerprint() == log.fingerprint()


@pytest.mark.parametrize("name", ["ml-1m", "movietweetings-100k"])
def test_titles_and_categories_reach_every_item(name):
    items = read_items(need(f"{name}.items.tsv.gz"))
    log = read_interactions(need(f"{name}.csv.gz")).with_metadata(items)
    assert log.metadata.titles.null_count() == 0
    first = log.item_ids.external([0])[0]
    assert items.titles[int(items.item_ids.lookup([first])[0])] == log.metadata.titles[0]


def test_beauty_categories():
    items = read_items(need("amazon-beauty.items.tsv.gz"), item="item")
    log = read_sequences(need("amazon-beauty.seq.txt.gz")).with_metadata(items)
    offsets, categories = log.metadata.category_table()
    assert len(offsets) == 12103
    assert categories.max() == len(log.metadata.category_names) - 1
