"""Which column is which: names that logs commonly use, and clear words where that fails."""

import re
from pathlib import Path

KNOWN_NAMES = {
    "user": """
        user userid uid useridx reviewerid customer customerid visitor visitorid member memberid
        account accountid username profileid playerid steamid
    """,
    "item": """
        item itemid iid itemidx movie movieid product productid asin parentasin sku stockcode track trackid
        song songid artist artistid book bookid isbn article articleid business businessid video videoid
        game gameid app appid content contentid
    """,
    "time": """
        time timestamp ts datetime date unixtime unixreviewtime eventtime createdat invoicedate reviewtime
    """,
    "position": "pos position order seq sequence",
    "rating": "rating ratings overall score stars",
    "title": "title name itemname movietitle description",
    "categories": "categories category genres genre",
}
"""Common column names of each role, as ``plain`` writes them, separated by blanks; the likelier title comes first."""


HEADERLESS = "pass has_header=False with places, user=0, item=1 (prepare.py: --no-header --user 0 --item 1)"
"""What to do about a text file whose first line does not name the columns."""


def plain(name: str) -> str:
    """A column name for comparison: lower case, letters and digits only, without a ``:type`` ending."""
    return re.sub(r"[^a-z0-9]", "", name.partition(":")[0].lower())


def choose_column(
    path: Path,
    names: list[str],
    role: str,
    given: str | int | None,
    required: bool = True,
    *,
    advice: str | None = None,
    has_header: bool = False,
    take_first: bool = False,
) -> str | None:
    """The column of a role: the one given by name or place, or else the one with a common name.

    Args:
      path: the file, for messages.
      names: its columns.
      role: a key of ``KNOWN_NAMES``.
      given: a name, a place (0 is the first), or None to guess.
      required: whether it is an error to find none.
      advice: what a message tells the caller to do where the guess fails; None says to name the column.
      has_header: whether the names were read from the first line of a text file, which may have been data.
      take_first: whether of several columns the one is taken whose name comes first in ``KNOWN_NAMES``.

    Raises ValueError with the columns there are, if there is no such column, or more than one and not ``take_first``.
    """
    there = f"the columns are {', '.join(names)}"
    advice = advice or f"name it with {role}=..."
    if isinstance(given, int) and not isinstance(given, bool):
        if not 0 <= given < len(names):
            raise ValueError(f"{path} has no column {given} (counted from 0) for {role}; {there}")
        return names[given]
    if given is not None:
        if given not in names:
            raise ValueError(f"{path} has no column {given!r} for {role}; {there}")
        return given
    known = KNOWN_NAMES[role].split()
    found = [name for name in names if plain(name) in known]
    if take_first:
        found = sorted(found, key=lambda name: known.index(plain(name)))[:1]
    if len(found) > 1:
        raise ValueError(f"{path}: {role} could be {' or '.join(found)}; {advice}; {there}")
    if not found and required:
        if has_header and any(map(_is_number, names)):
            advice = f"if its first line is data, {HEADERLESS}, else {advice}"
        raise ValueError(f"{path} has no column that looks like {role}; {advice}; {there}")
    return found[0] if found else None


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


__all__ = ["KNOWN_NAMES", "choose_column", "plain"]
