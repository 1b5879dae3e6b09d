"""Section ``peers``: asked and answered by a program of another interpreter; ratios by hand."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from command_line import EXPERIMENTS, experiment

from jaxrec.losses import GeneralizedBinaryLoss, SoftmaxLoss

experiment("benchmark")
from benchmarks import peers, report, settings  # noqa: E402

sys.path.insert(0, str(EXPERIMENTS / "benchmarks" / "peer_libraries"))
import exchange  # noqa: E402

QUICK = ("--quick", "--width", "8", "--simulated-users", "60", "--peer-users", "3")
ANSWER = """
import json, sys
request = json.load(sys.stdin)
assert request["library" if {broken} else "width"] == 8
figures = dict(epoch_seconds=[4.0, 2.0, 3.0], epoch_targets=60, epoch_share={share}, bulk_users=10, bulk_seconds=5.0)
json.dump(dict(figures, version="9", single_seconds=[0.5, 0.1], peak_memory_bytes=7), open(request["answer"], "w"))
"""


@pytest.fixture
def quick():
    return settings.parse_settings([*QUICK])


def pretend(monkeypatch, folder, *, broken=False, share=1.0):
    """A peer that answers at once, and figures of our own."""
    (folder / "rectools_sasrec.py").write_text(ANSWER.format(broken=broken, share=share))
    monkeypatch.setattr(peers, "PROGRAMS", folder)
    monkeypatch.setattr(peers, "installed_version", lambda python, library: "9")
    ours = {
        "device": "cpu",
        "training": {"targets_per_second": 600.0, "epoch_seconds": 0.1, "peak_memory_bytes": 3},
    }
    for ids, factor in (("", 10.0), (", own ids", 1.0)):
        ours[f"bulk{ids}"] = {"users_per_second": 40.0 * factor}
        ours[f"one user{ids}"] = {"p50_seconds": 0.1 / factor, "p99_seconds": 0.2}
    monkeypatch.setattr(peers, "run_apart", lambda name, **arguments: ours)


def test_ratios_are_speeds_over_the_peers(quick, tmp_path, monkeypatch):
    pretend(monkeypatch, tmp_path)
    training, bulk, one = peers.measure(quick, peers.cases(quick)[0])
    assert training["results"]["peer_targets_per_second"] == 20.0, "60 targets in the median of 3 s"
    assert training["results"]["times_as_fast"] == 30.0
    assert (bulk["results"]["peer_users_per_second"], bulk["results"]["times_as_fast"]) == (2.0, 20.0)
    assert one["results"]["peer_p50_seconds"] == pytest.approx(0.3)
    assert one["results"]["times_as_fast"] == pytest.approx(3.0)
    recbole = peers.cases(quick)[1]
    (tmp_path / "rectools_sasrec.py").rename(tmp_path / "recbole_sasrec.py")
    _, bulk, _ = peers.measure(quick, recbole)
    assert bulk["results"]["times_as_fast"] == 200.0, "beside our arrays, not our own ids"
    for row in (training, one):
        assert (row["case"]["version"], row["case"]["width"]) == ("9", 8)
        assert json.loads(json.dumps(row)) == row
        what, figure = report.line_of({"section": "peers", **row})
        assert "RecTools 9" in what
        assert "x as fast" in figure


def test_an_epoch_that_was_cut_short_counts_what_it_had(quick, tmp_path, monkeypatch):
    pretend(monkeypatch, tmp_path, share=0.25)
    training, *_ = peers.measure(quick, peers.cases(quick)[0])
    assert training["results"]["peer_epoch_seconds"] == 12.0, "3 s are a quarter"
    assert training["results"]["peer_targets_per_second"] == 5.0
    _, figure = report.line_of({"section": "peers", **training})
    assert "5 targets/s in 0.25 of an epoch" in figure


def test_a_limited_loader_ends_between_two_batches(monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr(exchange.time, "perf_counter", lambda: float(next(now)))
    whole, cut = exchange.Limited(list("abcd"), 0), exchange.Limited(list("abcd"), 2.0)
    assert ("".join(whole), whole.share) == ("abcd", 1.0)
    assert ("".join(cut), cut.share, len(cut)) == ("ab", 0.5, 4)
    assert cut.index("b") == 1, "all else is the loader's"


def test_a_peer_that_fails_is_told(quick, tmp_path, monkeypatch):
    pretend(monkeypatch, tmp_path, broken=True)
    (row,) = peers.measure(quick, peers.cases(quick)[0])
    assert row["failed"] == "rectools: KeyError: 'library'"


def test_a_peer_that_is_not_installed_is_told_in_one_line(quick, monkeypatch):
    monkeypatch.setattr(peers, "installed_version", lambda python, library: None)
    ways = ("pip install 'rectools[torch]'", "pip install 'recbole'", "git clone https://")
    for case, way in zip(peers.cases(quick), ways, strict=True):
        (row,) = peers.measure(quick, case)
        assert row["skipped"].startswith(f"{case['library']} is not there for this Python; {way}")
    (row,) = peers.measure(dataclasses.replace(quick, peers_python="other"), peers.cases(quick)[0])
    assert "for that Python" in row["skipped"]


def test_a_peer_with_a_loss_of_its_own_gets_ours_with_the_same(quick):
    rectools, _, gsasrec = peers.cases(quick)
    assert "loss" not in rectools
    assert isinstance(quick.config(rectools).model.loss_function, SoftmaxLoss)
    assert quick.config(gsasrec).model.loss_function == GeneralizedBinaryLoss(num_negatives=256, t=0.75)


def test_a_compute_type_is_asked_of_those_that_have_it(quick):
    both = dataclasses.replace(quick, dtypes=("float32", "bfloat16"))
    found = [(case["library"], case["dtype"]) for case in peers.cases(both)]
    assert found == [
        ("rectools", "float32"),
        ("rectools", "bfloat16"),
        ("recbole", "float32"),
        ("gsasrec", "float32"),
        ("gsasrec", "bfloat16"),
    ]


def test_code_that_is_no_package_needs_its_folder(quick, monkeypatch):
    monkeypatch.setattr(peers, "installed_version", lambda python, library: "2.9")
    (row,) = peers.measure(quick, peers.cases(quick)[2])
    assert "--gsasrec-folder" in row["skipped"]


@pytest.mark.slow
def test_our_own_figures(quick):
    quick = dataclasses.replace(quick, one_user_repeats=3)
    ours = peers.measure_ours(dataclasses.asdict(quick), peers.cases(quick)[0])
    assert ours["device"] == "cpu"
    assert ours["training"]["targets_per_second"] > 0
    for ids in ("", ", own ids"):
        assert ours[f"bulk{ids}"]["users_per_second"] > 0
        assert 0 < ours[f"one user{ids}"]["p50_seconds"] <= ours[f"one user{ids}"]["p99_seconds"]


def test_an_interpreter_says_what_it_has():
    assert peers.installed_version(sys.executable, "numpy") == np.__version__
    assert peers.installed_version(sys.executable, "no-such-package") is None
    with pytest.raises(RuntimeError, match="--peers-python nowhere cannot be run"):
        peers.installed_version("nowhere", "numpy")


def test_the_training_part_is_what_both_train_on():
    items = np.arange(1, 11, dtype=np.int32)
    histories = exchange.Histories(items, np.asarray([0, 4, 5, 10]), np.asarray([2, 5, 8]))
    assert histories.window_targets(2) == 1 + 0 + 2
    users, trained = histories.training()
    assert users.tolist() == [0, 0, 1, 2, 2, 2]
    assert trained.tolist() == [1, 2, 5, 6, 7, 8]
