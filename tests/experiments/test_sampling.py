"""``sampling.py``: a diffusion run under other reverse processes, side by side, and as a table of the README."""

import dataclasses
import json

import pytest
from command_line import assert_one_sentence, experiment, run_here

import jaxrec
from jaxrec.data.source import DataConfig, load_split
from jaxrec.models.diffurec import DiffuRecRecommender
from jaxrec.models.diffurecsys import DiffuRecSysRecommender
from jaxrec.train.options import TrainConfig


@pytest.fixture(scope="module")
def split():
    return load_split(DataConfig(simulated_users=60, simulated_items=40))


@pytest.fixture(scope="module")
def run(tmp_path_factory, split):
    """A diffusion run after one epoch, to which its noise is plainly visible."""
    model = DiffuRecRecommender(max_length=8, width=16, num_layers=1, num_heads=2, uncertainty=0.5)
    config = jaxrec.Config(
        model=model,
        data=DataConfig(simulated_users=60, simulated_items=40),
        train=TrainConfig(epochs=1, batch_targets=64, steps_per_call=1, length_buckets=False),
    )
    return jaxrec.fit(config, split, tmp_path_factory.mktemp("sampling") / "diffurec-small")


@pytest.mark.slow
def test_rows_are_the_runs_evaluations(run, split, tmp_path, capsys):
    flags = ("--steps", "4,32", "--samples", "1,2", "--samplers", "ddpm,ddim", "--uncertainties", "0.5,0")
    outcome = run_here(
        "sampling.py", "--workdir", run.workdir, *flags, "--record", tmp_path, "--no-cache", capsys=capsys
    )
    assert outcome.code == 0, outcome.err
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("sampling-simulated-40-items-seed-0-")
    assert path.name.endswith("-diffurec-small.json")
    content = json.loads(path.read_text())
    rows = {
        (row["sampler"], row["uncertainty"], row["samples"], row["steps"]): row for row in content["rows"]
    }
    assert len(rows) == len(content["rows"]) == 16
    for samples in (1, 2):  # the run's own process
        expected = run.evaluate("validation", num_samples=samples, save=False)
        row = rows["ddpm", 0.5, samples, 32]
        assert {name: row[name] for name in ("hr@10", "ndcg@10")} == {
            name: expected[name] for name in ("hr@10", "ndcg@10")
        }
        assert row["users_per_second"] > 0
    # What is not seen of the target changes nothing: without λ, every process gives the same.
    blind = {row["ndcg@10"] for key, row in rows.items() if key[1] == 0}
    assert len(blind) == 1 < len({row["ndcg@10"] for row in rows.values()})
    assert content["protocol"]["part"] == "validation"
    assert str(tmp_path) not in path.read_text()
    lines = [line.split() for line in outcome.out.splitlines()]
    assert [
        "ddim",
        "4",
        "2",
        "0",
        *(f"{rows['ddim', 0, 2, 4][name]:.4f}" for name in ("hr@10", "ndcg@10")),
    ] in [line[:6] for line in lines]
    table = experiment("readme_tables").table_text("sampling-simulated", tmp_path)
    assert "| ddpm | 32 | 1 | 0.5 | " in table
    assert "python experiments/sampling.py --workdir diffurec-small --steps 4,32" in table


def test_records_of_another_part_or_ranking_have_names_of_their_own(run):
    sampling = experiment("sampling")
    usual = sampling.SamplingArguments(workdir=str(run.workdir))
    names = [
        sampling.marks(dataclasses.replace(usual, **changes), run)
        for changes in (
            {},
            {"split": "test"},
            {"exclude_seen": False},
            {"split": "test", "exclude_seen": False},
        )
    ]
    assert names == ["", "-test", "-seen-included", "-test-seen-included"]


def test_the_share_of_noise_of_a_run_is_for_ddim_alone(run):
    recommender = dataclasses.replace(run.recommender, sampler_kind="ddim", eta=0.5)
    noisy = dataclasses.replace(run, recommender=recommender)
    process = experiment("sampling").ReverseProcess
    for sampler, eta in (("ddpm", 0.0), ("ddim", 0.5)):
        assert process(sampler, 4, 1, 0.5).of(noisy).recommender.eta == eta


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--steps", "1,two"), ("--steps '1,two'", "numbers")),
        (("--samples", "0"), ("--samples '0'", "none below 1")),
        (("--steps", "33"), ("33 reverse steps", "between 1 and the 32")),
        (("--samplers", "euler"), ("'euler'", "'ddpm' or 'ddim'")),
    ],
)
def test_what_cannot_be_is_one_sentence(run, flags, words, capsys):
    outcome = run_here("sampling.py", "--workdir", run.workdir, *flags, "--no-cache", capsys=capsys)
    assert_one_sentence(outcome, *words)


def test_seen_items_are_treated_as_in_the_run(tmp_path):
    config = jaxrec.preset("diffurec", evaluation=jaxrec.config.EvaluationConfig(exclude_seen=False))
    (tmp_path / "config.json").write_text(json.dumps(jaxrec.config_to_json(config)))
    sampling = experiment("sampling")
    flags = ["--workdir", str(tmp_path)]
    plain = sampling.parse_sampling_arguments(flags)
    other = sampling.parse_sampling_arguments([*flags, "--exclude-seen"])
    assert (plain.exclude_seen, other.exclude_seen) == (False, True)
    assert "exclude-seen" not in sampling.shown_flags(plain, of_the_run=False)
    assert sampling.shown_flags(other, of_the_run=False).endswith(" --exclude-seen")
    assert sampling.shown_flags(plain, of_the_run=True).endswith(" --no-exclude-seen")


def test_a_run_without_a_reverse_process(split, tmp_path, capsys):
    jaxrec.fit(jaxrec.preset("popularity"), split, tmp_path / "run")
    outcome = run_here("sampling.py", "--workdir", tmp_path / "run", "--no-cache", capsys=capsys)
    assert_one_sentence(outcome, "PopularityRecommender", "no reverse process")


def test_a_learned_visibility_has_no_uncertainty(split, tmp_path, capsys):
    model = DiffuRecSysRecommender(
        form="history-cached", max_length=8, width=16, num_layers=1, num_heads=2, visibility="learned"
    )
    config = jaxrec.Config(
        model=model,
        data=DataConfig(simulated_users=60, simulated_items=40),
        train=TrainConfig(epochs=1, batch_targets=64, steps_per_call=1, length_buckets=False),
    )
    run = jaxrec.fit(config, split, tmp_path / "learned")
    flags = ("--workdir", run.workdir, "--steps", "2", "--no-timed", "--no-cache")
    outcome = run_here("sampling.py", *flags, capsys=capsys)
    assert outcome.code == 0, outcome.err
    assert ["sampler", "steps", "samples", "HR@10", "NDCG@10", "coverage@10"] in [
        line.split() for line in outcome.out.splitlines()
    ]
    refused = run_here("sampling.py", *flags, "--uncertainties", "0.1", capsys=capsys)
    assert_one_sentence(refused, "--uncertainties", "learned")


def test_data_given_from_python_must_be_named(run, split, tmp_path, capsys):
    given = dataclasses.replace(run, config=dataclasses.replace(run.config, data=None), workdir=None)
    given.save(tmp_path / "run")
    told = run_here("sampling.py", "--workdir", tmp_path / "run", "--no-cache", capsys=capsys)
    assert_one_sentence(
        told, f"the run {tmp_path / 'run'} was fitted on data given from Python", "give --data"
    )
