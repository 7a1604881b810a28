"""Stamps as texts, and back."""

from __future__ import annotations

import pytest

from fvs_ros.sources.stamps import LARGEST_S, date_text, parse_date, parse_stamp, stamp_text


@pytest.mark.parametrize("stamp_ns", [0, 5, -5, 999_999_999, 1_700_000_000_000_000_005, -1_000_000_001])
def test_a_stamp_survives_to_the_nanosecond(stamp_ns: int) -> None:
    assert parse_stamp(stamp_text(stamp_ns)) == stamp_ns


def test_a_stamp_is_seconds_with_nine_decimals() -> None:
    assert stamp_text(12_500_000_000) == "12.500000000"
    assert stamp_text(-1) == "-0.000000001"
    assert parse_stamp("12.5") == parse_stamp(" 1.25e1 ") == 12_500_000_000


@pytest.mark.parametrize("text", ["", "now", "nan", "inf", str(LARGEST_S + 1), "-1e30", "1e999999999"])
def test_what_is_no_stamp_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number of seconds"):
        parse_stamp(text)


def test_dates_are_in_utc_unless_they_say_otherwise() -> None:
    stamp_ns = 1_700_000_000_250_000_000
    assert date_text(stamp_ns) == "2023-11-14T22:13:20.250+00:00"
    for text in (
        "2023-11-14T22:13:20.250Z",
        "2023-11-14T22:13:20.250",
        "2023-11-14 23:13:20.250+01:00",
        str(date_text(stamp_ns)),
    ):
        assert parse_date(text) == stamp_ns
    assert parse_date("1969-12-31T23:59:59Z") == -1_000_000_000


def test_stamps_that_count_from_a_start_are_no_dates() -> None:
    assert date_text(12_500_000_000) is None


@pytest.mark.parametrize("text", ["", "yesterday", "2023-13-01T00:00:00", "Z", "9999-01-01T00:00:00"])
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"Invalid|must be in|more than"):
        parse_date(text)
