"""``benchmark.py``: every section gives true records, in this process and as a person runs it."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from command_line import assert_one_sentence, experiment, run_apart, run_here

from jaxrec.batch import SequenceBatch
from jaxrec.losses import SampledSoftmaxLoss, SoftmaxLoss
from jaxrec.models.encoder import EncoderRecommender
from jaxrec.train.optimizer import OptimizerConfig, make_optimizer

experiment("benchmark")
from benchmarks import apart, dataset, device, report, sections, settings, timing  # noqa: E402

QUICK = ("--quick", "--width", "8", "--simulated-users", "100")


@pytest.fixture(scope="module")
def quick():
    return settings.parse_settings([*QUICK])


def rows_of(quick, section, number=0):
    module = sections.SECTIONS[section]
    return sections.measure_case(dataclasses.asdict(quick), section, module.cases(quick)[number])


def check_record(record):
    assert {"jaxrec", "jax", "device", "platform", "cores", "date"} <= record["environment"].keys()
    timed = record["timing"]
    assert timed["repeats"] >= 1
    assert 0 < timed["lowest_seconds"] <= timed["median_seconds"] <= timed["highest_seconds"]
    assert json.loads(json.dumps(record)) == record
    what, figure = report.line_of(record)
    assert what
    assert any(character.isdigit() for character in figure)


@pytest.mark.slow
def test_training_measures_the_loop_and_each_bucket(quick):
    loop, epoch, *steps = rows_of(quick, "training")
    for record in (loop, epoch, *steps):
        check_record(record)
    assert (loop["case"]["part"], epoch["case"]["part"]) == ("loop", "steps")
    assert loop["case"]["feed"] == "host", "on a CPU"
    assert {record["case"]["length"] for record in steps} <= {4, 8}
    results = loop["results"]
    assert results["tokens_per_second"] >= results["targets_per_second"] > 0
    assert loop["timing"]["repeats"] == quick.epochs
    arrays = quick.arrays()
    windows = np.minimum(np.maximum(arrays.train_ends - arrays.offsets[:-1] - 1, 0), 8).sum()
    per_epoch = results["targets_per_second"] * loop["timing"]["median_seconds"]
    assert windows / 3 < per_epoch < 3 * arrays.items.size
    for record in steps:
        assert 0 < record["results"]["share_of_matrix_product"] < 2
        assert record["results"]["compile_seconds"] > 0
        assert record["results"]["program_bytes"] > record["results"]["temporary_bytes"]
    check_epoch(quick, epoch["results"], steps)


def check_epoch(quick, results, steps):
    """The whole epoch's figures, from those of its buckets, counted by hand."""
    arrays, config = quick.arrays(), quick.config({"preset": "sasrec"})
    model = dataclasses.replace(config.model, num_items=arrays.num_items)
    plan = sections.SECTIONS["training"].plan_of(arrays, model, config)
    seconds = targets = 0.0
    for bucket, step in zip(plan.buckets, steps, strict=True):
        batches = bucket.num_rows / bucket.rows_per_batch
        seconds += batches * step["results"]["step_seconds"]
        targets += batches * step["results"]["step_seconds"] * step["results"]["targets_per_second"]
    assert results["epoch_seconds"] == pytest.approx(seconds)
    assert results["targets_per_second"] == pytest.approx(targets / seconds)
    assert results["compile_seconds"] == pytest.approx(
        sum(step["results"]["compile_seconds"] for step in steps)
    )


@pytest.mark.slow
def test_batches_made_on_the_device_train_the_same_windows(quick):
    """Under ``pmap``; that ``jit`` takes them from the device as well is in ``test_accelerator.py``."""
    quick = dataclasses.replace(
        quick, feeds=("device",), modes=("pmap",), steps=(1,), batch_targets=(128,), max_length=4
    )
    (case,) = sections.SECTIONS["training"].cases(quick)
    loop, epoch, *steps = sections.measure_case(dataclasses.asdict(quick), "training", case)
    for record in (loop, epoch, *steps):
        check_record(record)
        assert (record["case"]["feed"], record["case"]["steps"]) == ("device", 1)
        assert record["case"]["mode"] == "pmap"
        assert record["case"]["batch_targets"] == 128
    assert "batches made on the device" in report.line_of(loop)[0]


