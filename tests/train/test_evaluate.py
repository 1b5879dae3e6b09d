"""``evaluate`` against scoring every user alone in plain numpy."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import BagRecommender
from numpy.testing import assert_allclose, assert_array_equal

from jaxrec.data.evaluation_batches import evaluation_batches, history_batches
from jaxrec.data.windows import bucket_lengths
from jaxrec.devices.sharding import users_at_once
from jaxrec.lists import recommend
from jaxrec.lists.scoring import Catalogue, ChunkedScores
from jaxrec.metrics import accuracy, rank_targets
from jaxrec.metrics.diversity import CategoryTable, concentration, f_score, list_metrics, self_information
from jaxrec.recommender import constant_columns, table_rows
from jaxrec.train.evaluate import evaluate
from jaxrec.train.ranking import count_competitors

NUM_ITEMS, WIDTH, MAX_LENGTH = 300, 4, 10
LENGTHS = bucket_lengths(MAX_LENGTH)
BAG = BagRecommender(NUM_ITEMS, MAX_LENGTH, WIDTH)


class MarkedRecommender(BagRecommender):
    """The first column of its ranking space says nothing of what an item is like."""

    constant_columns = 1


class Rows(NamedTuple):
    starts: np.ndarray
    positions: np.ndarray

    @property
    def users(self):
        return np.arange(len(self.starts))


@pytest.fixture(scope="module")
def problem():
    """Integer embeddings (exact scores, many ties), histories from empty to far longer than the window."""
    random = np.random.default_rng(0)
    params = random.integers(-2, 3, (table_rows(NUM_ITEMS), WIDTH)).astype(np.float32)
    lengths = np.concatenate([random.integers(0, 14, 150), [40, 70, 25]])
    random.shuffle(lengths)
    ends = np.cumsum(lengths + 1)
    items = random.integers(1, NUM_ITEMS + 1, ends[-1]).astype(np.int32)
    return jnp.asarray(params), items, Rows(ends - lengths - 1, ends - 1)


def slow_scores(params, items, rows, exclude_seen):
    """``[n, V]`` float32, one user at a time."""
    params = np.asarray(params)
    scores = np.full((len(rows.starts), len(params)), -np.inf, np.float32)
    for row, (start, position) in enumerate(zip(*rows, strict=True)):
        history = items[start:position]
        scores[row, 1 : NUM_ITEMS + 1] = params[1 : NUM_ITEMS + 1] @ params[history[-MAX_LENGTH:]].sum(0)
        if exclude_seen:
            scores[row, history] = -np.inf
    return scores


@pytest.mark.slow
@pytest.mark.parametrize(
    ("exclude_seen", "batch_size", "chunk", "recommender"),
    [
        (True, 50, None, BAG),
        (True, 1000, 100, BAG),
        (False, 64, 128, MarkedRecommender(NUM_ITEMS, MAX_LENGTH, WIDTH)),
    ],
)
def test_evaluation_equals_plain_numpy(problem, exclude_seen, batch_size, chunk, recommender):
    params, items, rows = problem
    counts = np.bincount(items, minlength=NUM_ITEMS + 1)
    counts[0] = 0
    category_rows = np.random.default_rng(1).integers(0, 9, (NUM_ITEMS + 1, 3)).astype(np.int32)
    categories = CategoryTable(category_rows, 8)
    found = evaluate(
        recommender,
        params,
        items,
        rows,
        exclude_seen=exclude_seen,
        batch_size=batch_size,
        chunk=chunk,
        item_counts=counts,
        categories=categories,
    )
    scores = slow_scores(params, items, rows, exclude_seen)
    ranks = rank_targets(scores, items[rows.positions])
    assert_array_equal(found.ranks, ranks.mean)
    expected = accuracy(ranks)
    ids = np.arange(scores.shape[1])
    lists = np.stack([np.lexsort((ids, -row))[:20] for row in scores])
    assert_array_equal(found.lists, lists)
    information = jnp.asarray(self_information(counts))
    vectors = params[:, constant_columns(recommender) :]
    of_lists = list_metrics(jnp.asarray(lists), vectors, (5, 10, 20), information, categories)
    for name, values in (expected | of_lists).items():
        assert_allclose(found.per_user[name], values, atol=1e-5, err_msg=name)
        assert_allclose(found.metrics[name], np.mean(values), atol=1e-5, err_msg=name)
    for cutoff in (5, 10, 20):
        recommended = np.bincount(lists[:, :cutoff].ravel(), minlength=NUM_ITEMS + 1)[1:]
        for name, value in concentration(recommended).items():
            assert_allclose(found.metrics[f"{name}@{cutoff}"], value, rtol=1e-6)
        means = (found.metrics[f"{name}@{cutoff}"] for name in ("hr", "ndcg", "cc"))
        assert_allclose(found.metrics[f"f@{cutoff}"], f_score(*means))
    check_groups(found, rows)


class RowsOfUsers(NamedTuple):
    users: np.ndarray
    starts: np.ndarray
    positions: np.ndarray


def test_users_with_several_targets_count_once(problem):
    params, items, rows = problem
    users = (
        np.minimum(np.arange(len(rows.starts)) // 3, 20) * 2
    )  # three targets each, the last one has the rest
    of_targets = evaluate(BAG, params, items, rows)
    found = evaluate(BAG, params, items, RowsOfUsers(users, *rows))
    assert_array_equal(found.ranks, of_targets.ranks)
    assert_array_equal(found.users, np.unique(users))
    for name, values in of_targets.per_user.items():
        means = [values[users == user].mean() for user in np.unique(users)]
        assert_allclose(found.per_user[name], means, err_msg=name)
        assert_allclose(found.metrics[name], np.mean(means), err_msg=name)
    assert found.metrics["coverage@10"] == of_targets.metrics["coverage@10"]
    assert found.metrics["hr@10"] != of_targets.metrics["hr@10"]
    group = next(one for one in found.groups[::-1] if one.name.startswith("history"))  # the longest
    inside = rows.positions - rows.starts >= int(group.name.removeprefix("history ").split("-")[0])
    assert group.users == len(np.unique(users[inside])) < inside.sum()


def check_groups(found, rows):
    lengths = rows.positions - rows.starts
    by_length = [group for group in found.groups if group.name.startswith("history")]
    by_popularity = [group for group in found.groups if group.name.startswith("target")]
    assert len(by_length) == 5
    assert len(by_popularity) == 2
    for groups in (by_length, by_popularity):
        assert sum(group.users for group in groups) == len(lengths)
        total = sum(group.users * group.metrics["ndcg@10"] for group in groups)
        assert_allclose(total / len(lengths), found.metrics["ndcg@10"])
    shortest = int(by_length[0].name.split("-")[-1])
    mask = lengths <= shortest
    assert by_length[0].users == mask.sum()
    assert_allclose(by_length[0].metrics["hr@20"], found.per_user["hr@20"][mask].mean())


def test_ranks_only_gives_the_same_accuracy(problem):
    params, items, rows = problem
    full = evaluate(BAG, params, items, rows, batch_size=50)
    fast = evaluate(BAG, params, items, rows, batch_size=50, with_lists=False, cutoffs=(10,))
    assert_array_equal(fast.ranks, full.ranks)
    assert fast.metrics == {name: full.metrics[name] for name in ("hr@10", "ndcg@10", "mrr@10", "mrr")}
    assert fast.lists is None
    low, high = full.intervals(resamples=200)["ndcg@10"]
    assert low < full.metrics["ndcg@10"] < high


def test_a_stochastic_recommender_in_any_batch(problem):
    params, items, rows = problem
    recommender, key = dataclasses.replace(BAG, stochastic=True), jax.random.key(3)
    found = evaluate(recommender, params, items, rows, key=key, batch_size=70, num_samples=2)
    other = evaluate(recommender, params, items, rows, key=key, batch_size=1000, num_samples=2)
    assert_array_equal(found.lists, other.lists)
    assert_array_equal(found.ranks, other.ranks)
    different = evaluate(
        recommender, params, items, rows, key=jax.random.key(4), batch_size=70, num_samples=2
    )
    assert np.any(different.lists != found.lists)
    history = items[rows.starts[0] : rows.positions[0]]
    window = np.zeros((1, MAX_LENGTH), np.int32)
    if len(history):
        window[0, -len(history[-MAX_LENGTH:]) :] = history[-MAX_LENGTH:]
    lists = recommend(recommender, params, window, k=20, key=key, exclude=history[None], num_samples=2)
    assert_array_equal(lists.items[0], found.lists[0])


@pytest.mark.parametrize("chunk", [None, 50])
def test_a_constant_model_scores_as_chance(problem, chunk):
    _, items, rows = problem
    params = jnp.ones((table_rows(NUM_ITEMS), WIDTH))
    found = evaluate(BAG, params, items, rows, exclude_seen=False, chunk=chunk)
    assert_array_equal(found.ranks, (NUM_ITEMS - 1) / 2)
    assert found.metrics["hr@10"] == pytest.approx(10 / NUM_ITEMS)


@pytest.mark.parametrize("with_seen", [True, False])
@pytest.mark.parametrize("batch_size", [1, 7, 64, 500])
def test_batches_hold_every_row_once(problem, batch_size, with_seen):
    _, items, rows = problem
    met = []
    shapes = set()
    for batch in evaluation_batches(
        items, *rows, lengths=LENGTHS, batch_size=batch_size, with_seen=with_seen
    ):
        shapes.add((batch.items.shape, batch.seen.shape))
        assert len(batch.items) <= batch_size
        for place, row in enumerate(batch.rows):
            if row < 0:
                assert batch.weights[place] == batch.targets[place] == 0
                assert not batch.items[place].any()
                continue
            met.append(row)
            history = items[rows.starts[row] : rows.positions[row]]
            newest = batch.items[place][batch.items[place] > 0]
            assert_array_equal(newest, history[-MAX_LENGTH:])
            assert_array_equal(batch.items[place][len(batch.items[place]) - len(newest) :], newest)
            assert batch.targets[place] == items[rows.positions[row]]
            assert batch.weights[place] == 1
            if with_seen:
                assert_array_equal(batch.seen[place][batch.seen[place] > 0], history)
            else:
                assert batch.seen.shape[1] == 0
    assert sorted(met) == list(range(len(rows.starts)))
    assert len(shapes) <= 8
    for window, seen in shapes:
        assert window[1] in (4, 8, MAX_LENGTH)
        assert seen[1] in (0, window[1], 16, 32, 64, 128)


@pytest.mark.parametrize(("batch_size", "devices"), [(1, 8), (50, 8), (20, 6), (500, 3)])
def test_batches_divide_among_devices(problem, batch_size, devices):
    _, items, rows = problem
    batches = list(evaluation_batches(items, *rows, lengths=LENGTHS, batch_size=batch_size, devices=devices))
    assert all(len(batch.items) % devices == 0 for batch in batches)
    assert all(len(batch.items) < batch_size + devices for batch in batches)
    met = np.concatenate([batch.rows[batch.rows >= 0] for batch in batches])
    assert sorted(met) == list(range(len(rows.starts)))


def test_long_histories_come_in_smaller_batches(problem):
    """B L^2 stays within ``pairs``, unless 8 users are too many already."""
    _, items, rows = problem
    batches = list(evaluation_batches(items, *rows, lengths=LENGTHS, batch_size=64, pairs=40 * 8**2))
    shapes = {batch.items.shape for batch in batches}
    assert shapes == {(40, 8), (24, 10)}
    assert all(rows * length**2 <= 40 * 8**2 or rows == 8 for rows, length in shapes)
    met = np.concatenate([batch.rows[batch.rows >= 0] for batch in batches])
    assert sorted(met) == list(range(len(rows.starts)))


def test_history_batches_at_the_end_of_the_log():
    items = np.arange(1, 6, dtype=np.int32)
    (batch,) = history_batches(items, np.array([0, 5]), np.array([5, 5]), lengths=[4], batch_size=8)
    assert_array_equal(batch.rows, [1, 0, *[-1] * 6])  # the shorter first
    assert_array_equal(batch.items[1], [2, 3, 4, 5])
    assert_array_equal(batch.seen[1], [0, 0, 0, 1, 2, 3, 4, 5])
    assert not batch.items[0].any()
    (empty,) = history_batches(items[:0], np.zeros(1), np.zeros(1), lengths=[4])
    assert not empty.items.any()
    with pytest.raises(ValueError, match="row 1 has a history from 4 to 3"):
        list(history_batches(items, np.array([0, 4]), np.array([1, 3]), lengths=[4]))
    for name in ("batch_size", "pairs", "devices"):
        with pytest.raises(ValueError, match=f"{name} is 0"):
            list(history_batches(items, np.array([0]), np.array([1]), lengths=[4], **{name: 0}))


def test_bad_arguments(problem):
    params, items, rows = problem
    nothing = Rows(rows.starts[:0], rows.positions[:0])
    with pytest.raises(ValueError, match="no target"):
        evaluate(BAG, params, items, nothing)
    with pytest.raises(ValueError, match="cutoffs"):
        evaluate(BAG, params, items, rows, cutoffs=(0, 5))
    with pytest.raises(ValueError, match="num_samples is 0; it must be at least 1"):
        evaluate(BAG, params, items, rows, num_samples=0)
    with pytest.raises(ValueError, match="item_counts describes 7 items and the recommender ranks 300"):
        evaluate(BAG, params, items, rows, item_counts=np.zeros(8))


def test_memory_at_a_million_items():
    def ranks(query, table, seen, targets):
        return count_competitors(ChunkedScores(query, Catalogue(table, 1_000_000), seen), targets)

    arguments = [
        jax.ShapeDtypeStruct((256, 64), jnp.float32),
        jax.ShapeDtypeStruct((table_rows(1_000_000), 64), jnp.float32),
        jax.ShapeDtypeStruct((256, 64), jnp.int32),
        jax.ShapeDtypeStruct((256,), jnp.int32),
    ]
    compiled = jax.jit(ranks).lower(*arguments).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2**27


def test_users_of_one_dispatch(monkeypatch):
    assert users_at_once(7, None) == (7, None)
    assert [users_at_once(None, None, last).batch_size for last in ("all", "last")] == [256, 64]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    mesh = jax.sharding.AbstractMesh((2, 2), ("data", "model"))
    assert [users_at_once(size, mesh).batch_size for size in (7, None)] == [7, 4 * 2048]
