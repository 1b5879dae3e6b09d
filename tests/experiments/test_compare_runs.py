"""Runs of ``compare.py``: their data sets, how their checkpoints are chosen, their sources, where they lie."""

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
        places = ("--workdir", "runs", *(() if "--out" in flags else ("--out", "results/small")))
        outcome = run_here("compare.py", *SMALL, *places, *flags, capsys=capsys)
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


def test_each_data_set_has_results_of_its_own_and_one_page_shows_all(compare, tmp_path):
    users, times = range(12), range(7)
    events = [f"{user},{(user * 3 + time) % 10},{time}" for user in users for time in times]
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "toys.csv").write_text("\n".join(["user,item,time", *events]))
    items = [f"{item}\ttoy {item}\tkind {item % 2}" for item in range(10)]
    (tmp_path / "items.tsv").write_text("\n".join(["item\ttitle\tcategories", *items]))
    more = (
        *(
            "--more-data",
            str(tmp_path / "others" / "toys.csv"),
            "--more-items",
            f"toys={tmp_path / 'items.tsv'}",
        ),
        *("--seen-included", "--out", "results/both"),
    )
    compare(*more)
    results = {path.name for path in (tmp_path / "results").iterdir()}
    assert {"both.md", "both-simulated.json", "both-toys.json", "both-toys.md"} <= results
    assert (tmp_path / "runs" / "toys" / "popularity-seed0").is_dir()
    toys = json.loads((tmp_path / "results" / "both-toys.json").read_text())
    assert {run["results"]["seen-excluded"]["protocol"]["users"] for run in toys["runs"]} == {12}
    assert "cc@10" in toys["protocols"]["seen-excluded"]["models"]["popularity"]["mean"]
    assert "--more-data toys.csv --more-items toys=items.tsv" in toys["command"]
    page = (tmp_path / "results" / "both.md").read_text()
    assert page.count("| model | simulated: HR@10 | simulated: NDCG@10 | simulated: p | toys: HR@10 |") == 2
    line = next(line for line in page.splitlines() if line.startswith("| popularity |"))
    mean = toys["protocols"]["seen-excluded"]["models"]["popularity"]["mean"]
    assert f"| {mean['hr@10']:.4f} | {mean['ndcg@10']:.4f} |" in line
    for words in (
        "toys (12 users, 10 items",
        "(60 users, 40 items",
        "[toys](both-toys.md)",
        "Seen items included",
    ):
        assert words in page
    assert str(tmp_path) not in page
    assert compare(*more).count("finished before") == 4


def test_runs_are_evaluated_again_with_other_categories(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    events = [f"{user},{(user * 3 + time) % 10},{time}" for user in range(12) for time in range(7)]
    (tmp_path / "toys.csv").write_text("\n".join(["user,item,time", *events]))
    for number in (2, 5):
        items = [f"{item}\ttoy {item}\tkind {item % number}" for item in range(10)]
        (tmp_path / f"{number}.tsv").write_text("\n".join(["item\ttitle\tcategories", *items]))
    covered = []
    for items in ((), ("2.tsv",), ("5.tsv",), ("5.tsv",)):
        flags = (
            "--presets",
            "popularity",
            "--seeds",
            "0",
            "--timing-rounds",
            "0",
            "--no-cache",
            "--workdir",
            "runs",
        )
        metadata = [word for name in items for word in ("--data.items", name, "--data.items-id", "item")]
        places = ("--data", "toys.csv", *metadata, "--out", "results/toys")
        outcome = run_here("compare.py", *flags, *places, capsys=capsys)
        assert outcome.code == 0, outcome.err
        means = json.loads((tmp_path / "results" / "toys.json").read_text())["protocols"]["seen-excluded"]
        covered.append((means["models"]["popularity"]["mean"].get("cc@10"), "finished before" in outcome.out))
    assert [again for _, again in covered] == [False, False, False, True]
    assert covered[0][0] is None
    assert covered[1][0] != covered[2][0] == covered[3][0]


def test_tables_are_written_without_matplotlib(compare, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment("compare"), "missing", lambda packages: list(packages))
    assert "no plots, as matplotlib is not installed" in compare()
    assert {path.name for path in (tmp_path / "results").iterdir()} == {"small.json", "small.md"}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--more-data", "elsewhere/simulated.csv"), r"another data set is called simulated too"),
        (("--more-data", "a.csv", "--more-items", "items.tsv"), r"write NAME=FILE"),
        (
            ("--more-data", "toys.csv", "--more-items", "toy=items.tsv"),
            r"is called 'toy'; did you mean 'toys'",
        ),
    ],
)
def test_data_sets_that_cannot_stand_together_are_named(flags, words):
    arguments = experiment("comparison.settings").parse_compare_arguments(list(flags))
    with pytest.raises(ValueError, match=words):
        _ = arguments.of_each_data


