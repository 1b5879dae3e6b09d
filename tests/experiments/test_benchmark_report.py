"""The records of ``benchmark.py``: merged into one file by row, shown by machine, drawn."""

import dataclasses
import json

import pytest
from command_line import experiment

experiment("benchmark")
from benchmarks import plots, report, rows, sections, settings  # noqa: E402

MACHINE = {
    "jaxrec": "0.1.0",
    "jax": "0.10",
    "python": "3.11",
    "platform": "cpu",
    "device": "cpu",
    "processor": "some processor",
    "cores": 2,
    "load_average": 0.1,
    "date": "2026-01-01T00:00:00+00:00",
}


def recommendation(users_per_second=1000.0, machine=MACHINE, **case):
    """A measured record of the section ``recommend``."""
    asked = {"preset": "sasrec", "dtype": "float32", **case}
    full = {**asked, "data": "log", "users": 50, "items": 20, "part": "bulk", "bulk_users": 50}
    results = {"users_per_second": users_per_second, "first_seconds": 1.0, "peak_memory_bytes": 1 << 30}
    times = {"repeats": 3, "median_seconds": 0.05}
    measured = rows.row(full, {**results, "memory_of": "process"}, times)
    request = {"case": asked, "settings": {}}
    return {
        "section": "recommend",
        **measured,
        "environment": machine,
        "request": request,
        "case_seconds": 2.0,
    }


def speeds(path):
    return [record["results"]["users_per_second"] for record in json.loads(path.read_text())["records"]]


def test_rows_are_replaced_by_case_and_machine(tmp_path):
    path, other = tmp_path / "b.json", {**MACHINE, "processor": "another", "cores": 8}
    first = report.Report(path, "first")
    first.add([recommendation(1.0)])
    first.add([recommendation(2.0, dtype="bfloat16")])
    second = report.Report(path, "second")
    second.add([recommendation(3.0)])
    second.add([recommendation(4.0, other)])
    assert speeds(path) == [2.0, 3.0, 4.0]
    content = json.loads(path.read_text())
    assert content["command"] == "first`; `second"
    assert [record["command"] for record in content["records"]] == ["first", "second", "second"]
    third = report.Report(path, "third")
    third.add([recommendation(5.0, dtype="bfloat16")])
    assert third.content["command"] == "second`; `third", "the first command gave no record any more"


def test_records_without_a_request_are_replaced_by_their_case(tmp_path):
    old = recommendation(1.0)
    del old["request"], old["case_seconds"]
    (tmp_path / "b.json").write_text(json.dumps({"kind": "benchmark", "command": "old", "records": [old]}))
    report.Report(tmp_path / "b.json", "new").add([recommendation(2.0)])
    assert speeds(tmp_path / "b.json") == [2.0]


def test_only_what_was_measured_here_is_measured_before(tmp_path):
    found = report.Report(tmp_path / "b.json", "command")
    found.add([recommendation()])
    request = recommendation()["request"]
    machine = {"environment": {**MACHINE, "date": "2027", "load_average": 9.0}}
    assert found.measured("recommend", request, machine) == found.content["records"]
    assert found.measured("training", request, machine) == []
    assert found.measured("recommend", {**request, "settings": {"repeats": 3}}, machine) == []
    newer = {"environment": {**MACHINE, "jaxrec": "0.2.0"}}
    assert found.measured("recommend", request, newer) == []
    for word in ("failed", "skipped"):
        missed = {
            name: value for name, value in recommendation().items() if name not in ("results", "timing")
        }
        found.add([{**missed, word: "no memory"}])
        assert found.measured("recommend", request, machine) == [], "it is tried again"


def test_a_request_knows_the_flags_that_matter(tmp_path):
    default, case = settings.Settings(), {"preset": "sasrec", "dtype": "float32"}
    assert sections.request_of(default, case) == {"case": case, "settings": {}}
    other = dataclasses.replace(default, json="x", again=True, presets=("sasrec", "stosa"), repeats=3)
    assert sections.request_of(other, case)["settings"] == {"repeats": 3}
    batches = dataclasses.replace(default, batch_targets=(512,))
    assert sections.request_of(batches, case)["settings"] == {"batch_targets": [512]}
    assert sections.request_of(batches, {**case, "batch_targets": 512})["settings"] == {}


