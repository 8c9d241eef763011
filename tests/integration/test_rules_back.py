"""Rules that somebody else throws away are put back at once, when the kernel tells of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pycore.linux import nfnetlink, nftables, nftelements
from pycore.linux.nftelements import Element, Put, Withdraw
from pycore.linux.nftevents import Deletions
from pycore_network import ruleset
from pycore_network.ops import kept
from pycore_network.watch import Watch
from support.lab import LAN_HOST, Lab, made_lab
from support.netns import peer_seen

pytestmark = [pytest.mark.root, pytest.mark.needs("libnftables", "ip")]

PORTS = ["8080:80", {"port": 81, "host_port": 8081, "expose": "lan"}, "5300-5303:53-56/udp"]


class Observed(Watch):
    """Says when it has put something back."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab.view(), lab.kernel)
        self.times = threading.Semaphore(0)

    def _put_back(self) -> None:
        super()._put_back()
        self.times.release()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with made_lab(tmp_path) as made:
        yield made


@pytest.fixture
def watch(lab: Lab) -> Iterator[Observed]:
    """It hears and acts on the lab's host: its thread is born there."""
    watching = Observed(lab)
    with lab.host.entered():
        lab.start("shop/other", ports=["9090:90"])
    yield watching
    watching.close()


def begin(lab: Lab, watch: Watch) -> None:
    with lab.host.entered():
        watch.changed()


def contents(lab: Lab) -> dict[str, dict[str, str]]:
    """All elements of ours."""
    with lab.host.entered():
        return {
            f"{family} {place}": nftelements.elements(f"{family} {lab.view().instance}", place)
            for family, places in ruleset.PLACES.items()
            for place in places
        }


def chains(lab: Lab) -> str:
    with lab.host.entered():
        tables = (nftables.listing(f"table {family} {lab.view().instance}") for family in ("inet", "bridge"))
        lines = "".join(tables).splitlines()
    return "\n".join(line for line in lines if "elements" not in line and not line.startswith("\t\t\t"))


@pytest.mark.parametrize(
    "harm",
    [
        "nft flush ruleset",
        "nft delete table inet TABLE",
        "nft delete table bridge TABLE",
        "nft flush table inet TABLE",
        "nft flush chain inet TABLE forward",
        "nft flush chain bridge TABLE prerouting",
        "nft delete chain inet TABLE postrouting",
    ],
)
def test_what_was_thrown_away_is_back(lab: Lab, watch: Observed, harm: str) -> None:
    web = lab.start(ports=PORTS)
    begin(lab, watch)
    before = contents(lab), chains(lab)
    lab.host.run(harm.replace("TABLE", lab.view().instance))
    assert watch.times.acquire(timeout=10)
    assert (contents(lab), chains(lab)) == before
    with web.namespace.listen(80) as server:
        peer_seen(lab.neighbour.socket(), server, (LAN_HOST, 8080))
    assert not watch.times.acquire(blocking=False)  # its own change is no reason for another


def test_the_reload_of_another_firewall(lab: Lab, watch: Observed, tmp_path: Path) -> None:
    """A file that begins with flush, and brings back what was there when it was written: with ports of then."""
    saved = tmp_path / "nftables.conf"
    lab.host.run("nft add table inet theirs")
    saved.write_text("flush ruleset\n" + lab.host.run("nft list ruleset"), encoding="utf-8")
    web = lab.start(ports=PORTS)
    begin(lab, watch)
    before = contents(lab)
    lab.host.run(f"nft -f {saved}")
    assert watch.times.acquire(timeout=10)
    assert contents(lab) == before
    assert "table inet theirs" in lab.tables()
    with web.namespace.listen(80) as server:
        peer_seen(lab.neighbour.socket(), server, (LAN_HOST, 8080))


def test_what_was_thrown_away_while_nobody_looked(lab: Lab, watch: Observed) -> None:
    before = contents(lab)
    lab.host.run("nft flush ruleset")
    begin(lab, watch)
    assert watch.times.acquire(blocking=False)
    assert contents(lab) == before


def test_a_join_puts_all_back(lab: Lab) -> None:
    """Where no engine watches: whoever finds the tables gone makes them with all that is kept."""
    web = lab.start(ports=PORTS)
    lab.host.run("nft flush ruleset")
    lab.start("bank/desk")
    with web.namespace.listen(80) as server:
        peer_seen(lab.neighbour.socket(), server, (LAN_HOST, 8080))


def test_others_rules_and_our_own_changes_are_no_matter(lab: Lab, watch: Observed) -> None:
    begin(lab, watch)
    lab.host.run("nft add table inet theirs")
    lab.host.run("nft delete table inet theirs")
    lab.stop(lab.start(ports=PORTS))
    lab.host.run("nft flush ruleset")
    assert watch.times.acquire(timeout=10)
    assert not watch.times.acquire(blocking=False)


def test_with_the_last_network_it_ends(lab: Lab, watch: Observed) -> None:
    begin(lab, watch)
    threads = threading.active_count()
    lab.stop(lab.running[0])
    begin(lab, watch)
    assert threading.active_count() == threads - 1
    assert lab.tables() == []


def test_what_is_kept_and_is_no_good_keeps_nothing_else_out(lab: Lab) -> None:
    web = lab.start(ports=PORTS)
    (lab.run_dir / "networks/shop_default/rules/broken").write_text("this is no command\n", encoding="ascii")
    with lab.host.entered(), pytest.raises(OSError, match="not all of the rules"):
        kept.make_anew(lab.kernel, str(lab.run_dir), lab.view().instance)
    with web.namespace.listen(80) as server:
        peer_seen(lab.neighbour.socket(), server, (LAN_HOST, 8080))


def test_deletions_are_heard_and_our_own_are_not(lab: Lab) -> None:
    with lab.host.entered():
        nftables.run("table inet one {\n chain c {\n  accept\n }\n}\ntable inet two { }\ntable ip one { }")
        deletions = Deletions("one")
        try:
            for command, wanted in (
                ("delete table inet two", False),
                ("delete table ip one", False),
                ("add chain inet one d", False),
                ("flush chain inet one c", True),
                ("delete chain inet one d", True),
                ("delete table inet one", True),
            ):
                lab.host.run(f"nft {command}")
                assert deletions.read() is wanted, command
            nftables.run("add table inet one; delete table inet one")
            assert deletions.read() is False
        finally:
            deletions.close()


def test_nobody_waits_for_the_kernel_where_elements_come_and_go(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """To close a socket to nftables does, and then whoever changes anything waits, too."""
    asked: list[object] = []
    element = Element("inet", "s", "tcp")
    with lab.host.entered(), closing(Deletions("one")) as deletions:
        nftables.run("table inet one {\n set s { type inet_proto; }\n}")
        nftelements.change("one", [Put(element)])
        monkeypatch.setattr(nfnetlink, "open_socket", lambda: asked.append(None))
        nftelements.change("one", [Withdraw(element)])
        assert deletions.read() is False
    assert not asked


def test_a_thousand_ports_are_no_more_rules_than_one(lab: Lab) -> None:
    lab.start("shop/other", ports=["9090:90"])
    one = chains(lab)
    lab.start("shop/web", ports=["1000-1999:1000-1999", "2000-2009:2000-2009/udp"])
    assert chains(lab) == one
