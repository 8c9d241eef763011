"""The driver pasta, described on a host in memory: what it is told, and what stands in its way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pydantic
import pytest
from pycore.errors import Problem
from pycore.hookspecs import Host
from pycore.ops import Context, from_record, to_record
from pycore.spec import App, Container, Section
from pycore.testing.fake import FakeKernel
from pycore_network import names, pasta
from pycore_network.names import Names
from pycore_network.ops.names import NameFiles
from pycore_network.ops.pasta import RESOLVER, Pasta
from pycore_network.pasta import PastaNetwork

HERE = {"/usr/bin/pasta": "", "/dev/net/tun": ""}


def container(*ports: str | dict[str, Any]) -> Container:
    sections: dict[type[Section], Section] = {
        PastaNetwork: PastaNetwork.model_validate({"ports": ports}),
        Names: Names(),
    }
    return Container(App("shop", Path("/"), {}), "web", {"network": "pasta"}, sections, "c0ffee")


def problems(*ports: str | dict[str, Any]) -> list[Problem]:
    """Of an app with one container that publishes these."""
    web = container(*ports)
    return list(pasta.pycore_validate(App("shop", Path("/"), {}, {"web": web})))


def host(files: Mapping[str, str | None] | None = None) -> Host:
    kernel = FakeKernel({**HERE, **(files or {})})
    kernel.network_is_ours = False
    return Host(kernel, Path("/run/pycore"), Path("/var/lib/pycore"))


def described(here: Host, *ports: str | dict[str, Any]) -> Pasta:
    (operation,) = pasta.pycore_attach(container(*ports), here)
    assert isinstance(operation, Pasta)
    return operation


def refused(here: Host, *ports: str | dict[str, Any]) -> tuple[str, str | None]:
    """The one problem that there is, and its hint."""
    described(here, *ports)
    (problem,) = here.problems
    return problem.message, problem.hint


@pytest.mark.parametrize(
    ("entry", "tcp", "udp"),
    [
        ("8080:80", ("8080:80",), ()),
        ("127.0.0.1:8080:80", ("127.0.0.1/8080:80",), ()),
        ("[::1]:8080:80", ("::1/8080:80",), ()),
        ("5353:53/udp", (), ("5353:53",)),
        ("8000-8002:9000-9002", ("8000-8002:9000-9002",), ()),
        ({"port": 8080, "expose": "host"}, ("127.0.0.1/8080:8080",), ()),
    ],
)
def test_ports_in_its_own_words(entry: str | dict[str, Any], tcp: Sequence[str], udp: Sequence[str]) -> None:
    operation = described(host(), entry)
    assert (operation.tcp, operation.udp) == (tcp, udp)


def test_it_leads_in_what_was_asked_for_and_reaches_no_loopback_of_the_host() -> None:
    here = host()
    kernel = here.look
    assert isinstance(kernel, FakeKernel)
    operation, ctx = described(here, "8080:80"), Context(kernel, "shop/web", pid=7)
    assert from_record(to_record(operation)) == operation
    assert operation.probe(ctx) is False
    operation.do(ctx)
    (words,) = kernel.helpers.values()
    pairs = dict(pairwise(words))
    assert (pairs["-t"], pairs["-u"], pairs["-T"], pairs["-U"]) == ("8080:80", "none", "none", "none")
    assert pairs["--dns-forward"] == RESOLVER
    assert "--no-map-gw" in words
    assert operation.probe(ctx) is True
    operation.undo(ctx)
    operation.undo(ctx)
    assert not kernel.helpers


def test_without_the_program_or_the_device_it_says_how_to_get_them() -> None:
    message, hint = refused(host({"/usr/bin/pasta": None}))
    assert "not installed" in message
    assert hint == "apt-get install passt"
    message, hint = refused(host({"/dev/net/tun": None}))
    assert "may not open" in message
    assert hint == "as root: chmod 666 /dev/net/tun"
    unmet = [need for need in pasta.pycore_requirements(host({"/usr/bin/pasta": None}).look) if not need.met]
    assert [need.what for need in unmet] == ["pasta"]


def test_a_port_below_those_for_everybody() -> None:
    low = {"/proc/sys/net/ipv4/ip_unprivileged_port_start": "1024\n"}
    message, hint = refused(host(low), "80:80")
    assert message == "a normal user may not publish port 80 of the host"
    assert "ip_unprivileged_port_start=80" in str(hint)
    here = host(low)
    described(here, "1024:80")
    assert not here.problems


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ("8080:80/sctp", "sctp"),
        ({"port": 80, "expose": "lan"}, '`expose = "lan"`'),
        ({"port": 80, "allow_from": ["10.0.0.0/8"]}, "`allow_from`"),
        ({"port": 80, "proxy": True}, "`proxy`"),
    ],
)
def test_what_only_rules_can_do_is_refused(entry: str | dict[str, Any], word: str) -> None:
    (problem,) = problems(entry)
    assert problem.message == f"pasta knows nothing of {word}"
    assert problem.path == ("container", "web", "network", "ports", 0)


def test_a_port_twice() -> None:
    (problem,) = problems("8080:80", "127.0.0.1:8080:81")
    assert "published twice" in problem.message


def test_its_resolver_is_asked_where_the_hosts_is_on_the_loopback() -> None:
    behind = {"nameserver 127.0.0.53\nsearch lan\n": RESOLVER, "nameserver 192.0.2.53\n": "192.0.2.53"}
    for text, server in behind.items():
        (files,) = names.pycore_prepare(container(), host({"/etc/resolv.conf": text}))
        assert isinstance(files, NameFiles)
        assert [line for line in files.resolv_conf.splitlines() if "nameserver" in line] == [f"nameserver {server}"]


def test_ports_are_checked_as_everywhere() -> None:
    with pytest.raises(pydantic.ValidationError):
        PastaNetwork(ports=("80",))
