"""Where the data of a run is: as its config records it, or for a run fitted from Python as ``--data`` says."""

import dataclasses
import json
from pathlib import Path

from console import DownloadBar

import jaxrec
from jaxrec.artifact_checks import DATA
from jaxrec.data.source import DataConfig, load_split, moved
from jaxrec.data.splits import Split

AS_GIVEN = DataConfig(source="", min_user=1, min_item=1)
"""The data section in the place of none: a log that is taken as it lies, split by leave-one-out."""


def source_of(run: jaxrec.Run, data: str) -> DataConfig:
    """The data section that gives a run's data again.

    Args:
      run: a loaded run.
      data: where its log is now, if ``--data`` says so. ``Run.evaluate`` checks that it is the same.

    Raises:
      ValueError: the run was fitted on data given from Python, and ``--data`` does not say where it is, or no flag
        could split it in the same way.
    """
    if run.config.data is not None:
        return moved(run.config.data, data)
    given = f"the run {run.workdir} was {run.given_from_python()}"
    if run.data["split"] != "leave-one-out":
        raise ValueError(
            f"{given}, split as {run.data['split']}; evaluate it from Python, by run.evaluate(split=...)"
        )
    if not data:
        raise ValueError(f"{given}; give --data, a file or folder with just the log that was split")
    return dataclasses.replace(AS_GIVEN, source=data)


def load_again(source: DataConfig, run: jaxrec.Run, bar: DownloadBar) -> Split:
    """The data of a run; where its training's path leads nowhere, the error says whose path it is."""
    try:
        return load_split(source, progress=bar)
    except FileNotFoundError as error:
        if run.config.data is None or source.source != run.config.data.source:
            raise
        raise FileNotFoundError(
            f"{error}: the run {run.workdir} was trained on it, so type this where that was, or give --data"
        ) from error


def check_source(source: DataConfig, settings: Path) -> None:
    """Refuses settings without data, as those of a run fitted from Python are.

    Raises:
      ValueError: there is no source.
    """
    if source.source:
        return
    card = settings.parent / DATA
    name = (
        f" under the name {json.loads(card.read_text(encoding='utf-8'))['data']!r}" if card.exists() else ""
    )
    raise ValueError(
        f"{settings} is of a run that was fitted on data given from Python{name}, so it does not say where that is;"
        " give --data"
    )


__all__ = ["AS_GIVEN", "check_source", "load_again", "source_of"]
