"""``recommend`` against sorting in plain numpy: ties, exclusion, candidates, chunks, samples."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import BagRecommender
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from jaxrec.lists import recommend
from jaxrec.lists.scoring import map_rows
from jaxrec.lists.topk import top_k
from jaxrec.models.encoder import EncoderRecommender
from jaxrec.recommender import table_rows

NUM_ITEMS, WIDTH = 1000, 4
BAG = BagRecommender(NUM_ITEMS, max_length=12, width=WIDTH)


@pytest.fixture(scope="module")
def problem():
    recommender = BAG
    histories = np.array(jax.random.randint(jax.random.key(1), (6, 12), 1, NUM_ITEMS + 1))
    histories[1, :8] = 0
    histories[2] = 0
    return recommender, recommender.init(jax.random.key(0)), histories


def slow_lists(params, histories, k, exclude=None, candidates=None, allowed=None):
    """Sorted by score, then id."""
    params = np.asarray(params)
    items, scores = np.zeros((len(histories), k), np.int32), np.full((len(histories), k), -np.inf)
    for row, history in enumerate(histories):
        query = params[history[history > 0]].sum(0)
        pool = np.arange(1, NUM_ITEMS + 1)
        if candidates is not None:
            pool = np.intersect1d(pool, candidates[row] if np.ndim(candidates) == 2 else candidates)
        if exclude is not None:
            pool = np.setdiff1d(pool, exclude[row])
        if allowed is not None:
            pool = pool[np.asarray(allowed)[pool]]
        best = pool[np.lexsort((pool, -(params[pool] @ query)))][:k]
        items[row, : len(best)], scores[row, : len(best)] = best, params[best] @ query
    return items, scores


def check(lists, expected):
    assert_array_equal(lists.items, expected[0])
    assert_array_equal(lists.scores, expected[1])
    assert_array_equal(lists.valid, expected[0] > 0)
    assert lists.items.dtype == jnp.int32
    assert lists.scores.dtype == jnp.float32


@pytest.mark.parametrize("chunk", [None, 1024, 128, 300, 40])
@pytest.mark.parametrize("k", [1, 10])
def test_best_items_of_the_catalogue(problem, chunk, k):
    recommender, params, histories = problem
    lists = recommend(recommender, params, histories, k=k, exclude=histories, chunk=chunk)
    check(lists, slow_lists(params, histories, k, exclude=histories))


@pytest.mark.parametrize("chunk", [None, 128])
def test_padding_filling_and_forbidden_items_are_never_ranked(problem, chunk):
    recommender, params, histories = problem
    params = params.at[0].set(100.0).at[NUM_ITEMS + 1 :].set(100.0)
    allowed = np.zeros(len(params), bool)
    allowed[::7] = True
    allowed[NUM_ITEMS:] = True
    lists = recommend(recommender, params, histories, k=20, allowed=allowed, chunk=chunk)
    check(lists, slow_lists(params, histories, 20, allowed=allowed))


@pytest.mark.parametrize("chunk", [None, 128])
def test_a_mask_of_the_items_may_be_as_long_as_the_item_counts(problem, chunk):
    recommender, params, histories = problem
    allowed = np.zeros(NUM_ITEMS + 1, bool)
    allowed[-11:] = True
    expected = slow_lists(params, histories, 10, allowed=np.pad(allowed, (0, len(params) - NUM_ITEMS - 1)))
    for mask in (allowed, jnp.asarray(allowed)):
        check(recommend(recommender, params, histories, k=10, allowed=mask, chunk=chunk), expected)


def test_a_mask_of_other_items_is_refused(problem):
    recommender, params, histories = problem
    for mask in (np.ones(NUM_ITEMS, bool), np.ones((1, NUM_ITEMS + 1), bool), np.ones(NUM_ITEMS + 1)):
        with pytest.raises(ValueError, match=rf"one for each id from 0 to {NUM_ITEMS} .* it has shape"):
            recommend(recommender, params, histories, k=3, allowed=mask)


def test_ids_that_are_no_item_are_refused_and_on_a_device_are_padding(problem):
    recommender, params, histories = problem
    wrong, without = np.array(histories), np.array(histories)
    wrong[0, 0], without[0, 0] = NUM_ITEMS + 1, 0
    for number in (NUM_ITEMS + 1, -3, 10**6):
        wrong[0, 0] = number
        with pytest.raises(ValueError, match=f"items has the id {number}, .* the ids 1 to {NUM_ITEMS}"):
            recommend(recommender, params, wrong, k=3)
        check(recommend(recommender, params, jnp.asarray(wrong), k=3), slow_lists(params, without, 3))


def test_no_history_gives_no_list(problem):
    recommender, params, histories = problem
    for k in (3, 500):
        assert recommend(recommender, params, histories[:0], k=k).items.shape == (0, k)


@pytest.mark.parametrize("chunk", [None, 100])
def test_lists_longer_than_what_is_left(problem, chunk):
    recommender, params, histories = problem
    allowed = np.zeros(len(params), bool)
    allowed[histories[0]] = True
    allowed[500:505] = True
    expected = slow_lists(params, histories, 30, exclude=histories, allowed=allowed)
    lists = recommend(recommender, params, histories, k=30, exclude=histories, allowed=allowed, chunk=chunk)
    check(lists, expected)
    assert not lists.valid[0, 5:].any()
    everything = recommend(recommender, params, histories, k=NUM_ITEMS + 500, chunk=chunk)
    assert_array_equal(everything.valid.sum(axis=1), NUM_ITEMS)


def test_candidates(problem):
    recommender, params, histories = problem
    shared = np.array([5, 3, 3, 900, 0, NUM_ITEMS + 3, 17, 44, -1, *histories[0]], np.int32)
    allowed = np.ones(len(params), bool)
    allowed[900] = False
    lists = recommend(
        recommender, params, histories, k=8, candidates=shared, exclude=histories, allowed=allowed
    )
    check(lists, slow_lists(params, histories, 8, histories, shared, allowed))
    own = np.array(jax.random.randint(jax.random.key(2), (6, 400), 0, NUM_ITEMS + 20))
    for k in (3, 10, 500):
        lists = recommend(recommender, params, histories, k=k, candidates=own, exclude=histories)
        check(lists, slow_lists(params, histories, k, histories, own))


def test_samples_are_averaged_and_their_spread_returned(problem):
    _, params, histories = problem
    recommender, key = dataclasses.replace(BAG, stochastic=True), jax.random.key(4)
    once = recommend(recommender, params, histories, k=5, key=key)
    expected = np.asarray(recommender.query(params, histories, key) @ params.T)[:, 1 : NUM_ITEMS + 1]
    assert_allclose(once.scores, -np.sort(-expected, axis=1)[:, :5], rtol=1e-5)
    assert once.spread is None
    lists = recommend(
        recommender, params, histories, k=5, key=key, num_samples=64, with_spread=True, chunk=256
    )
    queries = jnp.stack(
        [recommender.query(params, histories, sample) for sample in jax.random.split(key, 64)]
    )
    scores = np.einsum("sbq,bkq->sbk", queries, params[lists.items])
    assert_allclose(lists.scores, scores.mean(0), rtol=1e-4, atol=1e-4)
    assert_allclose(lists.spread, scores.std(0), rtol=1e-3, atol=1e-4)
    assert lists.spread.min() > 0.1
    still = recommend(BAG, params, histories, k=5, num_samples=64, with_spread=True)
    assert_allclose(still.spread, 0.0)


def test_a_row_does_not_depend_on_the_others(problem):
    _, params, histories = problem
    recommender = dataclasses.replace(BAG, stochastic=True)
    together = recommend(recommender, params, histories, k=7)
    for row in range(3):
        alone = recommend(recommender, params, histories[row : row + 1], k=7)
        assert_array_equal(alone.items[0], together.items[row])


def test_matrix_products_are_full_ones_on_every_device():
    """By default a TPU rounds operands to bfloat16, and lists would differ from a CPU's."""
    model = EncoderRecommender(num_items=20, max_length=4, width=8, num_layers=1, num_heads=2)
    params = jax.eval_shape(model.init, jax.random.key(0))
    items = jnp.ones((2, 4), jnp.int32)
    program = str(jax.make_jaxpr(lambda params: recommend(model, params, items, k=3))(params))
    products = program.count("dot_general[")
    assert products > 5
    assert program.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == products


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_top_k_breaks_ties_by_place(data):
    width = data.draw(st.sampled_from([5, 128, 700, 1024]))
    k = data.draw(st.sampled_from([1, 4, 9]))
    levels = data.draw(st.integers(1, 6))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    scores = random.integers(0, levels, (3, width)).astype(np.float32)
    scores[random.random(scores.shape) < 0.2] = -np.inf
    values, places = jax.jit(top_k, static_argnums=1)(scores, k)
    for row in range(3):
        order = np.lexsort((np.arange(width), -scores[row]))[:k]
        assert_array_equal(values[row, : len(order)], scores[row][order])
        assert_array_equal(places[row, : len(order)], order)
        assert np.isneginf(values[row, len(order) :]).all()


