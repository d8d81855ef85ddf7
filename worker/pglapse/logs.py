"""Logging: a readable line for people, or a JSON object a line for programs. Always on standard error."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

from pglapse.text import printable

Format = Literal["text", "json"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class TextFormatter(logging.Formatter):
    """``2026-01-31 12:00:00 info     3 files deleted``; the message alone, made safe to print."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        line = f"{when} {record.levelname.lower():<8} {printable(record.getMessage(), 4000)}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message, and the record's own extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)  # ASCII: lone surrogates and line ends are escaped


def setup(format_: Format, level: int = logging.INFO) -> None:
    """Send what pglapse logs to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if format_ == "json" else TextFormatter())
    logger = logging.getLogger("pglapse")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False