def test_finished_runs_of_other_source_are_named(compare, tmp_path):
    source = experiment("comparison.source")
    compare()
    again = compare()
    assert again.count("finished before") == 2
    assert "note:" not in again
    file = tmp_path / "runs" / "simulated" / "popularity-seed0" / "comparison" / "seen-excluded.json"
    record = json.loads(file.read_text())
    assert record["facts"]["sources"] == [source.source_hash()]
    record["facts"]["sources"] = ["0123456789ab"]
    file.write_text(json.dumps(record))
    again = compare()
    assert again.count("finished before") == 2
    (note,) = [line for line in again.splitlines() if line.startswith("note:")]
    assert "popularity seed 0 (0123456789ab)" in note
    assert source.source_hash() in note
    assert "random" not in note
    del record["facts"]["sources"]
    file.write_text(json.dumps(record))
    again = compare()
    assert again.count("finished before") == 2
    assert "note:" not in again


@pytest.mark.parametrize(
    ("exclude_seen", "reported", "words"),
    [
        (True, ("seen-excluded", "seen-included"), "test NDCG@10 0.2000, HR@10 0.3000"),
        (False, ("seen-excluded", "seen-included"), "test NDCG@10 0.1000, HR@10 0.3000 (seen included)"),
        (False, ("seen-excluded",), "test NDCG@10 0.2000, HR@10 0.3000 (seen excluded)"),
    ],
)
def test_the_line_of_a_run_shows_validation_before_the_test(exclude_seen, reported, words):
    config = {"evaluation": {"exclude_seen": exclude_seen}}
    facts = {"config": config, "validation": {"ndcg@10": 0.25, "epoch": 12.0}}
    ndcg = {"seen-excluded": 0.2, "seen-included": 0.1}
    results = {protocol: {"ndcg@10": ndcg[protocol], "hr@10": 0.3} for protocol in reported}
    record = experiment("comparison.runs").RunRecord("sasrec", 0, facts, results, {})
    line = experiment("compare").describe_run(record)
    assert line == f"  validation NDCG@10 0.2500 (epoch 12.0); {words}"


def test_a_hash_follows_names_and_content(tmp_path):
    source_hash = experiment("comparison.source").source_hash.__wrapped__
    found = set()
    for name, text in (("a.py", "1"), ("a.py", "2"), ("b.py", "2")):
        folder = tmp_path / f"{len(found)}" / "nn"
        folder.mkdir(parents=True)
        (folder / name).write_text(text)
        (folder / "notes.txt").write_text(name)
        found.add(source_hash(folder.parent))
    assert len(found) == 3
    (folder / "notes.txt").write_text("other")
    assert source_hash(folder.parent) in found


def test_sources_of_a_training_that_goes_on_add_up(tmp_path):
    source = experiment("comparison.source")
    former = tmp_path / "former" / "sources.json"
    former.parent.mkdir()
    former.write_text('["0123456789ab"]')
    present = source.source_hash()
    for name, step, sources in (
        ("former", 8, ["0123456789ab", present]),
        ("older", 8, ["unknown", present]),
        ("fresh", 0, [present]),
    ):
        note = source.SourceNote(tmp_path / name)
        note.start(2, {"step": step})
        assert name == "former" or note.read() == []
        note.steps({"step": step + 4})
        assert note.read() == sources
