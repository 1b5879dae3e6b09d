"""Notebooks run from top to bottom in an empty folder, and lie here with their outputs."""

import copy
import importlib.util
from pathlib import Path

import nbformat
import pytest
from command_line import environment

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
# Every cell runs, for a shorter time and with fewer programs (240 users are one batch of one shape); the figures of a
# whole run lie in the notebook.
SHORTER = {
    "01_quickstart": {
        "num_users=2000": "num_users=240",
        "epochs=20": "epochs=2",
        "batch_targets=2048": "batch_targets=2048, length_buckets=False",
        "EncoderRecommender(width": "EncoderRecommender(num_layers=1, width",
    },
    "02_attention": {
        "num_users=800": "num_users=240",
        "epochs=7": "epochs=1",
        "evaluate_every=7": "evaluate_every=1",
        '"num_layers": 2': '"num_layers": 1',
        "plt.subplots(2, 5, figsize=(11, 4.8))\nfor column": "plt.subplots(1, 5, squeeze=False)\nfor column",
        "for layer in range(2)": "for layer in range(1)",
        "num_steps=250": "num_steps=10",
        "for channels in (1, 2, 4)": "for channels in (2,)",
        "for c in (1, 2, 4)": "for c in (2,)",
        "loglog([1, 2, 4], course": "loglog([2], course",
    },
    "03_diffusion": {
        "num_users=600": "num_users=240",
        '"DiffuRec": 30, "history-cached": 20': '"DiffuRec": 3, "history-cached": 2',
        "for count in (1, 2, 8, 32)": "for count in (8,)",
    },
    "04_scaling": {
        'os.environ["XLA_FLAGS"] = "': 'os.environ["XLA_FLAGS"] += " ',  # those of the tests stay
        "for steps in (1, 4, 16)": "for steps in (1, 4)",
        "for n in (2, 4, 8)": "for n in (2, 8)",
    },
}


def execute_module():
    spec = importlib.util.spec_from_file_location("execute", FOLDER / "execute.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def texts(notebook: nbformat.NotebookNode, kind: str) -> list[str]:
    """Outputs of a kind (``text/plain``, ``image/png``), in order."""
    return [
        output["data"][kind]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if kind in output.get("data", {})
    ]


def shortened(notebook: nbformat.NotebookNode, changes: dict[str, str]) -> nbformat.NotebookNode:
    """A copy with each text, which must be there once, replaced by another."""
    notebook = copy.deepcopy(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for text, other in changes.items():
        (place,) = (cell for cell in cells if text in cell.source)
        assert place.source.count(text) == 1
        place.source = place.source.replace(text, other)
    return notebook


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_lies_here_executed(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    assert execute_module().machine_paths(notebook) == []
    assert texts(notebook, "image/png")
    assert path.stat().st_size < 500_000


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    committed = nbformat.read(path, as_version=4)
    shorter = tmp_path / path.name
    nbformat.write(shortened(committed, SHORTER.get(path.stem, {})), shorter)
    notebook = execute_module().run_notebook(shorter, tmp_path)
    assert len(texts(notebook, "image/png")) == len(texts(committed, "image/png"))
    assert len(texts(notebook, "text/plain")) == len(texts(committed, "text/plain"))
    errors = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.get("name") == "stderr"
    ]
    assert errors == []


def test_paths_of_a_machine_are_found():
    output = nbformat.v4.new_output("stream", text="see /home/me/runs")
    cell = nbformat.v4.new_code_cell("1", outputs=[output])
    notebook = nbformat.v4.new_notebook(cells=[cell])
    assert execute_module().machine_paths(notebook) == ["/home/me"]
