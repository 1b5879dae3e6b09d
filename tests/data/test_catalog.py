"""Named data sets, from small made-up files in the publishers' layouts on a server on loopback."""

import dataclasses
import gzip
import hashlib
import io
import json
import re
import urllib.error
import zipfile

import pytest
from loopback import loopback_server

from jaxrec.data import catalog, transfer
from jaxrec.data.catalog import available, cache_folder, load, prepare
from jaxrec.data.interactions import Interactions
from jaxrec.data.steam import literal_lines


@pytest.fixture
def server():
    with loopback_server() as made:
        yield made


def served(server, name, **files):
    """The data set ``name`` with its addresses on loopback, serving ``files``: url, md5_url, items_url."""
    dataset = available()[name]
    addresses = {}
    for field in ("url", "md5_url", "items_url"):
        if getattr(dataset, field) is not None:
            place = "/" + getattr(dataset, field).rsplit("/", 1)[-1]
            addresses[field] = server.address + place
            if field in files:
                server.files[place] = files[field]
    return dataclasses.replace(dataset, **addresses)


def paths(server):
    """What was asked for."""
    return [request.path for request in server.requests]


def made(dataset, cache, **arguments):
    return prepare(dataset, cache=cache, allow_http_loopback=True, **arguments)


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def packed(lines):
    return gzip.compress("".join(f"{line}\n" for line in lines).encode())


def histories(log):
    """{user: [items]} in external ids."""
    items = [log.item_ids.external(log.history(user) - 1).to_list() for user in log.users.values]
    return dict(zip(log.users.values.to_list(), items, strict=True))


MOVIELENS = {
    "movielens-100k": {
        "ml-100k/u.data": "7\t20\t3\t200\n7\t10\t5\t100\n8\t10\t1\t50\n",
        "ml-100k/u.genre": "Action|0\nDrama|1\n\n",
        "ml-100k/u.item": "10|Ten (1990)|01-Jan-1990||x|1|1\n20|Vingt é (1991)||||0|1\n".encode("latin-1"),
    },
    "movielens-1m": {
        "ml-1m/ratings.dat": "7::20::3::200\n7::10::5::100\n8::10::1::50\n",
        "ml-1m/movies.dat": "10::Ten (1990)::Action|Drama\n20::Vingt é (1991)::Drama\n".encode("latin-1"),
    },
    "movielens-20m": {
        "ml-20m/ratings.csv": "userId,movieId,rating,timestamp\n7,20,3.5,200\n7,10,5.0,100\n8,10,1,50\n",
        "ml-20m/movies.csv": (
            'movieId,title,genres\n10,"Ten, The (1990)",Action|Drama\n20,Vingt é (1991),Drama\n'
        ),
    },
}


@pytest.mark.parametrize("name", MOVIELENS)
def test_movielens_is_fetched_checked_and_read(server, tmp_path, name):
    archive = zipped(MOVIELENS[name])
    dataset = served(server, name, url=archive, md5_url=hashlib.md5(archive).hexdigest().encode())
    seen = []
    log = made(dataset, tmp_path, progress=lambda *state: seen.append(state))
    assert histories(log) == {7: [10, 20], 8: [10]}
    assert log.name == name
    assert log.times.tolist() == [100, 200, 50]
    assert log.metadata.titles.to_list()[1] == "Vingt é (1991)"
    assert log.metadata.categories.to_list() == [["Action", "Drama"], ["Drama"]]
    assert seen[-1] == (len(archive), len(archive))
    assert sorted(path.name for path in (tmp_path / name).iterdir() if path.is_dir()) == ["prepared"]
    count = len(server.requests)
    again = made(dataset, tmp_path)
    assert len(server.requests) == count
    assert again.fingerprint() == log.fingerprint()


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    dataset = served(server, "movielens-1m", url=zipped(MOVIELENS["movielens-1m"]), md5_url=b"0" * 32)
    with pytest.raises(ValueError, match="its publisher says 0000"):
        made(dataset, tmp_path)
    assert not (tmp_path / "movielens-1m" / "prepared").exists()
    assert not (tmp_path / "movielens-1m" / "ml-1m.zip").exists()


