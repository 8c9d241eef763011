"""A container with the sections that a test gives it, and a host in memory to describe it on."""

from __future__ import annotations

from pathlib import Path

import pytest
from pycore.hookspecs import Host
from pycore.testing.fake import FakeKernel
from pycore_isolation.capabilities import Privileges
from pycore_isolation.cgroups import Resources
from pycore_isolation.limits import Limits
from pycore_isolation.namespaces import Names
from pycore_isolation.seccomp import Seccomp
from pycore_isolation.user import User
from support.describing import Make, maker

SECTIONS = (Limits, Names, Privileges, Resources, Seccomp, User)


@pytest.fixture
def make() -> Make:
    return maker(SECTIONS)


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel()


@pytest.fixture
def host(kernel: FakeKernel) -> Host:
    return Host(kernel, Path("/run/pycore"), Path("/var/lib/pycore"))