def test_every_mode_is_measured_on_every_number_of_devices(quick):
    quick = dataclasses.replace(quick, devices=(1, 2), modes=("jit", "pmap"))
    cases = sections.SECTIONS["training"].cases(quick)
    found = [(case["mode"], case["devices"]) for case in cases]
    assert found == [("jit", 1), ("jit", 2), ("pmap", 1), ("pmap", 2)]


def test_popularity_is_not_trained_but_recommends(quick):
    quick = dataclasses.replace(quick, presets=("popularity",))
    (record,) = rows_of(quick, "training")
    assert "not trained" in record["skipped"]
    for record in rows_of(quick, "recommend"):
        check_record(record)


def test_recommend_measures_many_and_one(quick):
    records = rows_of(quick, "recommend")
    parts = [record["case"]["part"] for record in records]
    assert parts == ["bulk", "one user", "bulk, own ids", "one user, own ids"]
    for record in records:
        check_record(record)
        assert record["case"]["users"] == 100
    assert records[0]["case"]["bulk_users"] == 100
    assert "for all users" in report.line_of(records[0])[0]
    one = records[1]["results"]
    assert one["p50_seconds"] <= one["p99_seconds"]


def test_pipeline_counts_all_sequences(quick):
    (record,) = rows_of(quick, "pipeline")
    check_record(record)
    results = record["results"]
    assert results["sequences_per_second"] <= results["targets_per_second"]
    assert results["targets_per_second"] <= record["case"]["max_length"] * results["sequences_per_second"]


def test_prepare_writes_and_reads_the_same_log(tmp_path):
    preparing = sections.SECTIONS["prepare"]
    rows = preparing.write_log(str(tmp_path), 3000)
    logs = []
    for kind in preparing.FORMATS:
        found = preparing.read_log(str(tmp_path / f"events.{kind}"), str(tmp_path / kind))
        assert found["seconds"] == pytest.approx(found["read_seconds"] + found["save_seconds"])
        assert found["peak_memory_bytes"] > 1 << 20
        logs.append(experiment("benchmarks.dataset").load_arrays(str(tmp_path / kind), users=1, items=1))
        header = json.loads((tmp_path / kind / "header.json").read_text())
        assert header["interactions"] == rows
    np.testing.assert_array_equal(logs[0].items, logs[1].items)


def test_prepare_tells_how_long_the_first_batch_takes(tmp_path):
    preparing = sections.SECTIONS["prepare"]
    rows = preparing.write_log(str(tmp_path), 3000)
    preparing.read_log(str(tmp_path / "events.parquet"), str(tmp_path / "log"))
    found = preparing.feed_log(str(tmp_path / "log"))
    parts = [found[f"{name}_seconds"] for name in ("open", "filter", "split", "plan", "first_call")]
    assert found["seconds"] == pytest.approx(sum(parts))
    assert min(parts) > 0
    assert found["sequences_per_second"] > 0
    assert found["calls"] == preparing.FEWEST_CALLS, "the log is smaller than that"
    case = {"rows": rows, "part": "first batch", "preset": "sasrec"}
    results = {"first_batch_seconds": found["seconds"], **found}
    assert "M sequences/s, peak" in preparing.describe(case, results)[1]


@pytest.mark.parametrize("number", [0, 1, 3])
def test_softmax_measures_loss_and_step(quick, number):
    (record,) = rows_of(quick, "softmax", number)
    check_record(record)
    results, case = record["results"], record["case"]
    assert case["loss"] == ("sampled_softmax" if number == 3 else "softmax")
    assert results["memory_beside_bytes"] + results["state_bytes"] < results["peak_memory_bytes"]
    assert results["state_bytes"] >= (2 if case["part"] == "loss" else 4) * 4 * case["items"] * case["width"]
    assert "limit_bytes" not in results


def test_softmax_that_does_not_fit_is_not_tried(quick, monkeypatch):
    module = sections.SECTIONS["softmax"]
    monkeypatch.setattr(module, "free_memory", lambda: 1 << 20)
    case = {"loss": "softmax", "dtype": "float32", "items": 1_000_000, "width": 128, "part": "step"}
    assert module.least_bytes(case) == 4 * 4 * 1_000_064 * 128, "parameters, gradients and two moments"
    (record,) = module.measure(quick, case)
    assert record["skipped"].startswith("it takes 1.91 GiB, and")


