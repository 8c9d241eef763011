"""``[container.NAME.health]``: what may be written there, and what is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycore.errors import Problem, SpecError
from pycore.hookspecs import Host
from pycore.plugins import load_plugins
from pycore.source.load import load_source
from pycore.spec import Change
from pycore_supervision.health import Health, pycore_health
from pycore_supervision.notation import Address, Url, parse_address, parse_url
from pycore_supervision.probes import CommandProbe, FileProbe, HttpProbe, TcpProbe, UnixProbe


@pytest.mark.parametrize(
    ("fields", "probe"),
    [
        ({"command": ["pg_isready", "-q"]}, CommandProbe(("pg_isready", "-q"))),
        ({"shell": "test -e /x || exit 1"}, CommandProbe(("/bin/sh", "-c", "test -e /x || exit 1"))),
        ({"http": ":8080/healthz"}, HttpProbe(Url(Address("127.0.0.1", 8080), "/healthz"))),
        ({"tcp": ":5432"}, TcpProbe(Address("127.0.0.1", 5432))),
        ({"unix": "/run/x.sock"}, UnixProbe("/run/x.sock")),
        ({"file": "/run/ready"}, FileProbe("/run/ready")),
    ],
)
def test_each_way_to_ask(make: Any, host: Host, fields: dict[str, Any], probe: object) -> None:
    check = pycore_health(make(**fields), host)
    assert check
    assert check.probe == probe
    assert check.probe.explain()


def test_defaults_are_those_people_know(make: Any, host: Host) -> None:
    check = pycore_health(make(file="/run/ready"), host)
    assert check
    assert (check.interval, check.timeout, check.retries) == (30, 30, 3)
    assert (check.start_period, check.start_interval, check.on_unhealthy) == (0, 5, "none")


def test_every_number_arrives(make: Any, host: Host) -> None:
    times = {"interval": "1s", "timeout": "2s", "start_period": "3s", "start_interval": "4s"}
    check = pycore_health(make(file="/x", retries=5, on_unhealthy="restart", **times), host)
    assert check
    assert (check.interval, check.timeout, check.start_period, check.start_interval) == (1, 2, 3, 4)
    assert (check.retries, check.on_unhealthy) == (5, "restart")


def test_nobody_asks_where_nothing_is_said(make: Any, host: Host) -> None:
    assert pycore_health(make(), host) is None


def test_all_of_it_changes_while_the_container_runs() -> None:
    assert {Health.change_of(name) for name in Health.model_fields} == {Change.LIVE}


@pytest.mark.parametrize(
    "fields",
    [{"interval": "0s"}, {"timeout": "9ms"}, {"start_interval": "0s"}, {"retries": 0}, {"on_unhealthy": "kill"},
     {"http": "https://127.0.0.1/"}, {"tcp": "5432"}, {"unix": "x.sock"}, {"file": "/../x"}, {"command": [""]}],
)  # fmt: skip
def test_what_is_no_check(fields: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        Health(**fields)


def problems(health: dict[str, Any]) -> list[Problem]:
    source = {"name": "shop", "container": {"web": {"image": "host", "replicas": 2, "health": health}}}
    with pytest.raises(SpecError) as caught:
        load_source(source, directory=Path("/"), plugins=load_plugins())
    return list(caught.value.problems)


def test_one_way_only() -> None:
    [problem] = problems({"tcp": ":80", "http": ":80"})
    assert problem.path == ("container", "web", "health", "tcp")
    assert problem.message == "http is there already: a container is asked in one way"


def test_table_must_say_what_is_asked() -> None:
    [problem] = problems({"interval": "1s"})
    assert problem.path == ("container", "web", "health")
    assert problem.hint == "one of command, shell, http, tcp, unix or file"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":80", "127.0.0.1:80"),
        ("localhost:80", "127.0.0.1:80"),
        ("10.1.2.3:65535", "10.1.2.3:65535"),
        ("[::1]:1", "[::1]:1"),
        ("[0:0::1]:1", "[::1]:1"),
    ],
)
def test_addresses(text: str, address: str) -> None:
    assert str(parse_address(text)) == address


@pytest.mark.parametrize(
    "text",
    ["", ":", "80", ":0", ":65536", ":٣", ":-1", "::1:80", "[127.0.0.1]:80", "db:80", "[::1", "::1]:80",
     "[fe80::1%eth0]:1", "[]:80", " :80", "127.1:80", "0x7f.1:80", ":80 "],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        (":8080", "http://127.0.0.1:8080/"),
        (":8080/healthz?deep=1", "http://127.0.0.1:8080/healthz?deep=1"),
        ("http://localhost/x", "http://127.0.0.1:80/x"),
        ("http://10.0.0.1:8080", "http://10.0.0.1:8080/"),
        ("http://[::1]/", "http://[::1]:80/"),
        ("http://[::1]:81/a//b", "http://[::1]:81/a//b"),
        ("http://:81/x", "http://127.0.0.1:81/x"),
    ],
)
def test_pages(text: str, url: str) -> None:
    assert str(parse_url(text)) == url


@pytest.mark.parametrize(
    "text",
    ["", "x", "/healthz", "8080/x", "https://127.0.0.1/", "http://", "http:///x", "http://user@127.0.0.1/", "ftp://127.0.0.1/",
     ":80/a b", ":80/a\r\nX: y", ":80/é", ":80/#x", "http://example.org/", "HTTP://127.0.0.1/", "http://127.0.0.1?x"],
)  # fmt: skip
def test_what_is_no_page(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse_url(text)


@given(st.text(max_size=40) | st.text(":/[]@?#.0123456789htp", max_size=20).map(lambda rest: f"http://{rest}"))
def test_nothing_that_is_taken_can_break_a_request(text: str) -> None:
    try:
        url = parse_url(text)
    except ValueError:
        return
    assert parse_url(str(url)) == url
    assert all("!" <= char <= "~" for char in f"{url.path}{url.address}")
