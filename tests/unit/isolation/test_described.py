"""What holds for every operation of the area."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from pycore.hookspecs import Host
from pycore.ops import Operation, from_record, to_record
from pycore.spec import Container
from pycore.steps import Phase
from pycore.testing.fake import FakeKernel
from pycore_isolation import capabilities, cgroups, limits, namespaces, paths, seccomp, user

PLUGINS = (capabilities, cgroups, limits, namespaces, paths, seccomp, user)
FIELDS = {"memory": "1M", "cpus": 0.5, "ulimits": {"nofile": 10}, "userns": "auto", "user": "1", "group_add": ["2"]}

pytestmark = pytest.mark.needs("libseccomp")


def describe(container: Container, host: Host) -> list[Operation]:
    hooks = [(phase, getattr(plugin, f"pycore_{phase.value}", None)) for plugin in PLUGINS for phase in Phase]
    found = [(phase, operation) for phase, hook in hooks if hook for operation in hook(container=container, host=host)]
    assert all(operation.step.phase is phase for phase, operation in found)
    return [operation for _, operation in found]


@pytest.mark.parametrize("fields", [{}, FIELDS, {"no_new_privileges": False}])
def test_twice_the_same_and_nothing_done(make: Any, host: Host, kernel: FakeKernel, fields: dict[str, object]) -> None:
    before = kernel.snapshot()
    assert describe(make(**fields), host) == describe(make(**fields), host)
    assert kernel.calls == []
    assert kernel.snapshot() == before
    assert not host.problems


@pytest.mark.parametrize("fields", [{}, FIELDS])
def test_kept_in_the_journal(make: Any, host: Host, fields: dict[str, object]) -> None:
    for operation in describe(make(**fields), host):
        assert from_record(json.loads(json.dumps(to_record(operation)))) == operation
        assert "\n" not in operation.explain()
        assert operation.explain()


def test_operations_bring_nothing_heavy_to_the_spawner() -> None:
    modules = {to_record(each)["op"].partition(":")[0] for each in (paths.LINKS, *paths.MOUNTS)}
    modules |= {f"pycore_isolation.ops.{name}" for name in ("capabilities", "cgroups", "limits", "seccomp", "user")}
    script = f"import sys, {', '.join(sorted(modules))}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pydantic", "pyseccomp", "pyroute2", "asyncio", "pluggy"} & set(loaded)
