"""A real registry (Debian's docker-registry) on loopback, with its storage in a directory of the test."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

USER, PASSWORD = "somebody", "s3cret:with a colon"
_HTPASSWD = f"{USER}:$2b$05$abcdefghijklmnopqrstuuNwtEpQteqAt2lXCfX9iZr8A2HMs1XzO\n"
"""Made with bcrypt, the only form that it takes."""

_LISTENING = re.compile(r"listening on 127\.0\.0\.1:(\d+)")


@contextmanager
def registry(
    directory: Path, *, login: bool = False, auth: Mapping[str, Any] | None = None, tls: Mapping[str, Any] | None = None
) -> Iterator[str]:
    """Its address. ``login`` lets in nobody but USER; ``auth`` and ``tls`` are tables of its configuration."""
    directory.mkdir(parents=True, exist_ok=True)
    if login:
        (directory / "htpasswd").write_text(_HTPASSWD, encoding="utf-8")
        auth = {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}
    config = {
        "version": 0.1,
        "log": {"accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "storage")}, "delete": {"enabled": True}},
        "http": {"addr": "127.0.0.1:0", "secret": "of the test", **({"tls": tls} if tls else {})},
        **({"auth": auth} if auth else {}),
    }
    (directory / "config.yml").write_text(json.dumps(config), encoding="utf-8")  # which is YAML too
    command = ["docker-registry", "serve", str(directory / "config.yml")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield f"127.0.0.1:{_port(process)}"
        finally:
            process.terminate()


def _port(process: subprocess.Popen[str]) -> int:
    """It says in its log where it listens; what it says later is read as well, so that it can go on."""
    assert process.stderr is not None
    said: list[str] = []
    for line in process.stderr:
        said.append(line)
        if found := _LISTENING.search(line):
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return int(found[1])
    raise AssertionError(f"the registry did not start: {''.join(said)}")