def test_softmax_holds_its_limits_or_says_so(quick):
    case = {"loss": "softmax", "dtype": "float32", "items": 1_000_000, "width": 128, "part": "step"}
    case |= {"batch": 128, "length": 50}
    results = {"step_seconds": 2.0, "targets_per_second": 3200.0, "peak_memory_bytes": 5e9}
    results |= {"limit_of": "peak_memory_bytes", "limit_bytes": 4e9, "within_limit": False}
    assert "NOT met" in sections.SECTIONS["softmax"].describe(case, results)[1]


@pytest.mark.slow
def test_diffusion_measures_training_and_the_reverse_process(quick):
    quick = dataclasses.replace(quick, repeats=1, one_user_repeats=2, max_length=4)
    number = [case["preset"] for case in sections.SECTIONS["diffusion"].cases(quick)].index(
        "diffurecsys-cached"
    )
    training, *rows = rows_of(quick, "diffusion", number)
    records = [training, *rows]
    for record in records:
        check_record(record)
        assert (record["case"]["width"], record["case"]["num_layers"]) == (8, 1)
    parts = [record["case"]["part"] for record in records]
    assert parts[0] == "training"
    assert set(parts[1:-2]) == {"step"}
    assert parts[-2:] == ["bulk", "one user"]
    assert "prefixes/s" in report.line_of(training)[1]
    assert report.line_of(records[-2])[0].endswith("32 reverse steps")
    assert records[-2]["case"]["bulk_users"] == quick.diffusion_users == 20


def test_diffusion_sizes_are_those_of_the_published_comparison():
    module = sections.SECTIONS["diffusion"]
    sizes = [tuple(case.values()) for case in module.cases(settings.Settings())]
    assert sizes == [
        ("diffurec", 128, 4, 50, "float32"),
        ("diffurecsys", 128, 4, 50, "float32"),
        ("diffurecsys-cached", 128, 4, 50, "float32"),
        ("diffurecsys", 256, 4, 100, "float32"),
        ("diffurecsys-cached", 256, 4, 100, "float32"),
    ]
    some = module.cases(dataclasses.replace(settings.Settings(), presets=("sasrec", "diffurec")))
    assert [case["preset"] for case in some] == ["diffurec"]
    model = settings.Settings().config(module.cases(settings.Settings())[4]).model
    assert (model.width, model.num_layers, model.max_length) == (256, 4, 100)


def test_a_large_log_wants_room_on_the_disk(quick):
    (record,) = sections.SECTIONS["prepare"].measure(quick, {"rows": 10**14})
    assert record["skipped"].startswith("the files take 10,000,000 GB, and")


def test_flops_of_a_step_are_those_of_its_matrix_products():
    """Six FLOPs a token and weight of the encoder, six a token and entry of the item table."""
    model = EncoderRecommender(num_items=511, width=32, max_length=16, num_layers=1, dropout_rate=0.0)
    optimizer = make_optimizer(OptimizerConfig(name="sgd"), steps_per_epoch=1, total_steps=1)
    shape = (16, 16)
    ones = np.ones(shape, np.int32)
    batch = SequenceBatch(ones, ones, np.ones(shape, np.float32))
    flops = device.step_flops(model, optimizer, batch)
    expected = 6 * 256 * (6 * 32 * 32 + 512 * 32)
    assert expected < flops < 1.5 * expected
    blocks = dataclasses.replace(model, loss_function=SoftmaxLoss(block=32))
    assert device.step_flops(blocks, optimizer, batch) == flops, "a loop over blocks counts in full"
    sampled = dataclasses.replace(model, loss_function=SampledSoftmaxLoss(num_negatives=64, block=32))
    whole = dataclasses.replace(model, loss_function=SampledSoftmaxLoss(num_negatives=64, block=256))
    assert device.step_flops(sampled, optimizer, batch) == device.step_flops(whole, optimizer, batch) < flops
    half_weights = np.repeat([1.0, 0.0], 8)[:, None] * np.ones(16)
    half = dataclasses.replace(batch, weights=half_weights.astype(np.float32))
    assert flops - device.step_flops(blocks, optimizer, half) == 6 * 128 * 512 * 32


def test_times_stop_at_the_budget():
    calls = []
    times = timing.repeat(lambda: calls.append(1), repeats=5, warmups=2, budget_seconds=0.0)
    assert (len(calls), len(times.wall)) == (3, 1)
    assert len(timing.repeat(lambda: calls.append(1), repeats=5).wall) == 5
    record = timing.Times([1.0, 2.0, 6.0], [0.5, 0.5, 0.5], 1).record()
    assert (record["median_seconds"], record["lowest_seconds"], record["highest_seconds"]) == (2.0, 1.0, 6.0)