def test_another_log_of_the_same_name_is_measured(tmp_path):
    case, found = {"preset": "sasrec", "dtype": "float32"}, report.Report(None, "command")
    requests = []
    for year, size in (("2023", 10), ("2024", 20)):
        (tmp_path / year).mkdir()
        (tmp_path / year / "log.csv").write_text("x" * size)
        asked = dataclasses.replace(settings.Settings(), data=str(tmp_path / year / "log.csv"))
        requests.append(sections.request_of(asked, case))
    assert requests[0]["settings"] == {"data": "log.csv", "data_bytes": 10}
    found.add([{**recommendation(), "request": requests[0]}])
    machine = {"environment": MACHINE}
    assert found.measured("recommend", requests[0], machine)
    assert not found.measured("recommend", requests[1], machine)
    old = {"case": case, "settings": {"data": "log.csv"}}  # from before the size was noted
    found.add([{**recommendation(), "request": old}])
    assert found.measured("recommend", requests[1], machine)


@pytest.mark.parametrize(
    ("text", "words"), [("{", "is not JSON"), ('{"kind": "comparison"}', "was not written by")]
)
def test_another_file_is_left_alone(tmp_path, text, words):
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        report.Report(tmp_path / "b.json", "command")
    assert (tmp_path / "b.json").read_text() == text


def test_markdown_names_every_machine_once(tmp_path):
    found = report.Report(tmp_path / "b.json", "command")
    found.add([recommendation(), recommendation(2000.0, dtype="bfloat16")])
    found.add([recommendation(machine={**MACHINE, "platform": "gpu", "device": "a GPU", "cores": 16})])
    text = (tmp_path / "b.md").read_text()
    assert (text.count("some processor"), text.count("a GPU, 16 cores")) == (1, 1)
    assert "| 2,000 users/s, first time 1 s, peak 1.00 GiB of the process | 3 x 0.05 s | 2026-01-01 |" in text


def training(devices, part="steps", steps=4, speed=100.0, **changes):
    case = {
        "preset": "sasrec",
        "devices": devices,
        "steps": steps,
        "batch_targets": 64,
        "part": part,
        **changes,
    }
    if devices > 1:
        case["device_kind"] = "fake "
    return {
        "section": "training",
        "case": case,
        "results": {"targets_per_second": speed},
        "environment": MACHINE,
    }


def test_curves_join_what_differs_in_one_value():
    records = [training(4, speed=3.0), training(1), training(2, speed=2.0), training(2, part="loop")]
    records += [training(1, steps=8), {"section": "training", "case": training(8)["case"], "skipped": "no"}]
    (curve,) = plots.curves(records, "training", "steps", "devices")
    assert [value for value, _ in curve.points] == [1, 2, 4]
    assert [record["results"]["targets_per_second"] for _, record in curve.points] == [100.0, 2.0, 3.0]
    (curve,) = plots.curves(records, "training", "steps", "steps")
    assert [value for value, _ in curve.points] == [4, 8]
    gpu = [{**record, "environment": {**MACHINE, "cores": n}} for n, record in enumerate(records)]
    assert plots.curves(gpu, "training", "steps", "devices") == [], "each on another machine"


def test_plots_are_drawn_of_what_there_is(tmp_path):
    def softmax(items):
        case = {"loss": "softmax", "dtype": "float32", "items": items, "width": 64, "part": "step"}
        results = {"step_seconds": items / 1e6, "peak_memory_bytes": 1 << 30}
        return {"section": "softmax", "case": case, "results": results, "environment": MACHINE}

    records = [training(1), training(2, speed=150.0), training(1, "loop", 4), training(1, "loop", 8)]
    records += [softmax(1000), softmax(10_000)]
    records += [training(1, batch_targets=size, preset="stosa") for size in (256, 512)]
    paths = plots.draw_plots({"records": records}, tmp_path / "b")
    assert [path.name for path in paths] == ["b-devices.png", "b-steps.png", "b-batch.png", "b-catalogue.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert plots.draw_plots({"records": [training(1)]}, tmp_path / "c") == []


def test_without_matplotlib_there_are_no_plots(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "missing", lambda packages: list(packages))
    assert plots.draw_plots({"records": [training(1), training(2)]}, tmp_path / "b") == []
