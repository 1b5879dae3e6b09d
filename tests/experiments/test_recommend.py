"""``recommend.py``: formats, portions, candidates, titles, ids of one's own."""

import gzip
import json
import shutil

import numpy as np
import polars as pl
import pytest
from command_line import assert_one_sentence, run_apart, run_here

import jaxrec
from jaxrec import data

COLUMNS = ["user_id", "item_id", "score", "rank"]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A run of popularity on simulated data with ids of one's own, and histories of 30 users in a file."""
    folder = tmp_path_factory.mktemp("fitted")
    log = data.simulate(num_users=60, num_items=40)
    frame = pl.DataFrame(
        {
            "customer": np.repeat([f"user {user}" for user in range(60)], log.lengths),
            "product": [f"item {item}" for item in log.items],
            "time": log.times,
        }
    )
    frame.write_parquet(folder / "events.parquet")
    titles = pl.DataFrame({"item": [f"item {i}" for i in range(1, 41)], "title": log.metadata.titles})
    titles.write_csv(folder / "titles.tsv", separator="\t")
    log = data.read_interactions(folder / "events.parquet", user="customer", item="product")
    log = log.with_metadata(data.read_items(folder / "titles.tsv"))
    jaxrec.fit(jaxrec.preset("popularity"), data.leave_one_out(log), folder / "run")
    frame.rename({"customer": "user_id", "product": "item_id"}).head(600).write_csv(folder / "histories.csv")
    return folder


@pytest.fixture
def recommend(fitted, tmp_path, capsys):
    """``recommend("recs.csv", ...)``: the path of what was written."""

    def run(name, *arguments):
        out = tmp_path / name
        outcome = run_here(
            "recommend.py",
            *("--workdir", fitted / "run", "--histories", fitted / "histories.csv", "--out", out),
            *arguments,
            capsys=capsys,
        )
        assert outcome.code == 0, outcome.err
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
        return out

    return run


def read(path) -> pl.DataFrame:
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return pl.DataFrame([json.loads(line) for line in text.splitlines()])
    if path.suffix == ".parquet":
        return pl.read_parquet(path)
    return pl.read_csv(path, separator="\t" if ".tsv" in path.name else ",")


@pytest.mark.parametrize(
    "name", ["r.csv", "r.tsv", "r.jsonl", "r.parquet", "r.csv.gz", "r.jsonl.gz", "new/r.csv"]
)
def test_formats_hold_what_the_run_recommends(fitted, recommend, name):
    written = read(recommend(name, "--portion", 7, "--k", 5))
    assert written.columns == COLUMNS
    events = pl.read_csv(fitted / "histories.csv")
    expected = jaxrec.load(fitted / "run").recommend(events, k=5)
    assert (
        written.select("user_id", "item_id", "rank").rows()
        == expected.select("user_id", "item_id", "rank").rows()
    )
    np.testing.assert_allclose(written["score"].to_numpy(), expected["score"].to_numpy(), rtol=1e-6)
    seen = set(events.select("user_id", "item_id").iter_rows())
    assert not seen & set(written.select("user_id", "item_id").iter_rows())
    assert written["rank"].min() == 1


def test_seen_items_on_demand(recommend):
    written = read(recommend("r.csv", "--no-exclude-seen", "--k", 3))
    assert written.group_by("user_id").agg(pl.col("item_id").sort_by("rank"))["item_id"].n_unique() == 1


@pytest.mark.parametrize("name", ["only.txt", "only.csv"])
def test_candidates_from_a_file(recommend, tmp_path, name):
    only = ["item 3", "item 9", "item 27"]
    (tmp_path / name).write_text("\n".join(only if name == "only.txt" else ["item", *only]) + "\n")
    written = read(recommend("r.csv", "--candidates", tmp_path / name, "--no-exclude-seen"))
    assert set(written["item_id"]) == set(only)
    assert written["rank"].max() == 3


def test_candidates_from_a_table_with_other_columns(fitted, recommend, tmp_path, capsys):
    """Only ids are wanted of it; columns are named as in the training data, or by a flag."""
    (tmp_path / "two.csv").write_text("product,item,title,name,category,genre\nitem 3,item 9,a,b,c,d\n")
    flags = ("--candidates", tmp_path / "two.csv", "--no-exclude-seen")
    written = read(recommend("r.csv", *flags, "--candidates-id", "item"))
    assert set(written["item_id"]) == {"item 9"}
    files = ("--histories", fitted / "histories.csv", "--out", tmp_path / "x.csv")
    failed = run_here("recommend.py", "--workdir", fitted / "run", *files, *flags, capsys=capsys)
    assert_one_sentence(failed, "item could be product or item; name it with --candidates-id")
    run = shutil.copytree(fitted / "run", tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["data"] = {"item": "product"}
    (run / "config.json").write_text(json.dumps(config))
    written = read(recommend("r.csv", "--workdir", run, *flags))
    assert set(written["item_id"]) == {"item 3"}


def test_titles_on_demand(fitted, recommend):
    written = read(recommend("r.csv", "--with-titles"))
    titles = dict(pl.read_csv(fitted / "titles.tsv", separator="\t").iter_rows())
    assert [titles[item] for item in written["item_id"]] == written["title"].to_list()


def test_spread_on_demand(recommend):
    written = read(recommend("r.csv", "--with-spread", "--num-samples", 3))
    assert written.columns == [*COLUMNS, "spread"]
    assert set(written["spread"]) == {0.0}  # popularity draws nothing


def test_columns_can_be_named_and_a_prepared_folder_read(fitted, recommend, tmp_path, capsys):
    events = ("--data", fitted / "events.parquet", "--user", "customer", "--item", "product")
    prepared = run_here("prepare.py", *events, "--out", tmp_path / "log", capsys=capsys)
    assert prepared.code == 0, prepared.err
    by_name = read(
        recommend(
            "a.csv", "--histories", fitted / "events.parquet", "--user", "customer", "--item", "product"
        )
    )
    from_folder = read(recommend("b.csv", "--histories", tmp_path / "log"))
    assert by_name.rows() == from_folder.rows()
    assert by_name["user_id"].n_unique() == 60


def test_columns_are_those_of_the_training_data_where_the_file_has_them(fitted, recommend, tmp_path):
    run = shutil.copytree(fitted / "run", tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    assert config["data"] is None  # fitted on data given from Python
    config["data"] = {"user": "customer", "item": "product", "time": "when"}
    (run / "config.json").write_text(json.dumps(config))
    same = read(recommend("a.csv", "--workdir", run, "--histories", fitted / "events.parquet"))
    assert same["user_id"].n_unique() == 60
    guessed = read(recommend("b.csv", "--workdir", run))  # user_id, item_id, time
    assert guessed.rows() == read(recommend("c.csv")).rows()


def test_in_a_process_of_its_own(fitted, tmp_path):
    outcome = run_apart(
        "recommend.py",
        *("--workdir", fitted / "run", "--histories", fitted / "histories.csv", "--out", "recs.csv"),
        cwd=tmp_path,
    )
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    assert outcome.out.startswith("recs.csv: ")
    assert read(tmp_path / "recs.csv")["rank"].max() == 10
