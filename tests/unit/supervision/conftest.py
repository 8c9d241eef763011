"""A container with the sections that a test gives it, and a host in memory to describe it on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pycore.hookspecs import Host
from pycore.testing.fake import FakeKernel
from pycore_supervision.health import Health
from pycore_supervision.init import FirstProcess
from pycore_supervision.restart import Backoff, Restart
from support.describing import Make, maker
from support.here import Here

SECTIONS = (Restart, Backoff, Health, FirstProcess)


@pytest.fixture
def make() -> Make:
    return maker(SECTIONS)


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel()


@pytest.fixture
def host(kernel: FakeKernel) -> Host:
    return Host(kernel, Path("/run/pycore"), Path("/var/lib/pycore"))


@pytest.fixture
def here() -> Iterator[Here]:
    before = sorted(os.listdir("/proc/self/fd"))
    here = Here()
    yield here
    os.close(here.pidfd)
    assert sorted(os.listdir("/proc/self/fd")) == before, "a descriptor was left open"


@pytest.fixture
def ended() -> Iterator[Here]:
    """A container that has ended, and its number may be another's by now."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        pidfd = os.pidfd_open(process.pid)
        process.communicate(b"\n")
    yield Here(os.getpid(), pidfd)
    os.close(pidfd)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server