def test_amazon_2014_with_and_without_items(server, tmp_path):
    reviews = [
        {"reviewerID": "A1", "asin": "B000000001", "overall": 5.0, "unixReviewTime": 200, "reviewText": "x"},
        {"reviewerID": "A1", "asin": "B000000002", "overall": 1.0, "unixReviewTime": 100, "reviewText": "y"},
    ]
    items = [{"asin": "B000000002", "title": "Soap's", "categories": [["Beauty", "Bath"]]}, {"asin": "B9"}]
    dataset = served(
        server,
        "amazon-2014-beauty",
        url=packed(json.dumps(review) for review in reviews),
        items_url=packed(repr(item) for item in items),
    )
    plain = made(dataset, tmp_path)
    assert histories(plain) == {"A1": ["B000000002", "B000000001"]}
    assert plain.metadata is None
    assert paths(server) == ["/reviews_Beauty_5.json.gz"]
    rich = made(dataset, tmp_path, items=True)
    assert rich.metadata.titles.to_list() == ["Soap's", None]
    assert rich.metadata.categories.to_list() == [["Beauty", "Bath"], []]
    assert paths(server) == ["/reviews_Beauty_5.json.gz", "/meta_Beauty.json.gz"]


def test_amazon_2018_and_2023(server, tmp_path):
    review = {"overall": 5.0, "reviewerID": "A1", "asin": "B000000001", "unixReviewTime": 200}
    dataset = served(server, "amazon-2018-fashion", url=packed([json.dumps(review)]))
    assert dataset.url.endswith("/AMAZON_FASHION_5.json.gz")
    assert histories(made(dataset, tmp_path)) == {"A1": ["B000000001"]}
    rows = ["user_id,parent_asin,rating,timestamp", "U1,B000000002,4.0,1588615855071", "U1,0140000003,4.0,15"]
    items = [{"parent_asin": "B000000002", "title": "Game", "categories": ["Video Games", "PC"]}]
    dataset = served(
        server,
        "amazon-2023-video-games",
        url=packed(rows),
        items_url=packed(json.dumps(item) for item in items),
    )
    log = made(dataset, tmp_path, items=True)
    assert histories(log) == {"U1": ["0140000003", "B000000002"]}
    assert log.metadata.titles.to_list() == [None, "Game"]


def test_steam(server, tmp_path):
    reviews = [
        "{u'username': u'ann', u'product_id': u'10', u'date': u'2017-12-17', u'text': u\"it's\\n\\u2665\"}",
        "{u'username': u'ann', u'product_id': u'20', u'date': u'2016-01-02', u'text': u'a'}",
        "{u'product_id': u'20', u'date': u'2016-01-02'}",
        "{u'username': u'b\\xe9', u'product_id': u'20', u'date': u'2016-01-03'}",
    ]
    games = ["{u'id': u'20', u'app_name': u'Chess', u'genres': [u'Strategy']}", "{u'title': u'no id'}"]
    dataset = served(server, "steam", url=packed(reviews), items_url=packed(games))
    log = made(dataset, tmp_path)
    assert [list(map(str, items)) for items in histories(log).values()] == [["20", "10"], ["20"]]
    assert log.users.values.to_list() == ["ann", "bé"]
    assert log.times[1] - log.times[0] == 715 * 86_400
    assert log.metadata.titles.to_list() == ["Chess", None]
    assert log.metadata.categories.to_list() == [["Strategy"], []]


def test_cutting_fields_out_of_literals_is_evaluating_them(tmp_path):
    records = [
        {"username": "a'b", "date": 'say "x"', "n": 1.5, "flag": False, "product_id": "10"},
        {"username": "both ' and \"", "text": "u'date': u'2000-01-01', ", "date": "2017-01-02"},
        {"username": "tab\there \\' é \u2665 \n", "nothing": None, "product_id": 10, "n": -1e-05},
        {"username": "nested", "tags": ["u'date': u'1'"], "more": {"date": "no"}, "date": "2017-01-03"},
        {"date": "}", "text": "}"},
        {},
    ]
    lines = [repr(record) for record in records]
    lines += [ascii(records[2]), "{u'username': u'b\\xe9', u'date': u\"it's\"}"]
    path = tmp_path / "records"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    whole = list(literal_lines(path))
    assert whole[:6] == records
    wanted = ("username", "product_id", "date")
    for record, cut in zip(whole, literal_lines(path, wanted), strict=True):
        assert {key: cut.get(key) for key in wanted} == {key: record.get(key) for key in wanted}


@pytest.mark.parametrize(
    ("line", "words"),
    [("{u'username': oops}", "line 2: not a Python literal"), ("[1]", "line 2: not a dict of fields")],
)
def test_a_damaged_steam_line_is_named(server, tmp_path, line, words):
    good = "{u'username': u'ann', u'product_id': u'10', u'date': u'2017-12-17'}"
    dataset = served(server, "steam", url=packed([good, line]))
    with pytest.raises(ValueError, match=words):
        made(dataset, tmp_path)


