"""Which source of jaxrec made a run: a hash, since a version stands for many sources."""

import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jaxrec
from jaxrec import artifact
from jaxrec.train.logging import Record, Silent

if TYPE_CHECKING:
    from comparison.runs import RunRecord

SOURCES = "sources.json"
OLDER = "unknown"
"""Of a training that had begun before its source was noted."""
DIGITS = 12


@functools.cache
def source_hash(folder: Path = Path(jaxrec.__file__).parent) -> str:
    """Of the Python files below a folder, by name and content; read once, as a process keeps what it imported."""
    digest = hashlib.sha256()
    for name in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py")):
        digest.update(f"{name}\0".encode() + (folder / name).read_bytes() + b"\0")
    return digest.hexdigest()[:DIGITS]


class SourceNote(Silent):
    """Writes down which sources train a run, when they take their first step; it may be more than one."""

    def __init__(self, folder: Path):
        """Nothing is written yet.

        Args:
          folder: of the run, where what a comparison knows of it lies.
        """
        self._path, self._noted, self._goes_on = folder / SOURCES, False, False

    def start(self, total_epochs: int, record: Record) -> None:
        self._goes_on = record["step"] > 0

    def steps(self, record: Record) -> None:
        if not self._noted:
            self._noted = True
            former = (self.read() or [OLDER]) if self._goes_on else []
            artifact.write_json(self._path, list(dict.fromkeys([*former, source_hash()])))

    def read(self) -> list[str]:
        """The sources that have trained it, the first one first."""
        return json.loads(self._path.read_text(encoding="utf-8")) if self._path.exists() else []


def note_on_sources(finished: Sequence["RunRecord"]) -> str:
    """One sentence on finished runs that other source has made; empty where there are none.

    Args:
      finished: records that were only read; those from before sources were noted are taken as they are.
    """
    others = {
        f"{record.name} seed {record.seed}": [
            hash for hash in record.facts["sources"] if hash != source_hash()
        ]
        for record in finished
        if "sources" in record.facts
    }
    told = [f"{name} ({', '.join(hashes)})" for name, hashes in others.items() if hashes]
    if not told:
        return ""
    return (
        f"finished runs that other source of jaxrec than the present ({source_hash()}) has made: {', '.join(told)};"
        " they are taken as they are, and may differ from what this source makes; to make them anew, remove their"
        " directories"
    )


__all__ = ["SourceNote", "note_on_sources", "source_hash"]
