"""What is logged can't be forged by what it tells of."""

import json
import logging

import pytest

from pglapse.logs import JsonFormatter, TextFormatter
from pglapse.text import files, printable, size, span, storable

HOSTILE = "a\nb\r\x1b[31m\x00\ud800\u202e\u2028é"


def record(message: str, **extra: object) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"msg": message, "levelname": "INFO", "levelno": 20, "name": "pglapse.x", **extra}
    )


def test_a_readable_line_stays_one_line_whatever_it_tells_of():
    line = TextFormatter().format(record(HOSTILE))

    assert line.endswith(r" info     a\nb\r\x1b[31m\x00\ud800\u202e\u2028é")
    assert len(line.splitlines()) == 1


def test_a_json_line_holds_the_fields_and_the_text_as_it_was():
    line = JsonFormatter().format(record(HOSTILE, deleted=3))

    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert {"message": HOSTILE, "deleted": 3, "level": "info"}.items() <= json.loads(line).items()


def test_text_for_the_database_holds_nothing_that_it_refuses():
    stored = storable(HOSTILE + "x" * 5000)

    assert "\x00" not in stored
    stored.encode()
    assert len(stored) == 2000


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (size(0), "0 B"),
        (size(999), "999 B"),
        (size(8192), "8.2 kB"),
        (size(5 * 10**15), "5000.0 TB"),
        (files(1), "1 file"),
        (files(1200), "1,200 files"),
        (span(0.4), "0 s"),
        (span(60), "1 min"),
        (span(3725), "1 h 2 min"),
        (span(90000), "1 d 1 h"),
        (printable("x" * 300), "x" * 199 + "…"),
    ],
)
def test_numbers_are_said_as_people_say_them(said, words):
    assert said == words
