"""What a run answers besides lists: similar items, vectors, scores of pairs."""

import dataclasses

import jax
import numpy as np
import polars as pl
import pytest

import jaxrec
from jaxrec.models.stosa import CONSTANT_COLUMNS, StosaRecommender

ITEMS = ["i3", "i5", "i8"]


@pytest.fixture(scope="module")
def stosa(run):
    """STOSA of the same catalogue, its table as drawn."""
    model = StosaRecommender(num_items=run.recommender.num_items, max_length=8, width=16, num_layers=1)
    return dataclasses.replace(run, recommender=model, params=model.init(jax.random.key(1)))


@pytest.fixture(params=["encoder", "stosa"])
def answering(request, run, stosa):
    return run if request.param == "encoder" else stosa


def test_vectors_of_all_items(run):
    ids, vectors = run.item_vectors()
    assert ids.to_list() == run.catalogue.item_ids.values.to_list()
    assert (vectors.shape, vectors.dtype) == ((run.recommender.num_items, 16), np.float32)
    table = np.asarray(run.recommender.items(run.params))
    np.testing.assert_array_equal(vectors, table[1 : len(ids) + 1])


def test_vectors_of_stosa_are_its_points(stosa):
    _, vectors = stosa.item_vectors()
    table = np.asarray(stosa.recommender.items(stosa.params))
    np.testing.assert_allclose(vectors, table[1 : len(vectors) + 1, CONSTANT_COLUMNS:], rtol=1e-6)


def test_similar_items_are_the_nearest_by_cosine(answering):
    frame = answering.similar_items(ITEMS, k=4)
    assert frame.columns == ["item_id", "similar_item_id", "score"]
    ids, vectors = answering.item_vectors()
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    trained = answering.item_counts[1:] > 0
    for item in ITEMS:
        row = ids.to_list().index(item)
        cosines = np.where(trained, units @ units[row], -np.inf)
        cosines[row] = -np.inf
        order = np.argsort(-cosines, kind="stable")[:4]
        own = frame.filter(pl.col("item_id") == item)
        assert own["similar_item_id"].to_list() == ids.gather(order).to_list()
        np.testing.assert_allclose(own["score"], cosines[order], rtol=1e-5)


def test_all_trained_items_are_found_and_no_other(run):
    trained = int((run.item_counts[1:] > 0).sum())
    frame = run.similar_items(["i3"] * 3, k=1000)
    assert len(frame) == 3 * (trained - 1)
    assert not {"i3", "only-in-test"} & set(frame["similar_item_id"])


def test_items_that_were_never_trained_are_not_asked_about(run):
    with pytest.warns(
        UserWarning, match="1 of the items never occur in the training part, such as 'only-in-test'"
    ):
        frame = run.similar_items(["only-in-test", "i3"], k=2)
    assert frame["item_id"].to_list() == ["i3", "i3"]
    assert not len(run.similar_items(["only-in-test", "nothing"], on_unknown="ignore"))
    with pytest.raises(ValueError, match="never occur in the training part"):
        run.similar_items(["only-in-test"], on_unknown="raise")


@pytest.mark.parametrize(
    ("items", "named", "words"),
    [
        (["i3"], {"k": 0}, "k is 0; ask for at least 1"),
        ([], {}, "items is empty"),
        ("i3", {}, r"must be a list of items, got 'i3'; write \['i3'\]"),
        (7, {}, "must be a list of items, got 7"),
        (["i3", "nothing"], {"on_unknown": "raise"}, "1 of the items are not among .*'nothing'"),
        (["i3"], {"on_unknown": "rise"}, "on_unknown must be one of 'ignore', 'warn', 'raise', got 'rise'"),
    ],
)
def test_bad_questions_for_similar_items(run, items, named, words):
    with pytest.raises(ValueError, match=words):
        run.similar_items(items, **named)


def test_scores_are_those_of_the_lists(answering):
    histories = {"ann": ["i3", "i5", "i8"], "new": [], "bob": ["i4"] * 12 + ["i9"]}
    lists = answering.recommend(histories, k=100, exclude_seen=False)
    frame = answering.score(histories, ["i7", "i3", "i7"])
    assert frame.columns == ["user_id", "item_id", "score"]
    assert frame["user_id"].to_list() == [user for user in histories for _ in range(3)]
    assert frame["item_id"].to_list() == ["i7", "i3", "i7"] * 3
    both = frame.join(lists, on=["user_id", "item_id"], how="left", suffix="_of_list")
    np.testing.assert_allclose(both["score"], both["score_of_list"], rtol=1e-4, atol=1e-5)


def test_each_user_may_have_items_of_its_own(run):
    histories = {"ann": ["i3", "i5"], "bob": ["i4"], "cem": ["i9"]}
    frame = run.score(histories, {"cem": [], "bob": ["i7", "i8"], "ann": ["i8"]})
    assert frame.rows() == [
        (user, item, pytest.approx(run.score({user: histories[user]}, [item])["score"][0], rel=1e-4))
        for user, item in [("ann", "i8"), ("bob", "i7"), ("bob", "i8")]
    ]


def test_more_pairs_than_are_scored_at_once(run, monkeypatch):
    histories = [[f"i{1 + (row * 7 + step) % 50}" for step in range(row % 20)] for row in range(70)]
    expected = run.score(histories, ITEMS)
    monkeypatch.setattr("jaxrec.lists.pair_scores.PAIRS_AT_ONCE", 16)
    found = run.score(histories, ITEMS)
    assert found.drop("score").equals(expected.drop("score"))
    np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-5, atol=1e-7)


def test_an_item_that_was_never_trained_has_a_score(run):
    assert run.score([["i3"]], ["only-in-test"])["score"].is_finite().all()


@pytest.mark.parametrize(
    ("histories", "items", "words"),
    [
        ({}, ["i3"], "histories is empty"),
        ({"ann": ["i3"]}, [], "items is empty"),
        ({"ann": ["i3"], "bob": []}, {"ann": ["i4"]}, "no list for 1 of the users, such as 'bob'"),
        ({"ann": ["i3"]}, {"ann": ["i4"], "bob": ["i4"]}, "lists for 1 more users"),
    ],
)
def test_bad_questions_for_scores(run, histories, items, words):
    with pytest.raises(ValueError, match=words):
        run.score(histories, items)


def test_titles_that_are_not_there_are_missed(run):
    with pytest.warns(UserWarning, match="items of small have no titles"):
        run.similar_items(["i3"], with_titles=True)


def test_titles_stand_beside_the_answers(split):
    log = split.interactions
    metadata = jaxrec.data.ItemMetadata(
        log.item_ids,
        pl.Series([f"title of {item}" for item in log.item_ids.values]),
        pl.Series([[]] * log.num_items, dtype=pl.List(pl.String)),
    )
    titled = dataclasses.replace(split, interactions=dataclasses.replace(log, metadata=metadata))
    run = jaxrec.fit(jaxrec.preset("popularity"), titled)
    similar = run.similar_items(["i3"], k=3, with_titles=True)
    assert (similar["title"] == "title of " + similar["similar_item_id"]).all()
    scored = run.score([["i3"]], ["i5"], with_titles=True)
    assert scored["title"].to_list() == ["title of i5"]
