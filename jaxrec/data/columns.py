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
    "title": "title name description itemname movietitle",
    "categories": "categories category genres genre",
}
"""Common column names of each role, as ``plain`` writes them, separated by blanks."""


def plain(name: str) -> str:
    """A column name for comparison: lower case, letters and digits only, without a ``:type`` ending."""
    return re.sub(r"[^a-z0-9]", "", name.partition(":")[0].lower())


def choose_column(
    path: Path, names: list[str], role: str, given: str | int | None, required: bool = True
) -> str | None:
    """The column of a role: the one given by name or place, or else the one with a common name.

    Args:
      path: the file, for messages.
      names: its columns.
      role: a key of ``KNOWN_NAMES``.
      given: a name, a place (0 is the first), or None to guess.
      required: whether it is an error to find none.

    Raises ValueError with the columns there are, if there is no such column or more than one.
    """
    there = f"the columns are {', '.join(names)}"
    if isinstance(given, int) and not isinstance(given, bool):
        if not 0 <= given < len(names):
            raise ValueError(f"{path} has no column {given} (counted from 0) for {role}; {there}")
        return names[given]
    if given is not None:
        if given not in names:
            raise ValueError(f"{path} has no column {given!r} for {role}; {there}")
        return given
    found = [name for name in names if plain(name) in KNOWN_NAMES[role].split()]
    if len(found) > 1:
        raise ValueError(f"{path}: {role} could be {' or '.join(found)}; say which with {role}=...; {there}")
    if not found and required:
        raise ValueError(f"{path} has no column that looks like {role}; name it with {role}=...; {there}")
    return found[0] if found else None


__all__ = ["KNOWN_NAMES", "choose_column", "plain"]
