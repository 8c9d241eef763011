"""An app with some of everything: a bridge and a port, a copied image, volumes, a log, health checks, an order."""

from __future__ import annotations

from pathlib import Path

NAME = "mixed"
CONTAINERS = ("web", "copy", "task", "broken")

_SPEC = """
name = "{name}"
[volume.data]

[container.web]
image = "{image}"
command = ["/bin/sh", "-c", "echo said; echo complained >&2; exec sleep 600"]
stop_signal = "KILL"
goal = "healthy"
depends_on = {{ task = "completed" }}
network.ports = ["127.0.0.1:{port}:80"]
storage.volumes = ["data:/data"]
storage.tmpfs = ["/scratch"]
resources.memory = "64M"
health = {{ file = "/data", interval = "50ms" }}

[container.copy]
image = "{image}"
command = ["/bin/sh", "-c", "echo said; exec sleep 600"]
stop_signal = "KILL"
goal = "healthy"
init = true
restart = "always"
network.driver = "none"
storage = {{ driver = "vfs", volumes = ["data:/data:ro"] }}
health = {{ command = ["/bin/sh", "-c", "echo well"], interval = "50ms" }}

[container.task]
image = "{image}"
command = ["/bin/sh", "-c", "echo done > /data/task"]
goal = "exit-0"
network.driver = "none"
storage.volumes = ["data:/data"]
"""

_BROKEN = """
[container.broken]
image = "{image}"
command = ["/no/such/program"]
depends_on = {{ web = "healthy", copy = "started" }}
"""


def spec(image: Path, port: int, *, fails: bool = False) -> str:
    """Its text; with ``fails`` an apply of it comes to nothing when all but the last container runs."""
    return (_SPEC + (_BROKEN if fails else "")).format(name=NAME, image=image, port=port)
