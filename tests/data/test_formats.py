"""MovieLens and Amazon layouts, written here in miniature."""

import gzip
import json

import pytest

from jaxrec.data.formats import read_amazon, read_amazon_items, read_movielens
from jaxrec.data.identifiers import IdMap


def external(log) -> dict:
    names = log.item_ids.values.to_list()
    return {user: [names[item - 1] for item in log.history(user)] for user in log.users.values.to_list()}


def test_movielens_dat(tmp_path):
    (tmp_path / "ratings.dat").write_text("1::10::5::9\n1::20::3::8\n2::10::4::7\n")
    (tmp_path / "movies.dat").write_bytes(
        "10::Misérables, Les (1995)::Drama|Musical\n20::M::Crime\n".encode("latin-1")
    )
    log = read_movielens(tmp_path, name="ml")
    assert external(log) == {1: [20, 10], 2: [10]}
    assert log.times.tolist() == [8, 9, 7]
    assert log.metadata.titles.to_list() == ["M", "Misérables, Les (1995)"]
    assert log.metadata.categories.to_list() == [["Crime"], ["Drama", "Musical"]]
    assert external(read_movielens(tmp_path / "ratings.dat", min_rating=4)) == {1: [10], 2: [10]}
    assert read_movielens(tmp_path).name == tmp_path.name


def test_movielens_csv(tmp_path):
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,10,4.5,9\n1,20,3.0,8\n")
    (tmp_path / "movies.csv").write_text(
        'movieId,title,genres\n20,"Girl, Interrupted (1999)",Drama\n10,Zoé,(no genres listed)\n',
        encoding="utf-8",
    )
    log = read_movielens(tmp_path)
    assert external(log) == {1: [20, 10]}
    assert log.metadata.titles.to_list() == ["Girl, Interrupted (1999)", "Zoé"]
    assert log.metadata.categories.to_list() == [["Drama"], []]


def test_movielens_100k(tmp_path):
    (tmp_path / "u.data").write_text("1\t10\t5\t9\n1\t20\t3\t8\n")
    (tmp_path / "u.genre").write_text("unknown|0\nAction|1\nDrama|2\n\n")
    (tmp_path / "u.item").write_text(
        "10|Ten (1995)|01-Jan-1995||http://x|0|1|1\n20|Twenty|||http://y|0|0|0\n\n"
    )
    log = read_movielens(tmp_path)
    assert external(log) == {1: [20, 10]}
    assert log.metadata.categories.to_list() == [[], ["Action", "Drama"]]


def test_movielens_faults(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds none of ratings\.dat"):
        read_movielens(tmp_path)
    (tmp_path / "ratings.dat").write_text("1::10::5::9\n1::20::3\n")
    with pytest.raises(ValueError, match=r"ratings\.dat, line 2: 3 fields where 4 are expected"):
        read_movielens(tmp_path)
    (tmp_path / "ratings.dat").write_text("1::10::5::9\n")
    (tmp_path / "movies.dat").write_text("10::Ten\n")
    with pytest.raises(ValueError, match=r"movies\.dat, line 1: 2 fields where 3 are expected"):
        read_movielens(tmp_path)
    (tmp_path / "movies.dat").write_text("ten::Ten::Drama\n")
    with pytest.raises(ValueError, match="movie id that is not an integer"):
        read_movielens(tmp_path)


def json_lines(**keys: str) -> str:
    """Two reviews with the given names of the fields user, item, rating and time."""
    reviews = [("A1", "B000000002", 5.0, 9), ("A1", "0000000001", 2.0, 8)]
    named = ["user", "item", "rating", "time"]
    return "".join(
        json.dumps(
            {keys[field]: value for field, value in zip(named, review, strict=True)} | {"summary": "x"}
        )
        + "\n"
        for review in reviews
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", json_lines(user="reviewerID", item="asin", rating="overall", time="unixReviewTime")),
        ("b.jsonl", json_lines(user="user_id", item="parent_asin", rating="rating", time="timestamp")),
        ("2014.csv", "A1,B000000002,5.0,9\nA1,0000000001,2.0,8\n"),
        ("2018.csv", "B000000002,A1,5.0,9\n0000000001,A1,2.0,8\n"),
        ("2023.csv", "user_id,parent_asin,rating,timestamp\nA1,B000000002,5.0,9\nA1,0000000001,2.0,8\n"),
    ],
)
def test_amazon_reviews_of_every_year(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    for path in (tmp_path / name, packed):
        log = read_amazon(path)
        assert external(log) == {"A1": ["0000000001", "B000000002"]}
        assert log.times.tolist() == [8, 9]
        assert external(read_amazon(path, min_rating=4)) == {"A1": ["B000000002"]}


def test_unknown_amazon_layout(tmp_path):
    (tmp_path / "log.csv").write_text("user,item\n1,2\n")
    with pytest.raises(
        ValueError,
        match=r"no known layout of Amazon reviews \(it begins \['user', 'item'\]\); .*--format events --user",
    ):
        read_amazon(tmp_path / "log.csv")


def test_amazon_items_of_every_year(tmp_path):
    path = tmp_path / "meta.json"
    path.write_text(
        "{'asin': 'B1', 'title': \"Joe's\", 'categories': [['Beauty', 'Hair'], ['Beauty', 'Gifts']]}\n"
        '{"asin": "B2", "category": ["Games", "PC"], "title": "Two"}\n'
        "\n"
        '{"parent_asin": "B3", "title": null, "categories": []}\n'
    )
    items = read_amazon_items(path)
    assert items.item_ids.values.to_list() == ["B1", "B2", "B3"]
    assert items.titles.to_list() == ["Joe's", "Two", None]
    assert items.categories.to_list() == [["Beauty", "Hair", "Gifts"], ["Games", "PC"], []]
    some = read_amazon_items(path, item_ids=IdMap(["B9", "B2"]))
    assert some.titles.to_list() == [None, "Two"]
    path.write_text('{"asin": "B2"}\n{"title": "no code"}\n')
    with pytest.raises(ValueError, match="line 2: no product record with an asin"):
        read_amazon_items(path)
