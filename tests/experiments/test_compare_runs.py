"""Runs of ``compare.py``: how their checkpoints are chosen, and where they lie."""

import json

import pytest
from command_line import experiment, run_here

SMALL = (
    *("--data.simulated-users", "60", "--data.simulated-items", "40", "--presets", "popularity"),
    *("--seeds", "0", "--timing-rounds", "0", "--no-cache"),
)
"""Models without training; random lists and popularity."""


@pytest.fixture
def compare(tmp_path, capsys, monkeypatch):
    """``compare.py`` with some flags in an empty folder, its runs below ``runs``."""
    monkeypatch.chdir(tmp_path)

    def run(*flags):
        outcome = run_here("compare.py", *SMALL, "--workdir", "runs", *flags, capsys=capsys)
        assert outcome.code == 0, outcome.err
        return outcome.out

    return run


def members_of(*flags):
    arguments = experiment("comparison.settings").parse_compare_arguments(list(flags))
    return experiment("comparison.members").make_members(arguments)


def test_all_checkpoints_are_chosen_in_one_way():
    for flags, exclude_seen in (((), True), (("--choose-seen-included",), False)):
        members = members_of("--presets", "sasrec,diffurec", *flags)
        assert {member.config.evaluation.exclude_seen for member in members} == {exclude_seen}


def test_runs_chosen_in_another_way_lie_elsewhere(compare, tmp_path):
    for choice in ((), ("--choose-seen-included", "--seen-included")):
        assert "finished before" not in compare(*choice, "--out", f"results/{len(choice)}")
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        "simulated",
        "simulated-chosen-seen-included",
    }
    content = json.loads((tmp_path / "results" / "2.json").read_text())
    assert set(content["protocols"]) == {"seen-excluded", "seen-included"}
    assert not any(run["config"]["evaluation"]["exclude_seen"] for run in content["runs"])
    assert "chosen_by" not in content["protocols"]["seen-excluded"]["protocol"]
    assert "no checkpoint was chosen" in (tmp_path / "results" / "2.md").read_text()
