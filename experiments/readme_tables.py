"""Fills the tables of the READMEs from experiments/results; ``--check`` only says whether they are fresh.

A table stands between ``<!-- table:NAME -->`` and ``<!-- /table:NAME -->``, and is made from the JSON files
``NAME.json`` and ``NAME-*.json`` of the folder of results, in the order of their names. A file says by its
``kind`` what it is:

* ``benchmark``, as ``benchmark.py --json`` writes it; ``<!-- table:NAME SECTION ... -->`` shows only these of its
  sections, in this order;
* ``comparison``, as ``compare.py`` writes it; besides under its own name, ``compare-DATA.json`` is found by a
  table ``results-DATA``; beside it lies ``NAME.md`` with all figures, as beside a benchmark;
* ``sampling``, as ``sampling.py --record`` writes it;
* ``evaluation``: ``{"kind": "evaluation", "command": ..., "model": ..., "result": ...}``, the result as
  ``Run.evaluate`` returns and saves it, one file a model and data set.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sampling
from benchmarks.report import (
    HEADINGS,
    KIND,
    describe_environment,
    line_of,
    main_records,
    markdown_table,
)
from comparison.report import readme_table

REPOSITORY = Path(__file__).parents[1]
RESULTS_FOLDER = REPOSITORY / "experiments" / "results"
READMES = (REPOSITORY / "README.md", RESULTS_FOLDER / "README.md")
REPORT = "report"
"""Key under which a table finds the link to the page with all figures of its file."""
MARKED = re.compile(
    r"(?P<opening><!-- table:(?P<name>[\w-]+)(?P<sections>(?: \w+)*) -->\n).*?<!-- /table:(?P=name) -->",
    re.DOTALL,
)
OPENING = re.compile(r"<!-- table:([\w-]+)[ \w]* -->")
METRICS = {"hr@10": "HR@10", "ndcg@10": "NDCG@10", "coverage@10": "coverage@10"}


def benchmark_tables(contents: list[dict[str, Any]], sections: Sequence[str] = ()) -> str:
    """One table a file, under its machine, with a link to all rows and their commands.

    Args:
      contents: of the files.
      sections: that are shown, in this order; none stands for all. A file without them is left out.
    """
    parts = []
    for content in contents:
        measured = main_records(content)
        if not measured:
            raise ValueError(f"the benchmark of `{content['command']}` holds no measured record")
        order = sections or dict.fromkeys(record["section"] for record in measured)
        records = [record for section in order for record in measured if record["section"] == section]
        if not records:
            continue
        parts.append(
            f"{describe_environment(*records)} ([commands and all rows]({content[REPORT]})):\n\n"
            f"{markdown_table(HEADINGS, [line_of(record) for record in records])}"
        )
    return "\n\n".join(parts)


def evaluation_tables(contents: list[dict[str, Any]]) -> str:
    """One table of models for all; figures of different protocols say so in their row."""
    lines = []
    for content in contents:
        result, card = content["result"], content["result"]["protocol"]
        seen = "excluded" if card["exclude_seen"] else "included"
        cells = [f"{result[name]:.4f}" if name in result else "" for name in METRICS]
        lines.append(
            [
                f"{card['data']}, {card['split']}, seen items {seen}",
                content["model"],
                *cells,
                f"`{content['command']}`",
            ]
        )
    headings = ["data and protocol", "model", *METRICS.values(), "command"]
    return markdown_table(headings, lines)


def comparison_tables(contents: list[dict[str, Any]]) -> str:
    """One table a file, under its protocol, with a link to all figures and the command that made them."""
    return "\n\n".join(readme_table(content, content[REPORT]) for content in contents)


def sampling_tables(contents: list[dict[str, Any]]) -> str:
    """One table a file."""
    return "\n\n".join(sampling.readme_table(content) for content in contents)


KINDS: dict[str, Callable[..., str]] = {
    KIND: benchmark_tables,
    "evaluation": evaluation_tables,
    "comparison": comparison_tables,
    "sampling": sampling_tables,
}
RESULTS, COMPARE = "results-", "compare-"


def table_text(name: str, results: Path, sections: Sequence[str] = (), folder: Path | None = None) -> str:
    """The table of a name; empty where there is no file of it.

    Args:
      name: of the table.
      results: the folder of the files.
      sections: of a benchmark, to be shown; none stands for all.
      folder: of the README, from which links start; ``None`` is that of the results.

    Raises:
      ValueError: a file is not JSON, of an unknown kind, or of another kind than the others of the name;
        sections of something else, or of which nothing was measured.
    """
    names = [name, *([COMPARE + name.removeprefix(RESULTS)] if name.startswith(RESULTS) else [])]
    paths = sorted(
        {path for one in names for form in ("", "-*") for path in results.glob(f"{one}{form}.json")}
    )
    contents = []
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not JSON: {error}") from error
        if not isinstance(content, dict) or content.get("kind") not in KINDS:
            raise ValueError(f"{path} has no kind that a table is made of ({', '.join(KINDS)})")
        report = Path(os.path.relpath(path.with_suffix(".md"), folder or results)).as_posix()
        contents.append({**content, REPORT: report})
    kinds = {content["kind"] for content in contents}
    if len(kinds) > 1:
        raise ValueError(
            f"the files {name}*.json of {results} are of several kinds: {', '.join(sorted(kinds))}"
        )
    if not kinds:
        return ""
    (kind,) = kinds
    if not sections:
        return KINDS[kind](contents)
    text = KINDS[kind](contents, sections) if kind == KIND else ""
    if not text:
        raise ValueError(f"the files {name}*.json of {results} hold nothing of {', '.join(sections)}")
    return text


def refreshed(readme: str, results: Path, folder: Path) -> str:
    """A README, of a folder, with every table made anew.

    Raises:
      ValueError: a table has no end, or see ``table_text``.
    """
    found = [match["name"] for match in MARKED.finditer(readme)]
    opened = OPENING.findall(readme)
    if found != opened:
        odd = next(name for name in opened if opened.count(name) != found.count(name))
        raise ValueError(f"the table {odd} of the README has no <!-- /table:{odd} -->")

    def fill(match: re.Match) -> str:
        text = table_text(match["name"], results, match["sections"].split(), folder)
        inside = f"\n{text}\n\n" if text else ""
        return f"{match['opening']}{inside}<!-- /table:{match['name']} -->"

    return MARKED.sub(fill, readme)


def main(argv: list[str]) -> int:
    """Writes the READMEs, or with ``--check`` returns 1 if one is stale."""
    parser = argparse.ArgumentParser(
        "python experiments/readme_tables.py",
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--readme", type=Path, nargs="+", default=READMES, help="files with tables")
    parser.add_argument("--results", type=Path, default=RESULTS_FOLDER, help="folder of the JSON files")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a table is stale")
    arguments = parser.parse_args(argv)
    try:
        return max(refresh(path, arguments.results, check=arguments.check) for path in arguments.readme)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def refresh(path: Path, results: Path, *, check: bool) -> int:
    """Writes the tables of one README anew; 1 if it is stale and only to be checked."""
    former = path.read_text(encoding="utf-8")
    new = refreshed(former, results, path.parent)
    if new == former:
        print(f"the tables of {path} are fresh")
        return 0
    if check:
        print(f"the tables of {path} are stale; run python experiments/readme_tables.py")
        return 1
    path.write_text(new, encoding="utf-8")
    print(f"the tables of {path} are written anew")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
