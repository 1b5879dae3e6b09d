"""Evaluation, ``recommend`` and runs on meshes of 8 fake CPU devices = on one device; the item table stays split."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import jaxrec
from jaxrec import data
from jaxrec.devices.mesh import ParallelConfig
from jaxrec.devices.sharding import available_mesh, several_devices

LISTS_ALONE = ["d-genatt", "diffurecsys", "diffurecsys-cached"]
MODELS = ["bag", "sasrec", "diffurec", "popularity", *LISTS_ALONE]
RUN_HISTORIES = [[1 + (7 * user + step) % 150 for step in range(user + 1)] for user in range(10)] + [[]]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranking")
    subprocess.run(
        [sys.executable, str(Path(__file__).with_name("ranking_worker.py")), str(path)], check=True
    )
    return path


@pytest.fixture(scope="module")
def results(folder):
    """``{what: {way: {key: array}}}``; a way is a mesh, such as ``2x4``."""
    tree: dict = {}
    for name, value in np.load(folder / "results.npz").items():
        what, way, key = name.split("/", 2)
        tree.setdefault(what, {}).setdefault(way, {})[key] = value
    return tree


def check_equal(found: dict, expected: dict, where: str) -> None:
    """Ids, ranks and masks exactly; scores and figures to rounding."""
    assert found.keys() == expected.keys(), where
    for key, value in expected.items():
        if key in ("items", "valid", "ranks"):
            assert_array_equal(found[key], value, err_msg=f"{where} {key}")
        else:
            assert_allclose(found[key], value, rtol=2e-5, atol=2e-6, err_msg=f"{where} {key}")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("what", ["evaluate", "recommend", "alone"])
def test_a_mesh_gives_what_one_device_gives(results, model, what):
    """``alone``: one history by itself on 8 devices, against the same one among 45 on one device."""
    names = [name for name in results if name.split(" ")[:2] == [what, model]]
    stochastic = model in ("diffurec", *LISTS_ALONE)
    assert names or (what == "alone" and not stochastic) or (what == "evaluate" and model in LISTS_ALONE)
    for name in names:
        ways = dict(results[name])
        expected = ways.pop("one")
        assert ways
        for way, found in ways.items():
            check_equal(found, expected, f"{name} on {way}")


def test_the_cases_are_what_they_are_said_to_be(results):
    """Ties across the parts of the table, lists that end early, figures that are not trivial."""
    plain = results["recommend bag plain"]["2x4"]
    parts = plain["items"] // 96
    tied = plain["scores"][:, 1:] == plain["scores"][:, :-1]
    assert (tied & (parts[:, 1:] != parts[:, :-1])).sum() > 10
    few = results["recommend bag few-left"]["1x8"]
    assert few["valid"].shape == (45, 400)
    assert set(few["valid"].sum(axis=1)) <= set(range(3, 7))
    assert not few["items"][~few["valid"]].any()
    assert results["recommend bag one-user"]["1x8"]["items"].shape == (1, 10)
    ranked = results["recommend bag own-candidates"]["2x4"]["items"]
    assert len(np.unique(ranked // 96)) == 4
    assert (results["recommend d-genatt"]["2x4"]["spread"] > 0).mean() > 0.5  # not of histories of one item
    assert not results["recommend sasrec"]["2x4"]["spread"].any()
    for model in ("bag", "sasrec", "diffurec", "popularity"):
        figures = results[f"evaluate {model}"]["1x8"]
        assert len(np.unique(figures["ranks"])) > 20
        assert figures["metric ild@10"] > 0 or model == "popularity"  # whose vectors are counts on one line
        assert 0 < figures["metric coverage@10"] < 1
        assert figures["metric category_ild@10"] > 0


@pytest.mark.parametrize("model", ["sasrec", "diffurec"])
def test_the_table_is_never_gathered(results, model):
    """Each device holds 96 of its 384 rows; no program makes them meet, and one that would is noticed."""
    found = dict(results[f"gathers {model}"]["2x4"])
    assert_array_equal(found.pop("part"), [96, 16])
    assert 384 in found.pop("the table itself")
    assert found.keys() == {"_table", "_query", "rank_users", "_recommend"}
    for program, rows in found.items():
        assert max(rows, default=0) <= 40, program  # users
    assert len(found["rank_users"])


def test_a_run_on_eight_devices_is_the_same_on_one(results, folder):
    """It was saved with its table in two parts, and ``parallel`` asks for all devices and two parts."""
    split = data.leave_one_out(data.simulate(num_users=40, num_items=150))
    run = jaxrec.load(folder / "run", split=split)
    assert run.config.parallel.model_devices == 2
    assert jax.device_count() == 1
    assert run.mesh is None
    expected = results["run"]["4x2"]
    frame = run.recommend(RUN_HISTORIES, k=5)
    assert_array_equal(frame["item_id"].to_numpy(), expected["items"])
    assert_allclose(frame["score"].to_numpy(), expected["scores"], rtol=1e-5, atol=1e-6)
    similar = run.similar_items(range(1, 120, 9), k=4)
    assert_array_equal(similar["similar_item_id"].to_numpy(), expected["similar"])
    assert_allclose(similar["score"].to_numpy(), expected["cosines"], rtol=1e-5, atol=1e-6)
    scores = run.score(RUN_HISTORIES, [3, 70, 141])["score"].to_numpy()
    assert_allclose(scores, expected["pair_scores"], rtol=1e-5, atol=1e-6)
    assert_array_equal(run.item_vectors()[1], expected["vectors"])
    assert run.evaluate("test", save=False)["ndcg@10"] == pytest.approx(float(expected["ndcg"]), rel=1e-6)
    validation = run.evaluate("validation", save=False)["ndcg@10"]
    assert validation == pytest.approx(float(expected["validation"]), rel=1e-6)
    assert validation > 0


def test_fewer_devices_than_asked_for(results):
    meshes = {name: tuple(shape) for name, shape in results["fallback"]["8"].items()}
    assert meshes == {"12 by 4": (2, 4), "12 by 6": (4, 2), "9 by 3": (8, 1), "all": (4, 2)}
    assert available_mesh(ParallelConfig(devices=8, model_devices=4)) is None


def test_a_foreign_mesh_is_refused():
    devices = np.asarray(jax.devices()).reshape(1, 1)
    with pytest.raises(
        ValueError, match=r"axes \('rows', 'columns'\), and ranking needs \('data', 'model'\)"
    ):
        several_devices(jax.sharding.Mesh(devices, ("rows", "columns")))
    assert several_devices(jax.sharding.Mesh(devices, ("data", "model"))) is None
