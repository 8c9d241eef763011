"""The resolver is there as long as there is a network and an engine, and costs nothing before."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pycore.errors import PycoreError
from pycore.hookspecs import Host
from pycore.linux.kernel import Kernel
from pycore.testing.fake import FakeKernel
from pycore_network.egress.policy import Egress
from pycore_network.resolver import place
from pycore_network.resolver.service import ResolverService

RUN = Path("/run/here")
NETWORK = f"{RUN}/networks/shop_default"


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "pycore-resolver"]


@pytest.fixture
def kernel() -> FakeKernel:
    kernel = FakeKernel()
    kernel.mkdir(str(RUN))
    return kernel


def made(kernel: FakeKernel) -> ResolverService:
    host = Host(kernel, RUN, Path("/var/lib/here"))
    return ResolverService(host, kernel, lambda: Egress(kernel, str(RUN), "here"))


@pytest.fixture
def service(kernel: FakeKernel) -> Iterator[ResolverService]:
    service = ResolverService(
        Host(kernel, RUN, Path("/var/lib/here")), kernel, lambda: Egress(kernel, str(RUN), "here")
    )
    yield service
    service.close()


def test_it_begins_with_the_first_network_and_ends_with_the_last(kernel: FakeKernel, service: ResolverService) -> None:
    before = kernel.calls.copy()
    service.changed()
    assert (kernel.calls, threads()) == (before, [])
    kernel.mkdir(NETWORK)
    service.changed()
    service.changed()
    assert threads() == ["pycore-resolver"]
    assert place.recorded(kernel, RUN) in range(914, 953)
    kernel.rmtree(NETWORK)
    service.changed()
    assert threads() == []
    assert not kernel.exists(place.path_of(RUN))


def test_the_next_engine_takes_the_same_port(kernel: FakeKernel, service: ResolverService) -> None:
    kernel.mkdir(NETWORK)
    service.changed()
    service.close()
    assert threads() == []
    service.changed()  # somebody's last operation, after the end
    assert threads() == []
    kernel.replace(place.path_of(RUN), "950")
    following = ResolverService(
        Host(kernel, RUN, Path("/var/lib/here")), kernel, lambda: Egress(kernel, str(RUN), "here")
    )
    following.changed()
    assert place.recorded(kernel, RUN) == 950
    following.close()


def test_the_table_leads_queries_to_it_whoever_comes_first(kernel: FakeKernel, service: ResolverService) -> None:
    table = service_table(kernel)
    kernel.mkdir(NETWORK)
    service.changed()
    kernel.nft(f"table inet {table} {{\n map resolver {{ type inet_service : ipv4_addr . inet_service; }}\n}}")
    place.redirect(kernel, RUN, table)
    port = place.recorded(kernel, RUN)
    assert kernel.nft_elements(f"inet {table}", "resolver") == {"53": f"127.0.0.1 . {port}"}
    kernel.replace(place.path_of(RUN), "951")
    place.redirect(kernel, RUN, table)
    assert kernel.nft_elements(f"inet {table}", "resolver") == {"53": "127.0.0.1 . 951"}


def service_table(kernel: FakeKernel) -> str:
    return Host(kernel, RUN, Path("/var/lib/here")).instance


def test_where_it_cannot_listen_that_is_said_and_tried_again(
    kernel: FakeKernel, service: ResolverService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(kind: int, address: str, port: int) -> socket.socket:
        raise PermissionError(1, "Operation not permitted")

    kernel.mkdir(NETWORK)
    monkeypatch.setattr(kernel, "listen", refuse)
    with pytest.raises(PycoreError, match="containers find no names: no port to listen at: Operation not permitted"):
        service.changed()
    monkeypatch.undo()
    service.changed()
    assert threads() == ["pycore-resolver"]


def test_a_port_that_somebody_has_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = [sock.getsockname()[1] for sock in (one, other)]
        (tmp_path / "resolver").write_text(str(taken[0]))
        monkeypatch.setattr(place, "_PORTS", taken)
        port, udp, tcp = place.take(Kernel(), tmp_path, "pycore")
        assert port not in taken
        assert udp.getsockname() == tcp.getsockname() == ("127.0.0.1", port)
        udp.close()
        tcp.close()


def test_nothing_heavy_is_imported_with_the_plugins() -> None:
    code = (
        "import sys; from pycore.plugins import load_plugins; load_plugins(); import pycore_network.resolver.running; "
        "print(sorted(name for name in sys.modules if name == 'dns' or name.endswith('resolver.wire')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"
