"""``accelerator.py``: stages whose flags are understood, limits of time, going on, taking results along."""

import dataclasses
import json
import sys
import time
from pathlib import Path

import pytest
from command_line import experiment

accelerator = experiment("accelerator")
from accelerator_stages import Plan, Stage  # noqa: E402

SLEEPER = """
import sys, time, pathlib
path = pathlib.Path(sys.argv[1])
path.write_text(path.read_text() + "x" if path.exists() else "x")
time.sleep(float(sys.argv[2]))
sys.exit(int(sys.argv[3]))
"""


@pytest.mark.parametrize("small", [False, True])
def test_every_command_is_understood(tmp_path, small):
    parsers = {
        "benchmark.py": experiment("benchmarks.settings").parse_settings,
        "compare.py": experiment("comparison.settings").parse_compare_arguments,
    }
    stages = Plan(tmp_path, "beauty.gz", "ml-1m.gz", small=small).stages()
    assert len({stage.name for stage in stages}) == len(stages)
    presets = set()
    for stage in stages:
        assert stage.limit_seconds > 0
        for script, *flags in stage.commands:
            found = parsers[script](flags)
            if script == "compare.py":
                presets |= set(found.names)
                assert found.seed_numbers == ([0] if small else [0, 1, 2])
                assert str(tmp_path) in found.workdir
                experiment("comparison.members").make_members(found)
            else:
                cases = experiment("benchmark").SECTIONS[found.sections[0]].cases(found)
                assert cases
                assert found.json.startswith(str(tmp_path))
    trained = {
        "sasrec",
        "stosa",
        "awrsr",
        "vgenatt",
        "dgenatt",
        "diffurec",
        "diffurecsys",
        "diffurecsys-cached",
    }
    assert presets == trained


@pytest.fixture
def stage_of(tmp_path, monkeypatch):
    """Makes a stage of one command that notes its runs, sleeps, and leaves with a code; and takes its place."""
    (tmp_path / "sleep.py").write_text(SLEEPER)
    monkeypatch.setattr(accelerator, "EXPERIMENTS", tmp_path)
    monkeypatch.setattr(accelerator, "GRACE_SECONDS", 1.0)

    def make(name="one", seconds=0.0, code=0, limit=30.0):
        command = ("sleep.py", str(tmp_path / f"{name}.runs"), str(seconds), str(code))
        return Stage(name, "sleeping", limit, (command, command))

    def use(*stages):
        monkeypatch.setattr(accelerator.Plan, "stages", lambda plan: list(stages))

    make.use = use
    return make


def run(tmp_path, *flags):
    return accelerator.main(["--out", str(tmp_path / "out"), *flags])


def runs(tmp_path, name="one"):
    path = tmp_path / f"{name}.runs"
    return len(path.read_text()) if path.exists() else 0


def test_finished_stages_are_not_run_again(tmp_path, stage_of, capsys):
    stage_of.use(stage_of("one"), stage_of("two", code=1))
    assert run(tmp_path) == 1
    state = json.loads((tmp_path / "out" / "stages.json").read_text())
    assert (state["one"]["finished"], state["two"]["finished"]) == (True, False)
    assert state["two"]["codes"] == [1, 1]
    assert run(tmp_path) == 1
    assert (runs(tmp_path, "one"), runs(tmp_path, "two")) == (2, 4)
    assert run(tmp_path, "--again", "--stages", "one") == 0
    assert runs(tmp_path, "one") == 4
    assert "finished before" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no stage 'three'; there are one, two"):
        run(tmp_path, "--stages", "three")


def test_a_stage_that_was_finished_with_other_flags_is_run(tmp_path, stage_of):
    one = stage_of("one")
    stage_of.use(one)
    assert run(tmp_path, "--small") == 0
    assert run(tmp_path) == 0
    assert runs(tmp_path) == 4, "what was tried at tiny sizes is measured"
    assert run(tmp_path) == 0
    assert runs(tmp_path) == 4
    script, *flags = one.commands[0]
    stage_of.use(dataclasses.replace(one, commands=((script, *flags, "--seeds", "1"),)))
    run(tmp_path)
    assert runs(tmp_path) == 5


def test_a_stage_ends_at_its_limit(tmp_path, stage_of):
    stage_of.use(stage_of("one", seconds=60.0, limit=1.5))
    start = time.monotonic()
    assert run(tmp_path) == 3
    assert time.monotonic() - start < 20.0
    record = json.loads((tmp_path / "out" / "stages.json").read_text())["one"]
    assert (record["out_of_time"], record["finished"], len(record["codes"])) == (True, False, 1)
    assert runs(tmp_path) == 1, "the second command did not begin"


def test_no_stage_begins_when_the_minutes_are_over(tmp_path, stage_of, capsys):
    stage_of.use(stage_of("one"))
    assert run(tmp_path, "--minutes", "0.4") == 3
    assert "no time left" in capsys.readouterr().out
    assert runs(tmp_path) == 0


def test_results_are_taken_along(tmp_path, stage_of):
    stage_of.use(stage_of("one"))
    out, archive = tmp_path / "out", tmp_path / "results.tar.gz"
    for name in ("runs/a/checkpoints/1/big", "runs/a/comparison/x.json", "site/package.py", "benchmark.json"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(name)
    assert run(tmp_path, "--pack", str(archive)) == 0
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "benchmark.json").write_text("newer")
    assert accelerator.main(["--out", str(tmp_path / "elsewhere"), "--unpack", str(archive)]) == 0
    assert runs(tmp_path) == 2, "known as finished"
    left = {str(path.relative_to(tmp_path / "elsewhere")) for path in (tmp_path / "elsewhere").rglob("*.*")}
    assert left == {"runs/a/comparison/x.json", "benchmark.json", "stages.json", "logs/one.log"}
    assert (tmp_path / "elsewhere" / "benchmark.json").read_text() == "newer"


def test_wheels_of_missing_packages_only_are_installed(tmp_path, monkeypatch, capsys):
    commands = []
    monkeypatch.setattr(accelerator.subprocess, "run", lambda command, check: commands.append(command))
    for name in ("numpy-9.9-py3-none-any.whl", "No_Such.thing-1.0-py3-none-any.whl"):
        (tmp_path / name).touch()
    accelerator.install(tmp_path, tmp_path / "out")
    (command,) = commands
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert [part for part in command if part.endswith(".whl")] == [
        str(tmp_path / "No_Such.thing-1.0-py3-none-any.whl")
    ]
    assert "installed No_Such.thing" in capsys.readouterr().out


@pytest.mark.slow
def test_a_small_stage_as_a_person_runs_it(tmp_path):
    """One of a single case; that the plots of several are drawn is in ``test_benchmark.py``."""
    assert run(tmp_path, "--small", "--stages", "fused") == 0
    content = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert not [record for record in content["records"] if "failed" in record or "skipped" in record]
    assert {record["section"] for record in content["records"]} == {"training"}
    cases = [record["case"] for record in content["records"]]
    assert {(case["feed"], case["mode"], case["fused"]) for case in cases} == {("device", "jit", True)}


def test_the_help_shows_defaults_and_one_stage_a_line(capsys):
    with pytest.raises(SystemExit):
        accelerator.parse(["--help"])
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert {stage.name for stage in Plan(Path(), "", "").stages()} <= set(lines)
    assert any(line.endswith("(default: runs/accelerator)") for line in lines)
