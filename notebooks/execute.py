"""Runs notebooks from their first cell to their last and writes the outputs back; the tests use it too.

``python notebooks/execute.py [NOTEBOOK ...]`` runs all of this folder, or those named, each in an empty folder
of its own, so that nothing from an earlier run is taken up and no path of this machine gets into the outputs.
"""

import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
MACHINE_PATH = re.compile(r"/(?:home|root|tmp|work|Users|usr|opt|mnt)/[\w.-]+|[A-Z]:\\\\")


def run_notebook(path: Path, cwd: Path, *, timeout_seconds: int = 600) -> nbformat.NotebookNode:
    """A notebook with fresh outputs.

    Args:
      path: of the notebook; it is not changed.
      cwd: the folder that its cells see.
      timeout_seconds: of a cell.

    Raises:
      nbclient.exceptions.CellExecutionError: a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(cwd)}}
    NotebookClient(
        notebook, timeout=timeout_seconds, resources=resources, record_timing=False, kernel_name="python3"
    ).execute()
    notebook.metadata["language_info"] = {"name": "python"}  # without the version of this machine
    return notebook


def machine_paths(notebook: nbformat.NotebookNode) -> list[str]:
    """Paths of a machine in the outputs of a notebook."""
    return [
        found
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        for text in (output.get("text", ""), *map(str, output.get("data", {}).values()))
        if len(text) < 20_000  # pictures are not text
        for found in MACHINE_PATH.findall(text)
    ]


def main(names: list[str]) -> None:
    """Runs and writes back."""
    for path in map(Path, names) if names else sorted(FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            notebook = run_notebook(path, Path(folder))
        if machine_paths(notebook):
            raise SystemExit(f"{path}: its outputs hold paths of this machine: {machine_paths(notebook)}")
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main(sys.argv[1:])
