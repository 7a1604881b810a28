"""Stamps as people and programs write them: seconds with all their decimals, and dates."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal, DecimalException

from fvs_ros.sources.frame import SECOND_NS

# Seconds whose nanoseconds fit 64 bits: 290 years.
LARGEST_S = 9_000_000_000
# Before 2001-09-09 a stamp counts from the start of a robot or a simulation, and is no date.
_FIRST_DATE_S = 1_000_000_000


def parse_stamp(text: str) -> int:
    """Nanoseconds of a text in seconds, exactly: as floating-point numbers, stamps of this century are 200 ns apart.

    Raises:
        ValueError: it is none.
    """
    try:
        seconds = Decimal(text)
        if abs(seconds) <= LARGEST_S:
            return round(seconds * SECOND_NS)
    except DecimalException:
        pass
    raise ValueError(f"{text} is not a number of seconds up to {LARGEST_S}")


def stamp_text(stamp_ns: int) -> str:
    """A stamp in seconds, with all its decimals; `parse_stamp` gives it back."""
    sign, stamp_ns = "-" * (stamp_ns < 0), abs(stamp_ns)
    return f"{sign}{stamp_ns // SECOND_NS}.{stamp_ns % SECOND_NS:09d}"


def date_text(stamp_ns: int) -> str | None:
    """The date and time of a stamp, ISO 8601 in UTC, to the millisecond; None where it counts from something else."""
    if stamp_ns < _FIRST_DATE_S * SECOND_NS:
        return None
    seconds, rest = divmod(stamp_ns, SECOND_NS)
    date = datetime.fromtimestamp(seconds, timezone.utc).replace(microsecond=rest // 1_000_000 * 1_000)
    return date.isoformat(timespec="milliseconds")


def parse_date(text: str) -> int:
    """Nanoseconds of a date and time, ISO 8601; without an offset it is in UTC.

    Raises:
        ValueError: it is none.
    """
    # Python 3.10 does not know the letter.
    date = datetime.fromisoformat(f"{text[:-1]}+00:00" if text.endswith(("Z", "z")) else text)
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    since = date - datetime.fromtimestamp(0, timezone.utc)
    if abs(since.total_seconds()) > LARGEST_S:
        raise ValueError(f"{text} is more than {LARGEST_S} seconds from 1970")
    return (since.days * 86_400 + since.seconds) * SECOND_NS + since.microseconds * 1_000
