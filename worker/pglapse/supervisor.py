"""Tell systemd, or whoever else speaks its language, how the worker is: ready, alive, what it does.

The language is one datagram a message to the socket that NOTIFY_SOCKET names (sd_notify(3)). Without that
variable, or with nobody behind the socket, nothing happens: a worker never fails because of its supervisor.
"""

import logging
import os
import socket
from collections.abc import Mapping
from time import monotonic

from pglapse.text import printable

log = logging.getLogger(__name__)


class Supervisor:
    """Whoever started this process and wants to hear of it; perhaps nobody."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._pause = _watchdog(environment) / 2
        self._alive_at = -float("inf")
        self._ready = False
        self._status = ""

    def ready(self) -> None:
        """The worker has begun its work."""
        if not self._ready:
            self._ready = True
            self._tell("READY=1")

    def alive(self) -> None:
        """The main loop turns: to be called from nowhere else, and as often as it does."""
        if self._address is None or monotonic() - self._alive_at < self._pause:
            return
        self._alive_at = monotonic()
        if self._pause < float("inf"):
            self._tell("WATCHDOG=1")

    def status(self, line: str) -> None:
        """One line for people: ``systemctl status`` shows it."""
        line = printable(line, 400)
        if line != self._status:
            self._status = line
            self._tell(f"STATUS={line}")

    def stopping(self) -> None:
        """The worker is about to end."""
        self._tell("STOPPING=1")

    def _tell(self, message: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as line:
                line.sendto(message.encode(errors="backslashreplace"), self._address)
        except OSError as error:
            log.debug("the supervisor does not hear %s: %s", message, error)


def _address(named: str) -> bytes | None:
    """Where NOTIFY_SOCKET leads: a path, or with @ a name outside the file system."""
    if named.startswith("@"):
        return b"\0" + os.fsencode(named[1:])
    return os.fsencode(named) if named.startswith("/") else None


def _watchdog(environment: Mapping[str, str]) -> float:
    """Seconds within which a sign of life is expected; endless when none is, or not from this process."""
    if environment.get("WATCHDOG_PID") not in (None, "", str(os.getpid())):
        return float("inf")
    try:
        seconds = int(environment.get("WATCHDOG_USEC", "0")) / 1e6
    except ValueError:
        return float("inf")
    return seconds if seconds > 0 else float("inf")
