"""A run: its figures, lists under external ids, its exported program."""

import dataclasses
import json

import jax
import numpy as np
import pandas as pd
import polars as pl
import pytest
from helpers import drawn_params
from small_run import MODEL, small_config

import jaxrec
from jaxrec.batch import row_keys
from jaxrec.config import EvaluationConfig
from jaxrec.lists.bulk import pad_candidates, popular_items, trained_items
from jaxrec.lists.recommending import _recommend
from jaxrec.metrics.significance import paired_test
from jaxrec.models.diffurec import DiffuRecRecommender
from jaxrec.models.encoder import EncoderRecommender
from jaxrec.nn.refinement import Refined
from jaxrec.nn.vae_attention import VaeAttention
from jaxrec.recommender import drawing


def test_evaluate_gives_metrics_groups_intervals_and_card(run):
    result = run.evaluate("test")
    assert 0 < result["hr@10"] <= 1
    assert result["intervals"]["ndcg@10"][0] <= result["ndcg@10"] <= result["intervals"]["ndcg@10"][1]
    assert sum(g["users"] for name, g in result["groups"].items() if name.startswith("history")) == 150
    card = result["protocol"]
    assert (card["data"], card["users"], card["split"], card["part"]) == (
        "small",
        150,
        "leave-one-out",
        "test",
    )
    assert card["exclude_seen"] is True
    assert card["chosen_by"] == "validation ndcg@10, seen excluded"
    assert json.loads((run.workdir / "evaluations" / "test-seen-excluded.json").read_text()) == json.loads(
        json.dumps(result)
    )


def test_values_of_users_make_a_paired_test(run, split):
    popularity = jaxrec.fit(jaxrec.preset("popularity"), split)
    result = run.evaluate("test", per_user=True)
    frames = [result["per_user"], popularity.evaluate("test", per_user=True)["per_user"]]
    assert frames[0]["user_id"].equals(frames[1]["user_id"])
    assert frames[0]["user_id"].to_list() == [f"u{row}" for row in split.targets("test").users]
    assert frames[0]["rank"].min() >= 1
    assert ((frames[0]["rank"] <= 10) == (frames[0]["hr@10"] == 1)).all()
    test = paired_test(*(frame["ndcg@10"].to_numpy() for frame in frames))
    np.testing.assert_allclose(frames[0]["ndcg@10"].mean(), result["ndcg@10"])
    difference = popularity.evaluate("test")["ndcg@10"] - result["ndcg@10"]
    np.testing.assert_allclose(test.difference, difference, atol=1e-12)
    kept = json.loads((run.workdir / "evaluations" / "test-seen-excluded.json").read_text())
    assert "per_user" not in kept
    assert "per_user" not in run.evaluate("test")


def test_the_checkpoint_is_chosen_by_the_metric_asked_for(split, tmp_path):
    evaluation = EvaluationConfig(cutoffs=(1, 30), select_by="hr@30")
    found = jaxrec.fit(small_config(evaluation=evaluation), split, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line["split"] == "validation"]
    assert {line["selected_by"] for line in lines} == {"hr@30"}
    scores = [line["hr@30"] for line in lines]
    assert [line["best"] for line in lines] == [
        score > max([-1.0, *scores[:row]]) for row, score in enumerate(scores)
    ]
    result = found.evaluate("test")
    assert result["protocol"]["chosen_by"] == "validation hr@30, seen excluded"
    assert {"ndcg@1", "ild@30", "coverage@30"} <= result.keys()


def test_seen_items_in_or_out_are_different_protocols(run):
    excluded, included = run.evaluate("test"), run.evaluate("test", exclude_seen=False)
    assert included["protocol"]["exclude_seen"] is False
    assert included["mrr"] < excluded["mrr"]


def test_recommendations_are_not_seen_not_untrained_and_ranked(run, split):
    histories = {f"u{row}": [f"i{n}" for n in range(1, 30)] for row in range(3)}
    frame = run.recommend(histories, k=50, on_unknown="ignore")
    assert frame.columns == ["user_id", "item_id", "score", "rank"]
    for _, group in frame.group_by("user_id"):
        assert group["rank"].to_list() == list(range(1, len(group) + 1))
        assert group["score"].is_sorted(descending=True)
        items = set(group["item_id"])
        assert not items & set(histories["u0"]), "the whole history is left out, also beyond the window of 8"
        assert "only-in-test" not in items
    # 60 or fewer items, 29 seen: fewer than 50 are left, and the list is just shorter
    assert len(frame) < 3 * 50


def test_all_forms_of_histories_agree(run):
    lists = {"ann": ["i3", "i5", "i8"], "bob": ["i4"]}
    events = [(user, item) for user, items in lists.items() for item in items]
    table = {"user_id": [e[0] for e in events], "item_id": [e[1] for e in events]}
    expected = run.recommend(lists, k=5)
    assert run.recommend(pl.DataFrame(table), k=5).equals(expected)
    assert run.recommend(pd.DataFrame(table), k=5).equals(expected)
    by_place = run.recommend(list(lists.values()), k=5)
    assert by_place["item_id"].equals(expected["item_id"])


