"""Readers of titles, categories and ids of items."""

import polars as pl
import pytest

from jaxrec.data.interactions import Interactions
from jaxrec.data.item_readers import read_item_ids, read_items


def test_category_lists_of_json_lines(tmp_path):
    rows = [
        '{"item": 1, "title": "A", "categories": ["x", "y"]}',
        '{"item": 2, "categories": [["u", "v"], ["x"]]}',
        '{"item": 3, "categories": "p|q"}',
        '{"item": 4, "categories": [null, "x"]}',
        '{"item": 5, "categories": ["a\\\\b", "\\"c\\"", "p|q"]}',
        '{"item": 6, "categories": "[PC] Games|x"}',
    ]
    (tmp_path / "items.jsonl").write_text("\n".join(rows))
    found = read_items(tmp_path / "items.jsonl")
    assert found.categories.to_list() == [
        *(["x", "y"], ["u", "v", "x"], ["p", "q"], ["x"]),
        *(["a\\b", '"c"', "p|q"], ["[PC] Games", "x"]),
    ]
    assert found.titles.to_list() == ["A", *[None] * 5]


def test_quotes_of_titles_are_text_in_tab_separated_items(tmp_path):
    titles = ['"Great Performances" Cats (1998)', '"Great"', '5" nails']
    rows = [f"{row}\t{title}\tx" for row, title in enumerate(titles)]
    (tmp_path / "items.tsv").write_text("\n".join(["item\ttitle\tcategories", *rows]))
    assert read_items(tmp_path / "items.tsv").titles.to_list() == titles


def test_read_items_with_and_without_columns(tmp_path):
    path = tmp_path / "items.tsv"
    path.write_text(
        'item\ttitle\tcategories\tasin\n7\t7" record\tmusic|vinyl\tB1\n8\t\t\tB2\n7\tagain\t\tB3\n'
    )
    items = read_items(path, item="item")
    assert items.item_ids.values.to_list() == [7, 8]
    assert items.titles.to_list() == ['7" record', None]
    assert items.categories.to_list() == [["music", "vinyl"], []]
    with pytest.raises(ValueError, match="item could be item or asin"):
        read_items(path)
    (tmp_path / "plain.csv").write_text('movieId,genres\n007,"a, b;c"\n')
    items = read_items(tmp_path / "plain.csv", category_separator=";")
    assert items.item_ids.values.to_list() == ["007"]
    assert items.titles.to_list() == [None]
    assert items.categories.to_list() == [["a, b", "c"]]


@pytest.mark.parametrize(
    ("header", "title", "categories"),
    [
        ("item_id,description,title,genre,category", "b", ["d"]),
        ("item_id,description,name,genres,genre", "b", ["c"]),
        ("item_id,movie_title,name,Categories:token,category", "b", ["c"]),
        ("item_id,Title,title,description,x", "a", []),
    ],
)
def test_of_several_titles_and_categories_the_likelier_is_read(tmp_path, header, title, categories):
    (tmp_path / "items.csv").write_text(f"{header}\n7,a,b,c,d\n")
    items = read_items(tmp_path / "items.csv")
    assert (items.titles.to_list(), items.categories.to_list()) == ([title], [categories])
    assert read_items(tmp_path / "items.csv", title=1).titles.to_list() == ["a"]


def test_ids_of_a_table_of_items_are_read_alone(tmp_path):
    (tmp_path / "a.csv").write_text("product,categories,name,title\n9,x,y,\n8,,,\n9,x,y,z\n\n")
    pl.DataFrame({"item": ["b", "8"], "categories": [1, 2]}).write_parquet(tmp_path / "b.parquet")
    assert read_item_ids(tmp_path / "a.csv").to_list() == [9, 8]
    assert read_item_ids([tmp_path / "a.csv", tmp_path / "b.parquet"]).to_list() == ["9", "8", "b"]
    (tmp_path / "c.csv").write_text("id,title\n1,x\n")
    with pytest.raises(ValueError, match="has no column that looks like item; name it with --what"):
        read_item_ids(tmp_path / "c.csv", advice="name it with --what")


def test_metadata_is_aligned_by_external_id(tmp_path):
    (tmp_path / "items.tsv").write_text("item\ttitle\tcategories\n2\tTwo\tb|a\n9\tNine\tz\n1\tOne\ta\n")
    items = read_items(tmp_path / "items.tsv")
    log = Interactions.from_sequences([[1, 2, 3]]).with_metadata(items)
    assert log.metadata.titles.to_list() == ["One", "Two", None]
    assert log.metadata.category_names.to_list() == ["a", "b"]
    offsets, categories = log.metadata.category_table()
    assert offsets.tolist() == [0, 0, 1, 3, 3]
    assert categories.tolist() == [0, 1, 0]
    text_log = Interactions.from_sequences([["1", "x"]]).with_metadata(items)
    assert text_log.metadata.titles.to_list() == ["One", None]
    assert log.with_metadata(None).metadata is None