@pytest.mark.parametrize(("batch", "cells", "calls"), [(100, 1 << 30, 1), (100, 3400, 4), (100, 300, 1)])
def test_rows_are_cut_into_blocks(batch, cells, calls, monkeypatch):
    """Blocks of at most ``cells`` scores; together, if not even 32 rows fit."""
    monkeypatch.setattr("jaxrec.lists.scoring.CPU_CELLS", cells)
    sizes = []

    def double(numbers, nothing):
        assert nothing is None
        sizes.append(len(numbers))
        return {"twice": 2 * numbers}

    numbers = jnp.arange(batch * 3.0).reshape(batch, 3)
    found = map_rows(double, (numbers, None), 100, None)
    assert_array_equal(found["twice"], 2 * numbers)
    assert set(sizes) == {32 if calls > 1 else batch}


def test_memory_at_a_million_items():
    recommender = dataclasses.replace(BAG, num_items=1_000_000)
    params = jax.ShapeDtypeStruct((table_rows(1_000_000), 64), jnp.float32)
    histories = jax.ShapeDtypeStruct((256, 12), jnp.int32)
    function = jax.jit(lambda params, items: recommend(recommender, params, items, k=10, exclude=items))
    compiled = function.lower(params, histories).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4e8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k is 0"),
        ({"num_samples": 0}, "num_samples is 0"),
        ({"items": np.zeros((2, 13), np.int32)}, "give the last 12"),
        ({"items": np.zeros(3, np.int32)}, "items must be a 2-dimensional"),
        ({"items": np.zeros((6, 3), np.float32)}, "array of integers"),
        ({"exclude": np.zeros((5, 3), np.int32)}, "exclude has 5 rows for 6"),
        ({"candidates": np.zeros((5, 3), np.int32)}, "candidates has 5 rows for 6"),
    ],
)
def test_bad_arguments(problem, arguments, message):
    recommender, params, histories = problem
    arguments = {"items": histories, "k": 3} | arguments
    with pytest.raises(ValueError, match=message):
        recommend(recommender, params, arguments.pop("items"), **arguments)
