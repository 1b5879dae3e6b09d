"""``readme_tables.py``: fresh tables in the README, written from results, errors in one sentence."""

import json

import pytest
from command_line import ROOT, experiment

BENCHMARK = {
    "kind": "benchmark",
    "command": "python experiments/benchmark.py",
    "records": [
        {
            "section": "pipeline",
            "case": {"data": "toys", "max_length": 8, "steps": 2},
            "results": {"sequences_per_second": 2_500_000.0, "targets_per_second": 9_000_000.0},
            "timing": {},
            "environment": {
                "platform": "cpu",
                "processor": "Abacus",
                "device": "cpu",
                "cores": 2,
                "jaxrec": "0.1",
                "jax": "0.9",
                "python": "3.11",
                "date": "2026-01-02T03:04:05+00:00",
                "load_average": 0.1,
            },
        },
        {"section": "prepare", "case": {"rows": 5}, "skipped": "polars not installed"},
    ],
}
EVALUATION = {
    "kind": "evaluation",
    "command": "python experiments/train.py --preset sasrec",
    "model": "sasrec",
    "result": {
        "hr@10": 0.0931,
        "ndcg@10": 0.0552,
        "protocol": {"data": "toys", "split": "leave-one-out", "exclude_seen": True},
    },
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "speed-cpu.json").write_text(json.dumps(BENCHMARK))
    (tmp_path / "results.json").write_text(json.dumps(EVALUATION))
    (tmp_path / "README.md").write_text(
        "# a\n<!-- table:speed -->\nold\n<!-- /table:speed -->\n\n"
        "<!-- table:results -->\n<!-- /table:results -->\nend\n"
    )
    return tmp_path


def run(folder, *flags):
    return experiment("readme_tables").main(
        ["--readme", str(folder / "README.md"), "--results", str(folder), *flags]
    )


def test_tables_of_the_readme_are_fresh(capsys):
    assert experiment("readme_tables").main(["--check"]) == 0, capsys.readouterr().out
    assert (ROOT / "README.md").exists()


def test_writes_tables_and_finds_them_fresh(folder, capsys):
    assert run(folder, "--check") == 1
    assert "old" in (folder / "README.md").read_text(), "--check writes nothing"
    assert run(folder) == 0
    text = (folder / "README.md").read_text()
    assert "| Grain pipeline, toys, L 8, 2 batches a call | 2.50 M sequences/s, 9.0 M targets/s |" in text
    assert "Abacus, 2 cores; jaxrec 0.1, jax 0.9, Python 3.11; 2026-01-02" in text
    assert "polars" not in text
    assert "old" not in text
    assert (
        "| toys, leave-one-out, seen items excluded | sasrec | 0.0931 | 0.0552 |  |"
        " `python experiments/train.py --preset sasrec` |" in text
    )
    assert text.endswith("<!-- /table:results -->\nend\n")
    assert run(folder, "--check") == 0


def test_a_changed_result_makes_the_readme_stale(folder):
    run(folder)
    changed = json.loads(json.dumps(EVALUATION))
    changed["result"]["hr@10"] = 0.5
    (folder / "results.json").write_text(json.dumps(changed))
    assert run(folder, "--check") == 1


def test_sections_of_a_benchmark_by_choice(folder, capsys):
    record = BENCHMARK["records"][0]
    other = {
        **record,
        "section": "prepare",
        "case": {"rows": 5, "format": "csv"},
        "results": {"prepare_seconds": 2.0, "open_seconds": 0.001, "peak_memory_bytes": 2**30},
    }
    (folder / "speed-cpu.json").write_text(json.dumps({**BENCHMARK, "records": [record, other]}))
    readme = folder / "README.md"
    for sections in ("", " prepare", " prepare pipeline"):
        readme.write_text(f"<!-- table:speed{sections} -->\nold\n<!-- /table:speed -->\n")
        assert run(folder) == 0
        text = readme.read_text()
        found = {word: text.find(word) for word in ("preparing a log", "Grain pipeline")}
        shown = [word for word in sorted(found, key=found.get) if found[word] >= 0]
        assert len(shown) == (1 if sections == " prepare" else 2)
        assert shown[0] == ("preparing a log" if sections else "Grain pipeline")
        assert run(folder, "--check") == 0
    readme.write_text("<!-- table:speed training -->\n<!-- /table:speed -->\n")
    assert run(folder) == 2
    assert "hold nothing of training" in capsys.readouterr().err


@pytest.mark.parametrize("choice", ["excluded", "included"])
def test_a_comparison_shows_the_protocol_that_chose_its_checkpoints(folder, choice):
    card = {"data": "toys", "fingerprint": "f", "users": 3, "items": 4, "interactions": 9}
    card |= {"split": "leave-one-out", "part": "test", "candidates": "all items"}
    card |= {"chosen_by": f"validation ndcg@10, seen {choice}"}
    cards = {
        f"seen-{seen}": {**card, "exclude_seen": seen == "excluded"} for seen in ("excluded", "included")
    }
    means = {"seen-excluded": {"ndcg@10": 0.25}, "seen-included": {"ndcg@10": 0.125}}
    content = {
        "kind": "comparison",
        "protocols": {
            name: {"protocol": cards[name], "models": {"sasrec": {"mean": means[name]}}} for name in cards
        },
        "costs": {"sasrec": {"parameters": 7}},
        "timing": None,
        "runs": [{"seed": 0, "results": {name: {"protocol": cards[name]} for name in cards}}],
    }
    (folder / "diffusion-toys.json").write_text(json.dumps(content))
    (folder / "README.md").write_text("<!-- table:diffusion-toys -->\n<!-- /table:diffusion-toys -->\n")
    assert run(folder) == 0
    text = (folder / "README.md").read_text()
    assert ("0.2500" in text, "0.1250" in text) == (choice == "excluded", choice == "included")
    assert ("items of the history left out." in text) == (choice == "excluded")


def test_a_table_without_results_is_empty(folder):
    (folder / "results.json").unlink()
    run(folder)
    assert "<!-- table:results -->\n<!-- /table:results -->" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("results.json", "{", "is not JSON"),
        ("results.json", '{"kind": "poem"}', "has no kind"),
        ("results-b.json", json.dumps(BENCHMARK), "several kinds"),
        ("speed-cpu.json", json.dumps({**BENCHMARK, "records": []}), "no measured record"),
        ("README.md", "<!-- table:speed -->\n", "has no <!-- /table:speed -->"),
    ],
)
def test_what_cannot_be_used_is_named(folder, capsys, name, text, words):
    (folder / name).write_text(text)
    assert run(folder) == 2
    assert words in capsys.readouterr().err
