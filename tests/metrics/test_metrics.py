"""Metrics against slow plain-Python definitions."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from jaxrec.metrics import (
    Ranks,
    accuracy,
    history_length_groups,
    hits,
    ndcg,
    popularity_groups,
    rank_targets,
    reciprocal_rank,
)
from jaxrec.metrics.diversity import (
    CategoryTable,
    category_table,
    concentration,
    f_score,
    list_metrics,
    self_information,
)
from jaxrec.metrics.significance import bootstrap_intervals, paired_test


def test_values_that_can_be_checked_by_hand():
    ranks = Ranks(np.array([0, 1, 4, 5]), np.zeros(4, int))
    assert_array_equal(hits(ranks, 5), [1, 1, 1, 0])
    assert_allclose(ndcg(ranks, 5), [1, 1 / math.log2(3), 1 / math.log2(6), 0])
    assert_allclose(reciprocal_rank(ranks), [1, 1 / 2, 1 / 5, 1 / 6])
    assert_allclose(reciprocal_rank(ranks, 5), [1, 1 / 2, 1 / 5, 0])
    tied = Ranks(np.array([1]), np.array([2]))  # places 1, 2, 3 with equal chance
    assert_array_equal(tied.mean, [2.0])
    assert tied.mean.dtype == np.float32
    assert_allclose(hits(tied, 2), 1 / 3)
    assert_allclose(ndcg(tied, 3), (1 / math.log2(3) + 1 / 2) / 3)
    assert_allclose(reciprocal_rank(tied), (1 / 2 + 1 / 3 + 1 / 4) / 3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=6), st.data())
def test_ties_are_an_expectation_over_all_orders(scores, data):
    target = data.draw(st.integers(0, len(scores) - 1))
    places = [
        order.index(target)
        for order in itertools.permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    ranks = rank_targets(np.array([scores], np.float32), np.array([target]))
    assert_allclose(ranks.mean, np.mean(places))
    values = accuracy(ranks, (1, 2, 4))
    for cutoff in (1, 2, 4):
        inside = [place for place in places if place < cutoff]
        assert_allclose(values[f"hr@{cutoff}"], len(inside) / len(places))
        gain = sum(1 / math.log2(place + 2) for place in inside)
        assert_allclose(values[f"ndcg@{cutoff}"], gain / len(places))
        assert_allclose(values[f"mrr@{cutoff}"], sum(1 / (place + 1) for place in inside) / len(places))
    assert_allclose(values["mrr"], np.mean([1 / (place + 1) for place in places]))


def test_a_constant_model_scores_as_chance():
    scores = np.zeros((7, 101), np.float32)
    scores[:, 0] = -np.inf
    values = accuracy(rank_targets(scores, np.arange(1, 8)), (10,))
    assert_allclose(values["hr@10"], 0.1)
    assert_allclose(values["ndcg@10"], np.sum(1 / np.log2(np.arange(2, 12))) / 100)
    assert_allclose(values["mrr"], np.sum(1 / np.arange(1, 101)) / 100)


def test_a_target_that_may_not_be_ranked_comes_last_and_is_in_no_list():
    scores = np.array([[-np.inf, 0.5, -np.inf, 0.25, -np.inf], [-np.inf] * 5], np.float32)
    ranks = rank_targets(scores, np.array([2, 2]))
    assert_array_equal(ranks.mean, [2.0, 0.0])
    for name, values in accuracy(ranks, (1, 10)).items():
        assert_array_equal(values, 0.0, err_msg=name)


def test_groups_by_history_length():
    lengths = np.array([3] * 50 + list(range(4, 54)))
    groups = history_length_groups(lengths)
    assert_array_equal(sum(mask.astype(int) for mask in groups.values()), 1)
    assert len(groups) == 4  # half of the users have length 3, which is not parted
    assert groups["history 3"].sum() == 50
    even = history_length_groups(np.arange(100))
    assert [int(mask.sum()) for mask in even.values()] == [20, 20, 20, 20, 20]
    assert "history 0-19" in even
    assert history_length_groups(np.zeros(0, int)) == {}


def test_groups_by_popularity():
    counts = np.array([99, 1, 5, 5, 2, 0, 5, 1, 1, 1, 1])  # of items 1 to 10; the head is items 2 and 3
    groups = popularity_groups(np.array([1, 2, 3, 6]), counts)
    assert_array_equal(groups["target in head 20%"], [False, True, True, False])
    assert_array_equal(groups["target in tail 80%"], [True, False, False, True])
    assert list(popularity_groups(np.array([6]), counts)) == ["target in tail 80%"]


def slow_gini(counts):
    differences = sum(abs(a - b) for a in counts for b in counts)
    return differences / (2 * len(counts) * sum(counts))


def test_concentration():
    counts = np.array([0, 3, 1, 0, 8, 2])
    values = concentration(counts)
    assert_allclose(values["coverage"], 4 / 6)
    assert_allclose(values["gini"], slow_gini(counts))
    shares = counts[counts > 0] / 14
    assert_allclose(values["entropy"], -np.sum(shares * np.log2(shares)))
    even = concentration(np.full(8, 3))
    assert_allclose([even["coverage"], even["gini"], even["entropy"]], [1, 0, 3], atol=1e-12)
    assert concentration(np.zeros(4)) == {"coverage": 0.0, "gini": 0.0, "entropy": 0.0}


CATEGORIES = {1: {0, 1}, 2: {1}, 3: set(), 4: {2, 0, 1}, 5: set(), 6: {3}}


def packed_categories():
    lengths = [0] + [len(CATEGORIES[item]) for item in range(1, 7)]
    flat = [category for item in range(1, 7) for category in sorted(CATEGORIES[item])]
    return category_table(np.concatenate([[0], np.cumsum(lengths)]), np.array(flat, np.int32), 5)


def jaccard_distance(first, second):
    union = CATEGORIES[first] | CATEGORIES[second]
    return 1 - len(CATEGORIES[first] & CATEGORIES[second]) / len(union) if union else 0.0


@pytest.mark.parametrize("blocked", [False, True])
def test_list_metrics(blocked, monkeypatch):
    if blocked:
        monkeypatch.setattr("jaxrec.metrics.diversity.CATEGORY_BYTES", 1)
    table = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    table[5] = 0.0
    counts = np.array([7, 4, 2, 0, 1, 1, 8])
    lists = np.array([[1, 4, 2], [6, 3, 0], [5, 0, 0], [0, 0, 0], [3, 5, 1]])
    categories = packed_categories()
    information = jnp.asarray(self_information(counts))
    metrics = jax.jit(lambda lists, table: list_metrics(lists, table, (2, 3), information, categories))
    values = metrics(lists, table)
    bits = {item: -math.log2(max(counts[item], 1) / 16) for item in range(1, 7)}
    for row, cutoff in itertools.product(range(5), (2, 3)):
        items = [item for item in lists[row][:cutoff] if item]
        pairs = list(itertools.combinations(items, 2))
        lengths = np.linalg.norm(table, axis=1) + (np.linalg.norm(table, axis=1) == 0)
        cosines = [table[a] @ table[b] / (lengths[a] * lengths[b]) for a, b in pairs]
        expected = {
            "ild": 1 - np.mean(cosines) if pairs else 0.0,
            "novelty": np.mean([bits[item] for item in items]) if items else 0.0,
            "cc": len(set().union(*(CATEGORIES[item] for item in items))) / 5,
            "category_ild": np.mean([jaccard_distance(*pair) for pair in pairs]) if pairs else 0.0,
        }
        for name, value in expected.items():
            assert_allclose(values[f"{name}@{cutoff}"][row], value, atol=2e-6, err_msg=f"{name} {row}")


def test_category_table_and_f_score():
    table = packed_categories()
    assert isinstance(table, CategoryTable)
    assert_array_equal(
        table.rows, [[0, 0, 0], [1, 2, 0], [2, 0, 0], [0, 0, 0], [1, 2, 3], [0, 0, 0], [4, 0, 0]]
    )
    assert f_score(0.3, 0.1, 0.4) == pytest.approx(2 * 0.2 * 0.4 / 0.6)
    assert f_score(0.0, 0.0, 0.0) == 0.0


def test_bootstrap_interval_is_that_of_a_mean():
    random = np.random.default_rng(1)
    values = {"a": random.normal(5.0, 2.0, 2000), "b": (random.random(2000) < 0.1).astype(float)}
    intervals = bootstrap_intervals(values, resamples=800, seed=2)
    for name, (low, high) in intervals.items():
        error = values[name].std() / np.sqrt(2000)
        assert_allclose(low, values[name].mean() - 1.96 * error, atol=0.35 * error)
        assert_allclose(high, values[name].mean() + 1.96 * error, atol=0.35 * error)
    assert intervals == bootstrap_intervals(values, resamples=800, seed=2)
    with pytest.raises(ValueError, match="no user"):
        bootstrap_intervals({"a": np.zeros(0)})


def test_for_many_users_the_mean_counts_as_normal(monkeypatch):
    """As wide as the bootstrap and as likely as by random signs, without resampling."""
    random = np.random.default_rng(5)
    hits = random.random(20_000) < 0.05
    values = {"hr@10": hits.astype(float), "ndcg@10": hits / np.log2(random.integers(2, 12, 20_000))}
    other = values["ndcg@10"] + random.normal(0.0006, 0.05, 20_000)
    resampled, resampled_test = bootstrap_intervals(values), paired_test(values["ndcg@10"], other)
    monkeypatch.setattr("jaxrec.metrics.significance.MOST_RESAMPLED", 19_999)
    monkeypatch.setattr("jaxrec.metrics.significance.DRAWS_AT_ONCE", None)  # nothing is drawn
    for name, ends in bootstrap_intervals(values).items():
        assert_allclose(ends, resampled[name], atol=0.25 * values[name].std() / np.sqrt(20_000))
    test = paired_test(values["ndcg@10"], other)
    assert 0.01 < test.p_value < 0.5
    assert_allclose(test.p_value, resampled_test.p_value, atol=0.015)
    assert (test.wins, test.losses) == (resampled_test.wins, resampled_test.losses)
    assert_allclose(np.mean(bootstrap_intervals(values, level=0.5)["hr@10"]), hits.mean())
    assert paired_test(other, other + 1).p_value == pytest.approx(1 / 10_001)


def test_paired_test():
    random = np.random.default_rng(3)
    first = random.random(400)
    noise = random.normal(0, 0.1, 400)
    better = paired_test(first, first + 0.05 + noise)
    assert better.p_value == pytest.approx(1 / 10_001)
    assert better.low < better.difference < better.high
    assert better.low > 0
    assert better.wins + better.losses == 400
    assert better.wins > better.losses
    same = paired_test(first, first + noise - noise.mean())
    assert same.p_value > 0.9
    none = paired_test(first, first)
    assert (none.difference, none.p_value, none.wins, none.losses) == (0.0, 1.0, 0, 0)
    exact = paired_test(np.zeros(3), np.array([1.0, 2.0, 3.0]))  # 2 of the 8 assignments of signs
    assert exact.p_value == pytest.approx(0.25, abs=0.02)
    with pytest.raises(ValueError, match="same users"):
        paired_test(first, first[1:])
