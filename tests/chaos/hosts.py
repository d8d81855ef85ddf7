"""Several hosts: network namespaces with a bridge between them.

The server listens on the bridge's address and nowhere else, except for a socket for the judge and the
applications. A host whose link is down is as good as unplugged: packets vanish, nobody is told.
"""

import ctypes
import os
import random
import secrets
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.campaign import NotPossible
from tests.chaos.faults import Fault
from tests.chaos.fleet import Fleet

ADDRESS = "10.213.77"
CLONE_NEWNET = 0x40000000


def possible() -> None:
    """See whether this machine lets us make namespaces and links."""
    if not shutil.which("ip"):
        raise NotPossible("there is no ip here: apt-get install iproute2")
    if os.geteuid() != 0:
        raise NotPossible("network namespaces need root")
    name = f"pglapse-{secrets.token_hex(3)}"
    try:
        _ip("netns", "add", name)
        _ip("-n", name, "link", "add", "pl0", "type", "veth", "peer", "name", "pl1")
        _ip("-n", name, "link", "add", "pl2", "type", "bridge")
    except RuntimeError as error:
        raise NotPossible(f"no network namespaces here: {error}") from error
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


class Network:
    """A bridge in a namespace of its own (the server's host) and hosts that are plugged into it."""

    def __init__(self, hosts: int) -> None:
        self._prefix = f"pglapse-{secrets.token_hex(3)}"
        self.server = f"{self._prefix}-db"
        self.address = f"{ADDRESS}.1"
        self.hosts = [f"{self._prefix}-h{number}" for number in range(hosts)]

    def up(self) -> None:
        _ip("netns", "add", self.server)
        _ip("-n", self.server, "link", "set", "lo", "up")
        _ip("-n", self.server, "link", "add", "br0", "type", "bridge")
        _ip("-n", self.server, "addr", "add", f"{self.address}/24", "dev", "br0")
        _ip("-n", self.server, "link", "set", "br0", "up")
        for number, host in enumerate(self.hosts):
            _ip("netns", "add", host)
            _ip(
                "-n",
                host,
                "link",
                "add",
                "eth0",
                "type",
                "veth",
                "peer",
                "name",
                f"p{number}",
                "netns",
                self.server,
            )
            _ip("-n", host, "link", "set", "lo", "up")
            _ip("-n", host, "addr", "add", f"{ADDRESS}.{number + 2}/24", "dev", "eth0")
            _ip("-n", host, "link", "set", "eth0", "up")
            _ip("-n", self.server, "link", "set", f"p{number}", "master", "br0")
            _ip("-n", self.server, "link", "set", f"p{number}", "up")

    def down(self) -> None:
        for name in [*self.hosts, self.server]:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def on(self, number: int) -> tuple[str, ...]:
        """What a command begins with that is to run on a host."""
        return "ip", "netns", "exec", self.hosts[number % len(self.hosts)]

    def plug(self, number: int, *, into: bool) -> None:
        _ip("-n", self.server, "link", "set", f"p{number}", "up" if into else "down")

    def on_server(self, do: Callable[[], None]) -> None:
        """Do something on the server's host: what is started in there stays there."""
        failed: list[Exception] = []

        def enter() -> None:
            try:
                with _entered(self.server):
                    do()
            except Exception as error:
                failed.append(error)

        # A thread of its own, since a thread is what has a namespace, and this one ends in there.
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]


@contextmanager
def _entered(name: str) -> Iterator[None]:
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/run/netns/{name}").open("rb") as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"can't enter {name}")
    yield


@dataclass
class UnplugHost(Fault):
    """A host is off the network for some time, longer than a lease more often than not, and comes back."""

    network: Network
    lease: float
    name: str = "hosts unplugged"

    def strike(self, dice: random.Random, stop: threading.Event) -> int:
        number = dice.randrange(len(self.network.hosts))
        self.network.plug(number, into=False)
        try:
            stop.wait(dice.uniform(0.3, 3) * self.lease)
        finally:
            self.network.plug(number, into=True)
        return 1


@dataclass
class LoseHost(Fault):
    """A host vanishes from the network, and all that ran on it with it; later it is there again, empty."""

    network: Network
    fleet: Fleet
    name: str = "hosts lost"

    def strike(self, dice: random.Random, stop: threading.Event) -> int:
        number = dice.randrange(len(self.network.hosts))
        self.network.plug(number, into=False)
        try:
            for place in self.fleet.places:
                if place % len(self.network.hosts) == number:
                    self.fleet.kill(place)
            stop.wait(dice.uniform(0.2, 2))
        finally:
            self.network.plug(number, into=True)
        return 1
