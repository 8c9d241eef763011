"""Whether the network's operations are in force, and what of them no container has any more."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pycore.hookspecs import Host
from pycore.ops import Context, Operation
from pycore.steps import Step
from pycore.testing.fake import FakeKernel
from pycore_network import bridge, names
from pycore_network.ops.announce import Announce
from pycore_network.ops.bridge import Join, Link
from pycore_network.ops.lost import LostDevice, LostElement, LostRules, LostTable
from pycore_network.ops.publish import Publish

View = Callable[[], Host]
FORWARDING = "/proc/sys/net/ipv4/ip_forward"
ALL_OF_IT = {Join, Announce, Publish, LostRules, LostDevice, LostElement}
PORTS = ["8080:80", "127.0.0.1:5353:53/udp"]


class Lab:
    """A container on the fake host, with all that the bridge driver does for it."""

    def __init__(self, kernel: FakeKernel, view: View, container: Any, pid: int) -> None:
        self.kernel, self.container = kernel, container
        kernel.add_process(pid)
        self.ctx = Context(kernel, pid=pid)
        host = view()
        self.journal: list[Operation] = []
        for plugin in (bridge, names):
            self.journal += plugin.pycore_prepare(container, host)
        self.journal += bridge.pycore_attach(container, host)
        assert not host.problems
        for operation in self.journal:
            operation.do(self.ctx)

    def probes(self) -> dict[str, bool | None]:
        return {type(operation).__name__: operation.probe(self.ctx) for operation in self.journal}

    def mend(self) -> None:
        for operation in self.journal:
            if operation.probe(self.ctx) is False:
                operation.do(self.ctx)


@pytest.fixture
def lab(kernel: FakeKernel, view: View, make: Any) -> Lab:
    return Lab(kernel, view, make("shop/web", ports=PORTS), 71)


def test_all_are_in_force(lab: Lab) -> None:
    assert set(lab.probes().values()) == {True}


def flush(kernel: FakeKernel) -> None:
    kernel.nftables.tables.clear()


def drop_ports(kernel: FakeKernel) -> None:
    kernel.nftables.tables["inet pycore"]["ports"].clear()


def drop_bridge(kernel: FakeKernel) -> None:
    (name,) = (link for link in kernel.links() if link.startswith("pc-"))
    kernel.network._drop(0, name)  # pyright: ignore[reportPrivateUsage]


def drop_device(kernel: FakeKernel) -> None:
    (name,) = (link for link in kernel.links() if link.startswith("pc") and not link.startswith("pc-"))
    kernel.network._drop(0, name)  # pyright: ignore[reportPrivateUsage]


def drop_files(kernel: FakeKernel) -> None:
    kernel.files.remove_tree("/run/pycore/ports")
    for name in kernel.listdir("/run/pycore/networks/shop_default/leases"):
        kernel.files.remove(f"/run/pycore/networks/shop_default/leases/{name}")


def drop_hosts(kernel: FakeKernel) -> None:
    (identity,) = kernel.listdir("/run/pycore/containers")
    kernel.files.write(f"/run/pycore/containers/{identity}/names/hosts", b"")


BREAKS: list[tuple[Callable[[FakeKernel], None], set[str]]] = [
    (flush, {"Join", "Guard", "Publish"}),
    (drop_ports, {"Publish"}),
    (drop_bridge, {"Join", "Link"}),
    (drop_device, {"Link"}),
    (drop_files, {"Join", "Publish"}),
    (drop_hosts, {"NameFiles"}),
]


@pytest.mark.parametrize(("harm", "broken"), BREAKS, ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_not_in_force_is_told_and_done_again(
    lab: Lab, harm: Callable[[FakeKernel], None], broken: set[str]
) -> None:
    before = lab.kernel.snapshot()
    harm(lab.kernel)
    assert {name for name, answer in lab.probes().items() if answer is False} <= broken
    assert {type(operation).__name__ for operation in lab.journal if operation.probe(lab.ctx) is False} == broken
    lab.mend()
    assert set(lab.probes().values()) == {True}
    assert lab.kernel.snapshot() == before


def test_an_element_that_leads_elsewhere_is_not_ours(lab: Lab) -> None:
    lab.kernel.nftables.tables["inet pycore"]["ports"]["tcp . 8080"] = "192.0.2.1 . 80"
    assert lab.probes()["Publish"] is True  # the last of both
    assert any(operation.probe(lab.ctx) is False for operation in lab.journal if isinstance(operation, Publish))


def test_known_things_are_no_leftovers(lab: Lab, view: View) -> None:
    assert list(bridge.pycore_leftovers(view(), lab.journal)) == []


def test_all_of_a_container_that_nobody_knows_is_left_over(lab: Lab, view: View) -> None:
    lost = list(bridge.pycore_leftovers(view(), ()))
    assert {type(operation) for operation in lost} == ALL_OF_IT
    take_back(lab.kernel, lost)
    lab.kernel.end_process(71)
    again = list(bridge.pycore_leftovers(view(), ()))
    assert again == []
    assert lab.kernel.links() == ["lo"]
    assert not lab.kernel.nftables.tables
    assert lab.kernel.listdir("/run/pycore/networks") == lab.kernel.listdir("/run/pycore/ports") == []


def test_beside_a_container_that_is_known(lab: Lab, view: View, kernel: FakeKernel, make: Any) -> None:
    before = kernel.snapshot()
    other = Lab(kernel, view, make("shop/db", ports=["9090:90"]), 72)
    lost = list(bridge.pycore_leftovers(view(), lab.journal))
    assert {type(operation) for operation in lost} == ALL_OF_IT
    take_back(kernel, lost)
    for each in other.journal:
        if each.step is Step.FILES:  # the core looks after these
            each.undo(Context(kernel))
    kernel.end_process(72)
    after = kernel.snapshot()
    assert {key for key in after if key not in before} <= {f"file /run/pycore/containers/{other.container.id}"}
    assert set(lab.probes().values()) == {True}


def test_elements_and_devices_whose_files_are_gone(lab: Lab, view: View, kernel: FakeKernel) -> None:
    kernel.files.remove_tree("/run/pycore/ports")
    kernel.files.remove_tree("/run/pycore/networks")
    lost = list(bridge.pycore_leftovers(view(), ()))
    assert {type(operation) for operation in lost} == {LostDevice, LostTable}
    take_back(kernel, lost)
    assert kernel.links() == ["lo"]
    assert not kernel.nftables.tables


def test_elements_beside_a_network_that_is_known(lab: Lab, view: View, kernel: FakeKernel) -> None:
    before = kernel.snapshot()
    sets = kernel.nftables.tables["inet pycore"]
    sets["ports"]["tcp . 1"] = "192.0.2.1 . 1"
    sets["ports_at"]["127.0.0.1 . tcp . 1"] = "192.0.2.1 . 1"
    sets["bridges"]['"pc-lost-123456"'] = ""
    sets["within"]['"pc-lost-123456" . "pc-lost-123456"'] = ""
    sets["subnets"]["192.0.2.0/24"] = ""
    lost = list(bridge.pycore_leftovers(view(), lab.journal))
    assert [type(operation) for operation in lost] == [LostElement] * 5
    take_back(kernel, lost)
    assert kernel.snapshot() == before


def test_a_network_without_leases_and_without_a_record(view: View, kernel: FakeKernel) -> None:
    kernel.mkdir("/run/pycore/networks/shop_default/leases")
    (lost,) = bridge.pycore_leftovers(view(), ())
    lost.undo(Context(kernel))
    assert kernel.listdir("/run/pycore/networks") == []


def test_another_instances_table_is_not_ours(lab: Lab, kernel: FakeKernel) -> None:
    other = Host(kernel, Path("/elsewhere"), Path("/var/lib/pycore"))
    assert list(bridge.pycore_leftovers(other, ())) == []


def test_without_the_library_there_is_nothing_of_it(lab: Lab, view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> bool:
        raise OSError(errno.ENOSYS, "not installed")

    monkeypatch.setattr(lab.kernel, "nft_has", missing)
    assert {type(operation) for operation in bridge.pycore_leftovers(view(), ())} == ALL_OF_IT - {LostElement}


def test_what_came_in_and_went_out(lab: Lab, view: View, kernel: FakeKernel) -> None:
    head = "Inter-|   Receive\n face |bytes    packets\n    lo:     1       2 0 0 0 0 0 0 1 2 0 0 0 0 0 0\n"
    kernel.add_file("/proc/71/net/dev", f"{head}  eth0: 5000 1 0 0 0 0 0 0 300 1 0 0 0 0 0 0\n")
    assert bridge.pycore_stats(lab.container, view(), 71) == {
        "network_receive_bytes_total": 5000,
        "network_transmit_bytes_total": 300,
    }
    assert bridge.pycore_stats(lab.container, view(), 4711) == {}
    kernel.add_file("/proc/71/net/dev", head)
    assert bridge.pycore_stats(lab.container, view(), 71) == {}


def take_back(kernel: FakeKernel, operations: list[Operation]) -> None:
    """Twice: a repair may be repeated."""
    for operation in operations * 2:
        assert operation.explain()
        operation.undo(Context(kernel))


def test_link_is_asked_by_its_port(lab: Lab) -> None:
    (link,) = (operation for operation in lab.journal if isinstance(operation, Link))
    assert link.probe(lab.ctx) is True
    lab.kernel.network.namespaces[0].links[link.peer].master = 0
    assert link.probe(lab.ctx) is False
