"""The drivers and the name files on a host in memory: what they describe, refuse, do and take back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest
from pycore.errors import Conflict
from pycore.hookspecs import Host
from pycore.launch.namespaces import Namespaces
from pycore.ops import Context, Operation
from pycore.spec import App
from pycore.testing.fake import FakeKernel
from pycore_network import bridge, declared, host, names, none, requirements
from pycore_network.bridge import Bridge
from pycore_network.memberships import memberships
from pycore_network.networks import NetworkTable
from pycore_network.ops.publish import Publish

from .conftest import Make

View = Callable[[], Host]


def described(container: Any, view: Host) -> list[Operation]:
    return [*bridge.pycore_prepare(container, view), *bridge.pycore_attach(container, view)]


def whole(*containers: Any) -> App:
    """One app of containers that were made on their own."""
    first = containers[0].app
    return App(first.name, Path("/"), first.tables, {container.name: container for container in containers})


# -- describing --------------------------------------------------------------------------------------------


def test_describing_writes_nothing(kernel: FakeKernel, view: View, make: Make) -> None:
    before = kernel.snapshot()
    described(make(ports=["8080:80"]), view())
    assert kernel.calls == []
    assert kernel.snapshot() == before


def test_describing_twice_is_the_same(kernel: FakeKernel, view: View, make: Make) -> None:
    web = make(ports=["8080:80"])
    first = described(web, view())
    assert described(web, view()) == first
    run(kernel, first)
    assert described(web, view()) == first


def test_a_changed_port_is_one_operation(kernel: FakeKernel, view: View, make: Make) -> None:
    before = described(make(ports=["8080:80", "8081:81"]), view())
    after = described(make(ports=["8080:80", "9090:81"]), view())
    (came,) = set(after) - set(before)
    assert isinstance(came, Publish)
    assert came.host_port == 9090


def test_network_names(view: View, make: Make) -> None:
    def name(**how: Any) -> str:
        join, _ = bridge.pycore_prepare(make(**how), view())
        return str(join.network)  # type: ignore[attr-defined]

    assert name() == "shop_default"
    assert name(tables={"back": {}}, networks=["back"]) == "shop_back"
    assert name(tables={"back": {"name": "common"}}, networks=["back"]) == "common"
    assert name(tables={"default": {"name": "common"}}) == "common"


def test_namespaces(make: Make, view: View) -> None:
    wanted = [Namespaces(("network",))]
    assert list(bridge.pycore_launch(make(), view())) == wanted
    assert list(none.pycore_launch(make(driver="none"), view())) == wanted


def test_inspect_claims_nothing(view: View, make: Make) -> None:
    here = view()
    assert bridge.pycore_inspect(make(), here) == {}
    assert not here.claims.get("address")


# -- refusing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subnet", ["10.0.0.0/30", "10.0.0.1/24", "10.0.0.0", "::/7", "fd00::/125", "0.0.0.0/0", "x"])
def test_subnets_that_cannot_be(subnet: str) -> None:
    with pytest.raises(pydantic.ValidationError):
        NetworkTable(subnets=[subnet])


def test_ports_are_checked_by_the_field() -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        Bridge(ports=("8080:80", "99999:80"))
    assert caught.value.errors()[0]["loc"][:2] == ("ports", 1)


def test_a_port_twice_in_an_app(make: Make) -> None:
    app = whole(make("shop/web", ports=["81:80", "8080:80"]), make("shop/db", ports=["127.0.0.1:8080:1"]))
    (problem,) = bridge.pycore_validate(app)
    assert problem.path == ("container", "db", "network", "ports", 0)
    assert "'web'" in problem.message


def test_an_unknown_network(make: Make) -> None:
    (problem,) = declared.pycore_validate(whole(make(networks=["back"])))
    assert problem.path == ("container", "web", "network", "networks", 0)
    assert problem.hint == "add a table [network.back]"
    assert list(declared.pycore_validate(whole(make(tables={"back": {}}, networks=["back"])))) == []


def test_ports_with_the_driver_host(make: Make) -> None:
    (problem,) = host.pycore_validate(whole(make(driver="host", ports=["8080:80"])))
    assert problem.path == ("container", "web", "network", "ports")
    assert problem.hint is not None


def test_a_port_that_another_app_holds(kernel: FakeKernel, view: View, make: Make) -> None:
    run(kernel, described(make("bank/desk", ports=["8080:80"]), view()))
    here = view()
    described(make("shop/web", ports=["80:80", "8080:80"]), here)
    path, words = ("network", "ports", 1), "port 8080/tcp of the host leads to container bank/desk already"
    assert [(problem.path, problem.message) for problem in here.problems] == [(path, words)]


def test_a_port_that_an_earlier_form_of_the_app_holds(kernel: FakeKernel, view: View, make: Make) -> None:
    run(kernel, described(make("shop/web", ports=["8080:80"]), view()))
    here = view()
    described(make("shop/web", ports=["8080:80"]).with_id("anotherid000"), here)
    assert here.problems == []


@pytest.mark.parametrize(
    ("address", "wanted", "clash"),
    [
        ("00000000", "8080:80", True),
        ("0100007F", "8080:80", True),
        ("0100007F", "127.0.0.1:8080:80", True),
        ("0100007F", "127.0.0.2:8080:80", False),
        ("00000000", "127.0.0.2:8080:80", True),
        ("0" * 32, "8080:80", True),
        ("0000000000000000FFFF00000100007F", "127.0.0.1:8080:80", True),
        ("00000000000000000000000001000000", "8080:80", True),
        ("00000000000000000000000001000000", "0.0.0.0:8080:80", False),
        ("00000000", "8080:80/udp", False),
    ],
)
def test_a_port_that_a_process_holds(
    kernel: FakeKernel, view: View, make: Make, address: str, wanted: str, clash: bool
) -> None:
    kernel.listening["tcp"][address, 8080] = "nginx (pid 71)"
    here = view()
    described(make(ports=[wanted]), here)
    found = [problem.message for problem in here.problems]
    assert found == (["port 8080/tcp of the host is in use by nginx (pid 71)"] if clash else [])


# -- doing and taking back ---------------------------------------------------------------------------------


def run(kernel: FakeKernel, operations: list[Operation], pid: int = 100) -> Context:
    kernel.add_process(pid)
    context = Context(kernel, "shop/web", pid=pid)
    for operation in operations:
        operation.do(context)
    return context


def undo(kernel: FakeKernel, operations: list[Operation]) -> None:
    for operation in reversed(operations):
        operation.undo(Context(kernel, "shop/web"))


def test_whatever_fails_nothing_is_left(kernel: FakeKernel, view: View, make: Make) -> None:
    web = make(ports=["8080:80", "127.0.0.1:5000-5002:80-82/udp"])
    operations = [*described(web, view()), *names.pycore_prepare(web, view())]
    context = run(kernel, operations)
    undo(kernel, operations)
    before, acts = left(kernel), len(kernel.calls)
    for count in range(1, acts):
        kernel.fail_at(count)
        failed = False
        try:
            for operation in operations:
                operation.do(context)
        except OSError:
            failed = True
        kernel.fail_at(0)
        undo(kernel, operations)
        assert left(kernel) == before, kernel.calls[-acts:]
        if not failed:
            return
    raise AssertionError("the last act was never reached")


def left(kernel: FakeKernel) -> dict[str, object]:
    """All but what is left on purpose: forwarding, and the peer of a veth, which goes with its namespace."""
    found = kernel.snapshot("/proc/sys/net/")
    return {key: value for key, value in found.items() if not key.startswith("link pc")}


def test_what_another_container_owns_is_left_alone(kernel: FakeKernel, view: View, make: Make) -> None:
    web, other = make("shop/web", ports=["8080:80"]), make("shop/other", ports=["8080:80"])
    operations = described(other, view())
    run(kernel, described(web, view()))
    before = kernel.snapshot()
    undo(kernel, operations)
    assert kernel.snapshot() == before
    with pytest.raises(Conflict, match="leads to shop/web already"):
        operations[-1].do(Context(kernel))


# -- names -------------------------------------------------------------------------------------------------


def files(container: Any, view: Host) -> dict[str, str]:
    (operation,) = names.pycore_prepare(container, view)
    return {name: getattr(operation, name) for name in ("hosts", "hostname", "resolv_conf")}


def test_hosts_has_the_containers_own_address(view: View, make: Make) -> None:
    here, web = view(), make(extra_hosts={"db": "192.0.2.7"})
    join, _ = bridge.pycore_prepare(web, here)
    lines = files(web, here)["hosts"].splitlines()
    assert f"{join.addresses[0]}\tweb" in lines  # type: ignore[attr-defined]
    assert "127.0.0.1\tlocalhost" in lines
    assert "192.0.2.7\tdb" in lines


def test_the_host_has_a_name_by_its_own_addresses(view: View, make: Make) -> None:
    here, web = view(), make(extra_hosts={"outside": "host-gateway"})
    lines = files(web, here)["hosts"].splitlines()
    (network,) = (each.network for each in memberships(web, here))
    assert [line for line in lines if line.endswith("outside")] == [f"{each}\toutside" for each in network.gateways]
    assert "127.0.0.1\toutside" in files(make(driver="host", extra_hosts={"outside": "host-gateway"}), view())["hosts"]


def test_where_the_host_has_no_address_it_gets_no_name(view: View, make: Make) -> None:
    here = view()
    assert "outside" not in files(make(driver="none", extra_hosts={"outside": "host-gateway"}), here)["hosts"]
    (problem,) = here.problems
    assert problem.path == ("network", "extra_hosts", "outside")
    assert "in no bridged network" in problem.message


def test_hosts_without_an_address(view: View, make: Make) -> None:
    assert "127.0.1.1\tweb" in files(make(driver="none"), view())["hosts"].splitlines()


def test_hosts_on_the_hosts_network(make: Make) -> None:
    here = Host(FakeKernel({"/etc/hosts": "192.0.2.9 printer"}), Path("/run/pycore"), Path("/var/lib/pycore"))
    assert files(make(driver="host"), here)["hosts"] == "192.0.2.9 printer\n127.0.1.1\tweb\n"
    assert "printer" not in files(make(driver="none"), here)["hosts"]


LOOPBACK = "# by systemd\nnameserver 127.0.0.53\nnameserver ::1\nsearch lan\noptions edns0\n"


@pytest.mark.parametrize(
    ("driver", "etc", "behind", "fields", "wanted"),
    [
        ("none", "nameserver 192.0.2.53\n", None, {}, "nameserver 192.0.2.53\n"),
        ("none", LOOPBACK, "nameserver 192.0.2.1\n", {}, "nameserver 192.0.2.1\n"),
        ("host", LOOPBACK, None, {}, LOOPBACK.partition("\n")[2]),
        ("none", LOOPBACK, None, {"dns": ["9.9.9.9"]}, "search lan\noptions edns0\nnameserver 9.9.9.9\n"),
        ("none", "nameserver 192.0.2.5\nsearch a\n", None, {"dns_search": ["c"]}, "nameserver 192.0.2.5\nsearch c\n"),
        ("none", "nameserver 192.0.2.5\nsearch a\n", None, {"dns_search": ["."]}, "nameserver 192.0.2.5\n"),
        ("none", None, None, {"dns": ["2001:db8::1"]}, "nameserver 2001:db8::1\n"),
        ("bridge", LOOPBACK, None, {}, "search lan\noptions edns0\nnameserver 10.208.0.1\noptions ndots:0\n"),
        ("bridge", None, None, {"dns": ["9.9.9.9"]}, "nameserver 10.208.0.1\noptions ndots:0\n"),
        ("bridge", None, None, {"dns_options": ["ndots:2"]}, "nameserver 10.208.0.1\noptions ndots:2\n"),
    ],
)
def test_resolv_conf(
    make: Make, driver: str, etc: str | None, behind: str | None, fields: dict[str, Any], wanted: str
) -> None:
    kernel = FakeKernel({"/etc/resolv.conf": etc})
    if behind:
        kernel.add_file("/run/systemd/resolve/resolv.conf", behind)
    here = Host(kernel, Path("/run/pycore"), Path("/var/lib/pycore"))
    assert files(make(driver=driver, **fields), here)["resolv_conf"] == wanted


def test_resolv_conf_says_why_it_has_no_server(make: Make) -> None:
    here = Host(FakeKernel({"/etc/resolv.conf": LOOPBACK}), Path("/run/pycore"), Path("/var/lib/pycore"))
    text = files(make(driver="none"), here)["resolv_conf"]
    assert "nameserver" not in text
    assert text.startswith("# the host's name servers listen on its loopback only")


def test_the_resolver_is_told_whom_to_ask(view: View, make: Make) -> None:
    (own,) = names.pycore_prepare(make(dns=["9.9.9.9", "2001:db8::1"]), view())
    assert getattr(own, "servers") == "9.9.9.9\n2001:db8::1\n"  # noqa: B009
    (direct,) = names.pycore_prepare(make(driver="none", dns=["9.9.9.9"]), view())
    assert getattr(direct, "servers") == ""  # noqa: B009


@pytest.mark.parametrize(
    "fields", [{"dns": ["localhost"]}, {"dns_search": ["a b"]}, {"extra_hosts": {"a\nb": "192.0.2.1"}}]
)
def test_names_that_would_break_the_files(make: Make, fields: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        make(**fields)


# -- requirements ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "met"),
    [
        ({}, True),
        ({"/sys/module/veth/": ""}, True),
        ({"/lib/modules/6.1/modules.builtin": "", "/lib/modules/6.1/modules.dep": "kernel/net/other.ko:\n"}, False),
        ({"/lib/modules/6.1/modules.builtin": "kernel/drivers/net/veth.ko\n"}, True),
        ({"/lib/modules/6.1/modules.dep": "kernel/drivers/net/veth.ko.xz:\n"}, True),
    ],
)
def test_the_module_is_there_or_can_be(files: dict[str, str | None], met: bool) -> None:
    kernel = FakeKernel({"/proc/sys/kernel/osrelease": "6.1\n", **files})
    veth = next(need for need in requirements.modules(kernel) if need.what.endswith("veth"))
    assert veth.met is met
    assert veth.mend


def test_a_kernel_that_cannot_be_told_to_forget_connections_is_named() -> None:
    lists = {"/lib/modules/6.1/modules.builtin": "kernel/net/bridge/bridge.ko\nkernel/drivers/net/veth.ko\n"}
    without = FakeKernel({"/proc/sys/kernel/osrelease": "6.1\n", **lists})
    (missing,) = (need for need in requirements.modules(without) if not need.met)
    assert missing.what == "the kernel module nf_conntrack_netlink"
    assert "are not cut" in missing.why
    lists["/lib/modules/6.1/modules.dep"] = "kernel/net/netfilter/nf_conntrack_netlink.ko.zst: a b\n"
    assert all(need.met for need in requirements.modules(FakeKernel({"/proc/sys/kernel/osrelease": "6.1\n", **lists})))