def test_without_polars_simulated_data_and_folders_are_read(monkeypatch, tmp_path):
    with_polars = dataset.load_arrays("simulated", users=50, items=60)
    with_polars.split.interactions.save(tmp_path / "log")
    monkeypatch.setattr(dataset, "missing", lambda packages: list(packages))
    from_folder = dataset.load_arrays(str(tmp_path / "log"), users=1, items=1)
    simulated = dataset.load_arrays("simulated", users=50, items=60)
    np.testing.assert_array_equal(from_folder.items, with_polars.items)
    np.testing.assert_array_equal(from_folder.train_ends, with_polars.train_ends)
    assert (from_folder.split, simulated.num_users, simulated.num_items) == (None, 50, 60)
    with pytest.raises(ValueError, match=r"without polars events\.csv cannot be read"):
        dataset.load_arrays("events.csv", users=1, items=1)


def test_a_section_without_its_packages_is_skipped(monkeypatch, quick):
    monkeypatch.setattr(sections, "missing", lambda packages: list(packages))
    (record,) = sections.run_case(quick, "pipeline", {"preset": "sasrec"})
    assert record["skipped"] == "grain not installed"


def test_flags_without_tyro_are_the_same(monkeypatch):
    argv = [
        "--presets",
        "sasrec,popularity",
        "--devices",
        "1,2",
        "--no-quick",
        "--epochs",
        "2",
        "--data",
        "x",
    ]
    expected = settings.parse_settings(argv)
    monkeypatch.setattr(settings, "missing", lambda packages: list(packages))
    assert settings.parse_settings(argv) == expected
    assert expected.presets == ("sasrec", "popularity")
    assert expected.devices == (1, 2)


def test_what_fails_in_its_process_is_told():
    with pytest.raises(RuntimeError, match="no preset 'nothing'"):
        apart.run_apart("jaxrec.presets:preset", name="nothing")
    assert apart.run_apart("benchmarks.dataset:missing", packages=["numpy", "no_such"]) == ["no_such"]


def test_wrong_flags(capsys):
    outcome = run_here("benchmark.py", "--sections", "trainin", capsys=capsys)
    assert_one_sentence(outcome, "there is no section 'trainin'; did you mean 'training'?")
    assert_one_sentence(
        run_here("benchmark.py", "--epochs", "0", capsys=capsys), "--epochs must be at least 1"
    )
    outcome = run_here("benchmark.py", "--model-devices", "3", "--devices", "2,4", capsys=capsys)
    assert_one_sentence(outcome, "--model-devices 3 divides none of --devices 2,4")


@pytest.mark.slow
def test_as_a_person_runs_it(tmp_path):
    flags = ("--devices", "1,2", "--max-length", "4", "--sections", "training", "prepare")
    outcome = run_apart("benchmark.py", *QUICK, *flags, "--json", tmp_path / "out", cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    content = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert "--quick" in content["command"]
    loops = [record for record in content["records"] if record["case"].get("part") == "loop"]
    assert sorted((record["case"]["mode"], record["case"]["devices"]) for record in loops) == [
        ("jit", 1),
        ("jit", 2),
    ]
    markdown = (tmp_path / "out" / "benchmark.md").read_text()
    assert "## training" in markdown
    assert "(csv)" in markdown
    assert "targets/s" in outcome.out
    assert sys.executable not in outcome.out
    assert "2 fake devices" in markdown
    assert (tmp_path / "out" / "benchmark-devices.png").stat().st_size > 1000
    again = run_apart("benchmark.py", *QUICK, *flags, "--json", tmp_path / "out", cwd=tmp_path)
    assert again.code == 0, again.err
    assert again.out.count("measured before") == 3
    assert json.loads((tmp_path / "out" / "benchmark.json").read_text()) == content


def test_users_are_spread_over_the_log():
    offsets = np.arange(11)
    arrays = dataset.Arrays("some", np.ones(10, np.int32), offsets, offsets[1:], 1)
    assert arrays.spread_users(4).tolist() == [0, 2, 5, 7]
    assert arrays.spread_users(0).tolist() == arrays.spread_users(20).tolist() == list(range(10))
