"""``pycore run``: flags in, a spec out."""

from __future__ import annotations

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st
from pycore.cli.parser import Parser
from pycore.errors import UsageError
from pycore.plugins import Plugins, load_plugins
from pycore.source.runflags import add_arguments, spec, to_toml
from pycore.source.variables import interpolate


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return load_plugins()


def source(plugins: Plugins, *words: str, environment: dict[str, str] | None = None) -> dict:
    parser = Parser(prog="pycore run")
    parser.add_argument("-d", action="store_true")
    add_arguments(parser, plugins)
    return tomli.loads(spec(parser.parse_args(words), plugins, environment or {}))


def test_flags_of_the_program_are_the_programs(plugins: Plugins) -> None:
    found = source(plugins, "--name", "x", "host", "ls", "-l", "--rm", "--", "-d")
    assert found["container"]["x"]["command"] == ["ls", "-l", "--rm", "--", "-d"]


def test_dockers_habits_become_fields(plugins: Plugins) -> None:
    found = source(
        plugins, "--name", "web", "-d", "--rm", "-e", "A=b=c", "-e", "FROM", "-e", "UNSET", "-v", "./site:/srv:ro",
        "-p", "8080:80", "-p", "53:53/udp", "-w", "/srv", "-u", "1000:1000", "--read-only", "--cap-add", "NET_ADMIN",
        "--cap-drop", "ALL", "--memory", "64M", "--hostname", "h", "./dir", "serve", environment={"FROM": "me"},
    )["container"]["web"]  # fmt: skip
    assert found["environment"] == {"A": "b=c", "FROM": "me"}
    assert found["storage"] == {"volumes": ["./site:/srv:ro"], "read_only": True}
    assert found["network"]["ports"] == ["8080:80", "53:53/udp"]
    assert found["working_dir"] == "/srv"
    assert found["isolation"] == {
        "user": "1000:1000", "cap_add": ["NET_ADMIN"], "cap_drop": ["ALL"], "hostname": "h",
    }  # fmt: skip
    assert found["resources"] == {"memory": "64M"}


@pytest.mark.parametrize("word", ["printer:192.0.2.7", "printer=192.0.2.7"])
def test_an_address_is_added_in_both_of_dockers_forms(plugins: Plugins, word: str) -> None:
    found = source(plugins, "--name", "x", "--add-host", word, "--add-host", "six:::1", "host", "true")
    assert found["container"]["x"]["network"] == {"extra_hosts": {"printer": "192.0.2.7", "six": "::1"}}


def test_a_name_without_address_is_refused_and_no_environment(plugins: Plugins) -> None:
    with pytest.raises(UsageError, match="'printer' is not KEY:VALUE"):
        source(plugins, "--add-host", "printer", "host", "true", environment={"printer": "192.0.2.7"})


def test_the_network_flag_chooses_the_driver(plugins: Plugins) -> None:
    assert source(plugins, "--network", "none", "--name", "x", "host", "true")["container"]["x"]["network"] == {
        "driver": "none"
    }


def test_the_network_flag_names_networks(plugins: Plugins) -> None:
    found = source(plugins, "--network", "back", "--network", "front", "--name", "x", "host", "true")
    assert found["container"]["x"]["network"] == {"networks": ["back", "front"]}
    assert found["network"] == {"back": {"external": True}, "front": {"external": True}}
    found = source(plugins, "--network", "container:db", "--name", "x", "host", "true")
    assert found["container"]["x"]["network"] == {"driver": "container", "container": "db"}
    assert "network" not in found


def test_flags_of_a_container_in_its_first_network(plugins: Plugins) -> None:
    words = ("--ip", "10.0.0.7", "--ip6", "fd00::7", "--network-alias", "a", "--network-alias", "b")
    attached = {"addresses": ["10.0.0.7", "fd00::7"], "aliases": ["a", "b"], "mac": "02:00:00:00:00:07"}
    more = ("--mac-address", "02:00:00:00:00:07", "--name", "x", "host", "true")
    found = source(plugins, "--network", "back", "--network", "front", *words, *more)
    assert found["container"]["x"]["network"] == {"networks": {"back": attached, "front": {}}}
    found = source(plugins, *words, *more)
    assert found["container"]["x"]["network"] == {"networks": {"default": attached}}


@pytest.mark.parametrize("word", ["a:b", ":"])
def test_a_network_flag_that_means_nothing(plugins: Plugins, word: str) -> None:
    with pytest.raises(UsageError, match="no such driver"):
        source(plugins, "--network", word, "host", "true")


def test_a_name_is_made_up_and_valid(plugins: Plugins) -> None:
    found = source(plugins, "host", "true")
    assert list(found["container"]) == [found["name"]]


@pytest.mark.parametrize("words", [["--nonesuch", "host"], [], ["-e", "=x", "host", "true"], ["--memory"]])
def test_what_cannot_be_meant_is_a_usage_error(plugins: Plugins, words: list[str]) -> None:
    with pytest.raises(UsageError):
        source(plugins, *words)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def tables(inner: st.SearchStrategy) -> st.SearchStrategy:
    """Small ones: what can go wrong is in a key or a value, or in how tables lie in each other, not in their number."""
    return st.dictionaries(texts, inner, max_size=3)


values = st.recursive(
    st.one_of(texts, st.booleans(), st.integers(-(2**53), 2**53)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), tables(inner)),
    max_leaves=4,
)


@given(tables(tables(tables(values))))
def test_toml_that_is_written_is_read_back(tree: dict) -> None:
    def resolved(value):
        if isinstance(value, str):
            return interpolate(value, {})
        if isinstance(value, list):
            return [resolved(item) for item in value]
        return {key: resolved(item) for key, item in value.items()} if isinstance(value, dict) else value

    assert resolved(tomli.loads(to_toml(tree))) == tree
