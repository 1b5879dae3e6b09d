"""The simulator: its process, its draws, and the oracle that knows the best ranking."""

import dataclasses

import numpy as np
import pytest

from jaxrec.data import simulated_histories
from jaxrec.data.interactions import Interactions
from jaxrec.data.oracle import next_item_probabilities, oracle_score
from jaxrec.data.simulated_process import SimulatedProcess
from jaxrec.data.simulator import sample, simulate
from jaxrec.data.splits import leave_one_out

PROCESS = SimulatedProcess(num_items=300, seed=3)
USERS = 1500


@pytest.fixture(scope="module")
def log():
    return sample(PROCESS, USERS)


@pytest.fixture(scope="module")
def split(log):
    return leave_one_out(log)


def score(log, targets, scores_of):
    """HR@10, NDCG@10 of ``scores_of(history) -> [V + 1]``, seen items excluded, plain loops."""
    gains, hits = [], []
    for start, position in zip(targets.starts, targets.positions, strict=True):
        history, answer = log.items[start:position], log.items[position]
        scores = np.array(scores_of(history), np.float64)
        scores[history] = -np.inf
        scores[0] = -np.inf
        rank = (scores > scores[answer]).sum() + 0.5 * ((scores == scores[answer]).sum() - 1)
        hits.append(rank < 10)
        gains.append((rank < 10) / np.log2(rank + 2))
    return np.mean(hits), np.mean(gains)


def counts(log, split, sequence_of=lambda items: items):
    """Popularity ``[V + 1]`` and first-order counts ``[V + 1, V + 1]`` of the training part."""
    popularity = np.zeros(log.num_items + 1)
    pairs = np.zeros((log.num_items + 1, log.num_items + 1))
    for start, end in zip(log.offsets[:-1], split.train_ends, strict=True):
        items = sequence_of(log.items[start:end])
        np.add.at(popularity, items, 1)
        np.add.at(pairs, (items[:-1], items[1:]), 1)
    return popularity / popularity.sum(), pairs


def test_equal_arguments_give_equal_logs(log):
    again = sample(dataclasses.replace(PROCESS), USERS)
    np.testing.assert_array_equal(again.items, log.items)
    np.testing.assert_array_equal(again.times, log.times)
    assert again.fingerprint() == log.fingerprint()
    other = sample(dataclasses.replace(PROCESS, seed=4), USERS)
    assert other.fingerprint() != log.fingerprint()
    assert other.name != log.name


def test_simulate_is_sample_of_the_process_of_the_same_arguments():
    short = simulate(num_users=40, num_items=60, seed=5, num_categories=4, mean_length=8.0)
    process = SimulatedProcess(num_items=60, seed=5, num_categories=4, mean_length=8.0)
    assert short.fingerprint() == sample(process, 40).fingerprint()
    assert short.metadata.category_names.len() == 4


def test_the_log_is_well_formed(log):
    lengths = log.lengths
    assert PROCESS.min_length <= lengths.min() <= PROCESS.min_length + 3
    assert lengths.max() <= PROCESS.longest
    assert 0.85 * PROCESS.mean_length < lengths.mean() < 1.15 * PROCESS.mean_length
    assert lengths.mean() > 1.2 * np.median(lengths)
    for user in range(log.num_users):
        run = slice(log.offsets[user], log.offsets[user + 1])
        assert len(np.unique(log.items[run])) == lengths[user]
        assert (np.diff(log.times[run]) > 0).all()
    assert log.items.min() >= 1
    assert log.items.max() <= PROCESS.num_items
    checked = Interactions.from_arrays(log.items, log.offsets, item_ids=log.item_ids, times=log.times)
    assert checked.num_items == log.num_items == 300


def test_metadata_names_the_category_of_each_item(log):
    titles, categories = log.metadata.titles, log.metadata.categories
    assert titles.n_unique() == log.num_items
    assert titles.null_count() == 0
    for title, names in zip(titles[:50], categories[:50], strict=True):
        assert len(names) == 1
        assert title.startswith(names[0])