def test_a_user_alone_gets_the_list_of_a_crowd(run):
    crowd = [[f"i{1 + (row * 7 + step) % 50}" for step in range(1 + row % 20)] for row in range(300)]
    together = run.recommend(crowd, k=5, batch_size=64)
    for row in (0, 7, 150, 299):
        alone = run.recommend([crowd[row]], k=5)
        same = together.filter(pl.col("user_id") == row)
        assert same["item_id"].to_list() == alone["item_id"].to_list()


def test_empty_history_gets_the_popular_items(run):
    frame = run.recommend({"new": []}, k=3)
    expected = run.catalogue.item_ids.external(popular_items(run.item_counts, 3).items - 1)
    assert frame["item_id"].to_list() == expected.to_list()
    assert frame["score"].is_sorted(descending=True)


def test_candidates(run):
    frame = run.recommend({"ann": ["i3"], "new": []}, k=10, candidates=["i3", "i5", "i8"])
    assert set(frame.filter(pl.col("user_id") == "ann")["item_id"]) == {"i5", "i8"}
    assert set(frame.filter(pl.col("user_id") == "new")["item_id"]) == {"i3", "i5", "i8"}
    with pytest.warns(UserWarning, match="1 of the candidates are not among"):
        assert len(run.recommend([["i3"]], candidates=["i5", "nothing"])) == 1


def test_lists_of_candidates_of_any_length_share_a_program(run):
    names = [f"i{number}" for number in range(1, 51)]
    run.recommend([["i3"]], k=10, candidates=names[:5])
    programs = _recommend._cache_size()
    found = [run.recommend([["i3"]], k=10, candidates=names[:count]) for count in (1, 4, 7, 30, 50)]
    assert _recommend._cache_size() == programs
    assert [len(frame) for frame in found] == [1, 3, 6, 10, 10], "without i3, which is known"
    assert [len(pad_candidates(np.arange(count))) for count in (128, 129, 1000)] == [128, 256, 1024]


def test_spread_of_the_scores_over_samples(run):
    """A model that draws its queries (bulk lists against ``recommend``), and one that does not."""

    class Noisy(EncoderRecommender):
        stochastic = True

        def query(self, params, items, key):
            draws = jax.vmap(lambda one: jax.random.normal(one, (self.width,)))(row_keys(key, items))
            return super().query(params, items, key) + draws

    fields = {field.name: getattr(run.recommender, field.name) for field in dataclasses.fields(MODEL)}
    noisy = dataclasses.replace(run, recommender=Noisy(**fields))
    histories = {"ann": ["i3", "i5", "i8"], "new": [], "bob": ["i4"]}
    frame = noisy.recommend(histories, k=5, num_samples=4, with_spread=True)
    assert frame.columns == ["user_id", "item_id", "score", "rank", "spread"]
    row = np.array([[0, 0, 0, 0, 0, 3, 5, 8]], np.int32)
    row[row > 0] = run.catalogue.item_ids.lookup(["i3", "i5", "i8"]) + 1
    lists = jaxrec.recommend(
        noisy.recommender,
        run.params,
        row,
        k=5,
        key=run.key,
        exclude=row,
        allowed=trained_items(run.recommender, run.item_counts),
        num_samples=4,
        with_spread=True,
    )
    ann = frame.filter(pl.col("user_id") == "ann")
    np.testing.assert_allclose(ann["spread"], lists.spread[0], rtol=1e-5)
    assert ann["spread"].min() > 0
    assert frame.filter(pl.col("user_id") == "new")["spread"].to_list() == [0.0] * 5
    with pytest.raises(ValueError, match="num_samples is 1, and the spread .* needs at least 2"):
        noisy.recommend(histories, with_spread=True)
    still = run.recommend(histories, k=5, with_spread=True)
    assert still["spread"].to_list() == [0.0] * 15
    assert still.drop("spread").equals(run.recommend(histories, k=5))
    with pytest.warns(UserWarning, match="EncoderRecommender draws nothing at inference: it is asked once"):
        assert run.recommend(histories, k=5, num_samples=3).equals(run.recommend(histories, k=5))


def test_a_model_that_answers_with_a_mean_draws_on_request(run):
    generated = dataclasses.replace(MODEL, num_items=run.recommender.num_items, attention=VaeAttention())
    run = dataclasses.replace(run, recommender=generated, params=drawn_params(generated))
    histories = {"ann": ["i3", "i5", "i8"]}
    mean = run.recommend(histories, k=5)
    assert run.recommend(histories, k=5).equals(mean)
    with pytest.raises(ValueError, match="the spread .* needs at least 2"):
        run.recommend(histories, k=5, with_spread=True)
    sampled = run.recommend(histories, k=5, num_samples=4, with_spread=True)
    assert sampled["spread"].min() > 0
    assert sampled["score"].to_list() != mean["score"].to_list()
    refined = dataclasses.replace(generated, attention=Refined(base=VaeAttention()))
    assert drawing(refined).stochastic
    assert drawing(refined).attention.diagnose is VaeAttention.diagnose
    assert drawing(run.recommender).attention == VaeAttention(sample_at_inference=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"k": 0}, "k is 0; ask for at least 1"),
        ({"candidates": ["nothing"], "on_unknown": "ignore"}, "none of the candidates"),
        ({"candidates": ["nothing"], "on_unknown": "raise"}, "1 of the candidates are not among"),
    ],
)
def test_bad_requests(run, arguments, words):
    with pytest.raises(ValueError, match=words):
        run.recommend([["i3"]], **arguments)