def test_gowalla_and_movietweetings(server, tmp_path):
    rows = ["0\t2010-10-19T23:55:27Z\t30.2\t-97.7\t22847", "0\t2010-10-18T22:17:43Z\t30.2\t-97.7\t420315"]
    log = made(served(server, "gowalla", url=packed([*rows, *rows[:1]])), tmp_path)
    assert histories(log) == {0: [420315, 22847, 22847]}
    dataset = served(
        server,
        "movietweetings-100k",
        url=b"1::0114508::8::1381006850\n1::0075314::9::1381006849\n",
        items_url="0075314::Taxi Driver é (1976)::Crime|Drama\n0114508::Species (1995)::\n".encode(),
    )
    log = made(dataset, tmp_path)
    assert histories(log) == {1: ["0075314", "0114508"]}
    assert log.metadata.titles.to_list() == ["Taxi Driver é (1976)", "Species (1995)"]
    assert log.metadata.categories.to_list() == [["Crime", "Drama"], []]


def test_a_prepared_log_needs_no_network(tmp_path, monkeypatch):
    Interactions.from_sequences([[1, 2, 3]], name="kept").save(tmp_path / "movielens-1m" / "prepared")
    monkeypatch.setattr(transfer, "_open", None)
    monkeypatch.setenv("JAXREC_CACHE", str(tmp_path))
    assert load("movielens-1m").name == "kept"
    assert load("movielens-1m", cache=tmp_path).num_items == 3


def test_a_damaged_prepared_log_is_named(tmp_path):
    folder = Interactions.from_sequences([[1, 2, 3]]).save(tmp_path / "movielens-1m" / "prepared")
    (folder / "items.npy").write_bytes((folder / "items.npy").read_bytes()[:-4])
    with pytest.raises(ValueError, match=f"damaged .* remove {re.escape(str(folder))}"):
        load("movielens-1m", cache=tmp_path)


def test_without_a_network_one_sentence_says_what_to_do(tmp_path, monkeypatch):
    def refuse(url, *arguments):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(transfer, "_open", refuse)
    with pytest.raises(ConnectionError, match=r"Name or service not known.* by hand goes to .*ml-1m\.zip"):
        load("movielens-1m", cache=tmp_path)


def test_a_file_that_moved_names_the_source(server, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"\(404\).*documented at https://grouplens.org"):
        made(served(server, "movielens-1m"), tmp_path)


def test_a_file_fetched_by_hand_is_used(server, tmp_path):
    dataset = served(server, "movielens-1m")
    (tmp_path / "movielens-1m").mkdir()
    (tmp_path / "movielens-1m" / "ml-1m.zip").write_bytes(zipped(MOVIELENS["movielens-1m"]))
    assert made(dataset, tmp_path).num_users == 2
    assert server.requests == []


def test_an_unknown_name_is_corrected():
    with pytest.raises(ValueError, match="did you mean movielens-1m"):
        load("movielens1m")
    with pytest.raises(ValueError, match=r"there is no data set 'xyzzy'; jaxrec.data.available"):
        load("xyzzy")


def test_every_entry_is_complete():
    table = available()
    assert {"movielens-100k", "movielens-1m", "movielens-20m", "movielens-32m", "steam"} <= set(table)
    assert sum(name.startswith("amazon-2014-") for name in table) == 24
    assert sum(name.startswith("amazon-2023-") for name in table) == 28
    for name, dataset in table.items():
        assert name == dataset.name
        assert re.fullmatch(r"[a-z0-9-]+", name)
        assert dataset.description
        assert dataset.terms
        for address in (dataset.url, dataset.md5_url, dataset.items_url, dataset.source):
            if address is not None:
                transfer.check_address(address, False)
        assert (dataset.items_url is None) == (dataset.read_items is None)
    assert all(
        (dataset.md5_url is not None) == name.startswith("movielens-") for name, dataset in table.items()
    )


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAXREC_CACHE", raising=False)
    assert cache_folder() == tmp_path / "jaxrec"
    monkeypatch.setenv("JAXREC_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    assert cache_folder(tmp_path / "given") == tmp_path / "given"
    monkeypatch.delenv("JAXREC_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder().parts[-2:] == (".cache", "jaxrec")
    assert catalog.available() is not catalog.available()
