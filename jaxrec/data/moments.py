"""Times and shares at which a log is split, as people write them."""

import datetime
from collections.abc import Sequence

Moment = int | float | str | datetime.date


def check_fractions(fractions: Sequence[float]) -> None:
    """Raises ValueError unless these are three positive shares of a whole."""
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions are {tuple(fractions)}; give three positive shares that add up to 1")


def parse_moment(text: str) -> Moment | None:
    """A moment from a flag or a config: a number as in the log, or a date in ISO form; ``None`` if it is empty."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text or None


def as_number(moment: Moment) -> int | float:
    """A time as it stands, or the seconds since 1970 of a date (UTC where it names no zone)."""
    if isinstance(moment, str):
        try:
            moment = datetime.datetime.fromisoformat(moment)
        except ValueError as error:
            raise ValueError(f"{moment!r} is not a date in ISO form, such as '2024-05-31'") from error
    if isinstance(moment, datetime.date):
        if not isinstance(moment, datetime.datetime):
            moment = datetime.datetime(moment.year, moment.month, moment.day)
        moment = moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp()
        return int(moment) if moment == int(moment) else moment
    return moment


__all__ = ["Moment", "as_number", "check_fractions", "parse_moment"]