def test_unknown_item_raises_if_asked(run):
    with pytest.raises(ValueError, match="'nothing'"):
        run.recommend([["i3", "nothing"]], on_unknown="raise")


def test_no_histories(run):
    with pytest.raises(ValueError, match="histories is empty"):
        run.recommend({})


def test_popularity_needs_no_training(split):
    run = jaxrec.fit(jaxrec.preset("popularity"), split)
    assert run.evaluate("test")["protocol"]["chosen_by"] == "nothing: it is not trained"
    frame = run.recommend([["i1"]], k=3, exclude_seen=False)
    counts = split.train_item_counts()
    expected = run.catalogue.item_ids.external(np.argsort(-counts[1:], kind="stable")[:3])
    assert frame["item_id"].to_list() == expected.to_list()


def test_export_runs_without_the_model(run, tmp_path):
    path = run.export(tmp_path / "small.jaxexport", k=5)
    program = jax.export.deserialize(bytearray(path.read_bytes()))
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}
    ids = pl.read_csv(path.with_name(path.name + ".items.csv"))
    to_internal = dict(zip(ids["item_id"], ids["item"], strict=True))
    to_external = dict(zip(ids["item"], ids["item_id"], strict=True))
    history = ["i3", "i5", "i8"]
    for rows in (1, 3):
        items = np.zeros((rows, 8), np.int32)
        items[:, -3:] = [to_internal[item] for item in history]
        found, scores = program.call(items, items, np.uint32(0))
        expected = run.recommend([history], k=5)
        assert [to_external[int(item)] for item in found[0]] == expected["item_id"].to_list()
        np.testing.assert_allclose(scores[0], expected["score"], rtol=1e-4)

    items[-1] = 0  # an empty history
    found, scores = program.call(items, items, np.uint32(0))
    expected = run.recommend([[]], k=5)
    assert [to_external[int(item)] for item in found[-1]] == expected["item_id"].to_list()
    np.testing.assert_allclose(scores[-1], expected["score"], rtol=1e-6)


def test_an_exported_model_that_draws_gives_the_lists_of_its_run_for_the_seed_of_its_run(run, tmp_path):
    sizes = {"num_items": run.recommender.num_items, "max_length": 8, "width": 16, "num_layers": 1}
    model = DiffuRecRecommender(**sizes, uncertainty=1.0, num_inference_steps=2)
    config = dataclasses.replace(run.config, model=model, seed=3)
    drawing_run = dataclasses.replace(run, recommender=model, params=drawn_params(model), config=config)
    path = drawing_run.export(tmp_path / "drawing.jaxexport", k=5, platforms=("cpu",))
    program = jax.export.deserialize(bytearray(path.read_bytes()))
    items = np.array([[0, 0, 0, 0, 0, 3, 5, 8]], np.int32)
    history = run.catalogue.item_ids.external(items[0, -3:] - 1).to_list()
    expected = drawing_run.recommend([history], k=5)["score"]
    np.testing.assert_allclose(program.call(items, items, np.uint32(3))[1][0], expected, rtol=1e-4)
    assert np.abs(program.call(items, items, np.uint32(0))[1][0] - expected.to_numpy()).max() > 1e-2


def test_export_finds_out_first_whether_it_can_write(run, tmp_path, monkeypatch):
    def work(*arguments, **named):
        raise AssertionError("the program was made before the place was tried")

    monkeypatch.setattr("jaxrec.export.exported_recommend", work)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write to .*file.*choose another file"):
        run.export(tmp_path / "file" / "x")


def test_export_refuses_an_empty_list(run, tmp_path):
    with pytest.raises(ValueError, match="k is 0; ask for at least 1 item"):
        run.export(tmp_path / "x", k=0)


def test_a_log_that_is_not_split_is_refused(split):
    with pytest.raises(ValueError, match=r"needs a split log.*leave_one_out\(log\)"):
        jaxrec.fit(small_config(), split.interactions)


def test_titles_that_are_not_there_are_missed(run):
    with pytest.warns(UserWarning, match=r"items of small have no titles; give them.*--data\.items"):
        run.recommend({"ann": ["i3"]}, with_titles=True)


def test_targets_never_trained_are_counted(run):
    assert run.evaluate("test")["targets_never_trained"] == 1
    assert run.evaluate("validation")["targets_never_trained"] == 0
