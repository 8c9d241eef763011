"""A container with the sections that a test gives it, and a host in memory to describe it on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pycore.hookspecs import Host
from pycore.spec import App, Container
from pycore.testing.fake import FakeKernel
from pycore_isolation.capabilities import Privileges
from pycore_isolation.cgroups import Resources
from pycore_isolation.limits import Limits
from pycore_isolation.namespaces import Names
from pycore_isolation.seccomp import Seccomp
from pycore_isolation.user import User

SECTIONS = (Limits, Names, Privileges, Resources, Seccomp, User)

Make = Callable[..., Container]


@pytest.fixture
def make() -> Make:
    """``make(memory="1M")``: a container with these fields, each in the section that has it."""

    def container(name: str = "web", app: str = "shop", **fields: Any) -> Container:
        unknown = set(fields) - {field for kind in SECTIONS for field in kind.model_fields}
        assert not unknown, unknown
        sections = {
            kind: kind.model_validate({key: value for key, value in fields.items() if key in kind.model_fields})
            for kind in SECTIONS
        }
        return Container(App(app, Path("/")), name, {}, sections, id="c0ffee")

    return container


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel()


@pytest.fixture
def host(kernel: FakeKernel) -> Host:
    return Host(kernel, Path("/run/pycore"), Path("/var/lib/pycore"))
