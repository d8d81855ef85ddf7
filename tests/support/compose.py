"""Read docker/compose.yaml as far as it goes, and start its services where Compose is not installed."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support.install import ROOT

FILE = ROOT / "docker" / "compose.yaml"


def parsed(environment: dict[str, str] | None = None) -> dict[str, Any]:
    """The file with ``${NAME:-default}`` filled in from ``environment``."""
    known = environment or {}
    text = re.sub(
        r"\$\{(\w+):-([^}]*)\}", lambda m: known.get(m[1]) or m[2], FILE.read_text(encoding="utf-8")
    )
    document: dict[str, Any] = yaml.safe_load(text)
    return document


@dataclass
class Stack:
    """The services of the file, in containers with names and volumes of their own."""

    engine: Any
    images: dict[str, str]
    prefix: str
    secrets: dict[str, str]
    folder: Path
    file: dict[str, Any] = field(default_factory=parsed)

    def __enter__(self) -> "Stack":
        for name, value in self.secrets.items():
            (self.folder / name).write_text(value, encoding="utf-8")
        self.network = self.engine.networks.create(f"{self.prefix}-net", driver="bridge")
        return self

    def __exit__(self, *_: object) -> None:
        for container in self.engine.containers.list(all=True, filters={"name": self.prefix}):
            container.remove(force=True, v=True)
        self.network.remove()
        for volume in self.engine.volumes.list(filters={"name": self.prefix}):
            volume.remove(force=True)

    def start(self, service: str) -> Any:
        """A container as the file describes ``service``, started."""
        told = self.file["services"][service]
        binds = [f"{self.folder / name}:/run/secrets/{name}:ro" for name in told.get("secrets", [])]
        binds += [f"{self.prefix}-{volume}" for volume in told.get("volumes", [])]
        container = self.engine.containers.create(
            self.images[service],
            command=told.get("command"),
            name=f"{self.prefix}-{service}",
            hostname=service,
            environment=told["environment"],
            volumes=binds,
            tmpfs=dict.fromkeys(told.get("tmpfs", []), ""),
            read_only=told["read_only"],
            cap_drop=told["cap_drop"],
            security_opt=told["security_opt"],
            network=self.network.name,
            detach=True,
        )
        self.network.disconnect(container)
        self.network.connect(container, aliases=[service])
        container.start()
        return container
