"""lapse.next_slot: the time grid, checked against Python's own calendar and against its laws."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import databases

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",  # half hours
    "Australia/Lord_Howe",  # a clock change of half an hour
    "Asia/Kathmandu",
    "Pacific/Apia",  # left out a whole day
    "America/Sao_Paulo",  # changed its clocks at midnight
    "Pacific/Kiritimati",  # UTC+14
    "Africa/Casablanca",
]

moments = st.datetimes(datetime(1990, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
)
times = st.times().map(lambda moment: moment.replace(microsecond=0))
zones = st.sampled_from(ZONES)


@pytest.fixture(scope="module")
def conn(server: str, template: str) -> Iterator[psycopg.Connection]:
    with (
        databases.database(server, template) as own,
        psycopg.connect(own, autocommit=True, options="-c search_path=") as connection,
    ):
        yield connection


def next_slot(conn, every, at, zone, anchor, after) -> datetime:
    ((slot,),) = conn.execute(
        "select lapse.next_slot(%s::interval, %s::time, %s, %s, %s)", [every, at, zone, anchor, after]
    )
    return slot.astimezone(UTC)


def quick(examples: int):
    return settings(
        max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )


@quick(300)
@given(every=st.integers(10, 366 * 86400), anchor=moments, after=moments)
def test_without_a_time_of_day_the_grid_is_arithmetic(conn, every, anchor, after):
    step = timedelta(seconds=every)

    slot = next_slot(conn, step, None, "UTC", anchor, after)

    assert after < slot <= after + step
    assert (slot - anchor) % step == timedelta()


@quick(400)
@given(days=st.integers(1, 366), at=times, zone=zones, anchor=moments, after=moments)
def test_with_one_the_slot_is_the_least_later_one_of_the_grid(conn, days, at, zone, anchor, after):
    every = timedelta(days=days)

    slot = next_slot(conn, every, at, zone, anchor, after)

    dates = grid(days, at, zone, anchor, around=after)
    assert slot == min(candidate for candidate in dates if candidate > after)


def grid(days: int, at: time, zone: str, anchor: datetime, around: datetime) -> list[datetime]:
    """The slots near a time, by Python's calendar."""
    tz = ZoneInfo(zone)
    first = anchor.astimezone(tz).date()
    nearest = (around.date() - first).days // days
    dates = [first + timedelta(days=days * (nearest + k)) for k in range(-3, 4)]
    return [local(day, at, tz) for day in dates]


def local(day: date, at: time, tz: ZoneInfo) -> datetime:
    early = datetime.combine(day, at, tz.__class__(tz.key)).replace(fold=0)
    late = early.replace(fold=1)
    skipped = early.astimezone(UTC).astimezone(tz).replace(tzinfo=None) != early.replace(tzinfo=None)
    # fold=0 reads a skipped time by the old offset, so it comes out later by the new one;
    # of a time that comes twice the second counts.
    return (early if skipped else late).astimezone(UTC)


@quick(100)
@given(days=st.integers(1, 40), at=times, zone=zones, anchor=moments)
def test_following_the_grid_visits_each_date_once(conn, days, at, zone, anchor):
    slots = [anchor]
    for _ in range(6):
        slots.append(next_slot(conn, timedelta(days=days), at, zone, anchor, slots[-1]))

    gaps = [later - sooner for sooner, later in pairwise(slots[1:])]
    assert all(timedelta(days=days, hours=-25) <= gap <= timedelta(days=days, hours=25) for gap in gaps)
    assert slots == sorted(set(slots))


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ("2026-03-27 12:00Z", "2026-03-28 01:30Z"),  # winter: 02:30 is 01:30 UTC
        ("2026-03-28 12:00Z", "2026-03-29 01:30Z"),  # 02:30 is skipped: 03:30 summer time
        ("2026-03-29 01:30Z", "2026-03-30 00:30Z"),  # summer: 02:30 is 00:30 UTC
        ("2026-10-24 12:00Z", "2026-10-25 01:30Z"),  # 02:30 comes twice: the second time
        ("2026-10-25 00:30Z", "2026-10-25 01:30Z"),  # asked at the first of the two: not twice
        ("2026-10-25 01:30Z", "2026-10-26 01:30Z"),
    ],
)
def test_a_clock_change_neither_skips_nor_doubles_a_day(conn, after, expected):
    slot = next_slot(
        conn,
        timedelta(days=1),
        time(2, 30),
        "Europe/Berlin",
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime.fromisoformat(after),
    )

    assert slot == datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    ("zone", "at", "first"),
    [
        ("America/Nuuk", "23:30", "2025-03-30 00:30-01"),  # Saturday's 23:30 was skipped
        ("UTC", "24:00", "2025-03-30 00:00Z"),
    ],
)
def test_a_slot_after_midnight_does_not_move_the_weekday_of_those_after_it(conn, zone, at, first):
    slots = [datetime.fromisoformat(first)]
    for _ in range(3):
        slots.append(next_slot(conn, timedelta(days=7), at, zone, anchor=slots[-1], after=slots[-1]))

    dates = [(slot.astimezone(ZoneInfo(zone)) - timedelta(hours=1)).date() for slot in slots]
    assert dates == [date(2025, 3, 29) + timedelta(days=7 * n) for n in range(4)]


def test_a_day_without_a_time_of_day_is_24_hours_whatever_the_session_thinks(conn):
    conn.execute("set timezone = 'Europe/Berlin'")
    try:
        slot = next_slot(
            conn,
            timedelta(days=1),
            None,
            "UTC",
            datetime(2026, 3, 28, 12, tzinfo=UTC),
            datetime(2026, 3, 28, 12, tzinfo=UTC),
        )
    finally:
        conn.execute("reset timezone")

    assert slot == datetime(2026, 3, 29, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("every", "at", "zone", "text"),
    [
        ("30 s", None, "UTC", "every 30 seconds"),
        ("1 min", None, "UTC", "every minute"),
        ("90 s", None, "UTC", "every 90 seconds"),
        ("5 min", None, "UTC", "every 5 minutes"),
        ("6 hours", None, "UTC", "every 6 hours"),
        ("1 day", None, "UTC", "every day"),
        ("1 day", "03:00", "UTC", "daily at 03:00 UTC"),
        ("24 hours", "03:00:05", "Asia/Tokyo", "daily at 03:00:05 Asia/Tokyo"),
        ("7 days", "02:00", "Europe/Berlin", "every 7 days at 02:00 Europe/Berlin"),
    ],
)
def test_a_cadence_is_said_in_words(conn, every, at, zone, text):
    ((said,),) = conn.execute("select lapse.schedule_text(%s::interval, %s::time, %s)", [every, at, zone])

    assert said == text