def test_popularity_has_a_long_tail(log):
    taken = np.sort(np.bincount(log.items, minlength=log.num_items + 1)[1:])
    places = 2 * np.arange(1, log.num_items + 1) - log.num_items - 1
    gini = (places * taken).sum() / (log.num_items * taken.sum())
    head = taken[-log.num_items // 5 :].sum() / taken.sum()
    assert gini > 0.35
    assert head > 0.4
    assert taken[0] > 0


def test_repeats_only_when_asked():
    process = SimulatedProcess(num_items=20, repeats=True, mean_length=30, max_length=60)
    log = sample(process, 50)
    runs = [log.items[start:end] for start, end in zip(log.offsets[:-1], log.offsets[1:], strict=True)]
    assert any(len(np.unique(run)) < len(run) for run in runs)
    assert (next_item_probabilities(process, runs[:5])[:, 1:] > 0).any(axis=1).all()


def test_interests_persist_and_drift(log):
    kind = np.unique([names[0] for names in log.metadata.categories], return_inverse=True)[1]
    long = np.flatnonzero(log.lengths >= 60)

    def agreement(gap):
        same = [
            kind[log.items[log.offsets[u] : log.offsets[u] + 60 - gap] - 1]
            == kind[log.items[log.offsets[u] + gap : log.offsets[u] + 60] - 1]
            for u in long
        ]
        return np.concatenate(same).mean()

    by_chance = (np.bincount(kind[log.items - 1]) / log.num_interactions) @ (
        np.bincount(kind[log.items - 1]) / log.num_interactions
    )
    assert agreement(2) > 1.5 * agreement(40)
    assert agreement(8) > 1.2 * agreement(40)
    assert agreement(8) > 1.5 * by_chance


def test_transitions_show_and_shuffling_hides_them(log, split):
    targets = split.targets("test")
    popularity, pairs = counts(log, split)
    generator = np.random.default_rng(0)
    _, shuffled = counts(log, split, generator.permutation)
    markov = score(log, targets, lambda history: pairs[history[-1]] + popularity)
    mixed = score(log, targets, lambda history: shuffled[history[-1]] + popularity)
    popular = score(log, targets, lambda history: popularity)
    assert markov[0] > 3 * popular[0]
    assert markov[0] > 1.5 * mixed[0]
    best = oracle_score(PROCESS, split)
    assert best.hr > markov[0]
    assert best.ndcg > 1.05 * markov[1]


def test_oracle_scores_as_the_plain_metrics_of_its_probabilities(log, split):
    few = dataclasses.replace(split, test=split.test[:60])
    best = oracle_score(PROCESS, few)
    probabilities = lambda history: next_item_probabilities(PROCESS, [history])[0]  # noqa: E731
    np.testing.assert_allclose((best.hr, best.ndcg), score(log, few.targets("test"), probabilities))
    assert best.rows == 60


@pytest.mark.parametrize("part", ["validation", "test"])
def test_oracle_is_an_upper_bound_and_meets_its_expectation(log, split, part):
    best = oracle_score(PROCESS, split, part)
    noise = 0.5 / np.sqrt(USERS)
    assert abs(best.hr - best.expected_hr) < 4 * noise
    assert abs(best.ndcg - best.expected_ndcg) < 4 * noise
    worse = dataclasses.replace(PROCESS, memory=0.5, transition=0.3)
    assert oracle_score(worse, split, part).ndcg < best.ndcg + 0.01
    strangers = dataclasses.replace(PROCESS, seed=99)
    assert oracle_score(strangers, split, part).ndcg < 0.2 * best.ndcg


def test_oracle_follows_the_renumbering_of_a_filter(log, split):
    filtered = log.filter(min_user=5, min_item=60)
    assert filtered.num_items < log.num_items
    assert oracle_score(PROCESS, leave_one_out(filtered)).ndcg > 0.7 * oracle_score(PROCESS, split).ndcg


def slow_probabilities(process, history):
    """The formulas of ``simulated_process`` written out over items, one at a time."""
    tables = process.tables
    slot_of = {int(item): slot for slot, item in enumerate(tables.item_of_slot)}
    past = [slot_of[item] for item in history]
    interests = process.novelty * tables.category_share
    for age, slot in enumerate(reversed(past)):
        interests[tables.category[slot]] += process.memory**age
    interests /= interests.sum()
    follow = process.transition if past else 0.0
    result = np.zeros(process.num_items + 1)
    for item, slot in slot_of.items():
        if slot in past and not process.repeats:
            continue
        result[item] = (1 - follow) * interests[tables.category[slot]] * tables.share[slot]
        if past:
            places = tables.successors[past[-1]] == slot
            result[item] += follow * tables.successor_weights[places].sum()
    return result / result.sum()


@pytest.mark.parametrize("repeats", [False, True])
def test_probabilities_are_the_formulas(repeats):
    process = SimulatedProcess(num_items=30, num_categories=4, repeats=repeats, seed=2)
    histories = [[], [7], [7, 3, 12, 30], [1, 2, 3, 4, 5, 6, 7, 8]]
    found = next_item_probabilities(process, [np.array(history, np.int32) for history in histories])
    for row, history in zip(found, histories, strict=True):
        np.testing.assert_allclose(row, slow_probabilities(process, history), atol=1e-12)


@pytest.mark.parametrize("rounds", [40, 0], ids=["rejection", "exact"])
def test_draws_follow_the_probabilities(monkeypatch, rounds):
    monkeypatch.setattr(simulated_histories, "_ROUNDS", rounds)
    process = SimulatedProcess(
        num_items=8, num_categories=3, seed=1, mean_length=5, max_length=4, min_length=4
    )
    count = 12_000 if rounds else 4_000
    drawn = simulated_histories.draw_histories(process, np.full(count, 4), np.random.default_rng(0))
    drawn = drawn.reshape(count, 4)
    prefixes, inverse, sizes = np.unique(drawn[:, :3], axis=0, return_inverse=True, return_counts=True)
    expected = next_item_probabilities(process, list(prefixes))
    for place in np.argsort(-sizes)[:5]:
        observed = np.bincount(drawn[inverse == place, 3], minlength=9) / sizes[place]
        error = np.sqrt(expected[place] * (1 - expected[place]) / sizes[place])
        assert (np.abs(observed - expected[place]) <= 4.5 * error).all()


def test_a_log_on_disk_equals_the_log_in_memory(tmp_path):
    process = SimulatedProcess(num_items=50_000, seed=1, mean_length=6, max_length=20_000)
    users = 600
    kept = sample(process, users)
    mapped = sample(process, users, directory=tmp_path / "log")
    assert isinstance(mapped.items, np.memmap)
    for name in ("items", "offsets", "times"):
        np.testing.assert_array_equal(getattr(mapped, name), getattr(kept, name))
    assert mapped.fingerprint() == kept.fingerprint()
    assert mapped.name == kept.name
    assert mapped.metadata.titles.equals(kept.metadata.titles)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    with pytest.raises(FileExistsError, match="exists already"):
        sample(process, users, directory=tmp_path / "log")


def test_whole_blocks_do_not_depend_on_the_number_of_users():
    process = SimulatedProcess(num_items=40_000, mean_length=5, max_length=20_000)
    some, more = sample(process, 256), sample(process, 300)
    np.testing.assert_array_equal(more.items[: some.num_interactions], some.items)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_items": 1}, "at least 2 items"),
        ({"seed": -1}, "seed"),
        ({"num_categories": 0}, "num_categories"),
        ({"num_items": 10, "num_categories": 11}, "num_categories"),
        ({"transition": 1.0}, "transition"),
        ({"same_category": 1.5}, "probability"),
        ({"memory": 1.0}, "between 0 and 1"),
        ({"novelty": 0.0}, "novelty"),
        ({"num_successors": 0}, "num_successors"),
        ({"max_length": 400}, "repeats=True"),
        ({"mean_length": 3.0}, "mean_length"),
        ({"num_items": 6}, "max_length"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        SimulatedProcess(**arguments)


def test_bad_requests_are_named(log, split):
    with pytest.raises(ValueError, match="at least 1 user"):
        sample(PROCESS, 0)
    with pytest.raises(ValueError, match="this process has 1 to 300"):
        next_item_probabilities(PROCESS, [np.array([301])])
    with pytest.raises(ValueError, match="pass the process that the log was drawn from"):
        oracle_score(SimulatedProcess(num_items=200), split)
    with pytest.raises(ValueError, match="no targets"):
        oracle_score(PROCESS, dataclasses.replace(split, test=split.test[:0]))
    with pytest.raises(ValueError, match="k is 0"):
        oracle_score(PROCESS, split, k=0)
