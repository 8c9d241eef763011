"""What is told of the host's own firewall is what the kernel does: rules of many kinds, and packets that meet them."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pycore.hookspecs import Host
from pycore.linux import nftables
from pycore.linux.look import Look
from pycore_network.hostfirewall import questions
from pycore_network.hostfirewall.questions import Port
from pycore_network.hostfirewall.ruleset import Ruleset, of_others, read
from pycore_network.hostfirewall.walk import Fate, Outcome
from pycore_network.hostfirewall.ways import ways
from support.netns import Namespace

pytestmark = [pytest.mark.root, pytest.mark.needs("libnftables", "ip", "nft")]

HERE, THERE = {4: "192.0.2.1", 6: "2001:db8::1"}, {4: "192.0.2.2", 6: "2001:db8::2"}
PORTS = (80, 443, 5000, 8080)
LAST = 9
"""A port that all rulesets let in: when what was sent to it has come, what was sent before has met its fate."""


class Lab:
    """A host, and a neighbour that sends to it."""

    def __init__(self) -> None:
        self.host, self.neighbour = Namespace(loopback=True), Namespace()
        peer = f"ip link add eth0 type veth peer name eth0 netns {self.neighbour.pid}"
        for command in (peer, *self._addresses(HERE)):
            self.host.run(command)
        for command in self._addresses(THERE):
            self.neighbour.run(command)
        self.host.run(f"ip route add default via {THERE[4]}")
        self.host.run(f"ip -6 route add default via {THERE[6]}")
        self.listeners = {(version, port): self._listen(version, port) for version in (4, 6) for port in (*PORTS, LAST)}
        self.sources = {version: self._socket(self.neighbour, version) for version in (4, 6)}

    def close(self) -> None:
        for sock in (*self.listeners.values(), *self.sources.values()):
            sock.close()
        self.host.close()
        self.neighbour.close()

    @staticmethod
    def _addresses(own: dict[int, str]) -> list[str]:
        v6 = f"ip -6 addr add {own[6]}/64 dev eth0 nodad"
        return [f"ip addr add {own[4]}/24 dev eth0", "ip link set eth0 up", v6]

    @staticmethod
    def _socket(namespace: Namespace, version: int) -> socket.socket:
        with namespace.entered():
            sock = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        sock.settimeout(10)
        return sock

    def _listen(self, version: int, port: int) -> socket.socket:
        sock = self._socket(self.host, version)
        if version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((HERE[version], port))
        sock.setblocking(port == LAST)
        return sock

    def load(self, text: str) -> None:
        with self.host.entered():
            try:
                nftables.run(f"flush ruleset\n{text}")
            except OSError as error:  # matches that exclude each other
                assume("conflicting" not in str(error))
                raise

    def got_in(self, version: int, port: int) -> bool:
        """Whether a datagram of a new connection arrives."""
        with self._socket(self.neighbour, version) as fresh:
            fresh.sendto(b"test", (HERE[version], port))
            fresh.sendto(b"last", (HERE[version], LAST))
        assert self.listeners[version, LAST].recv(10) == b"last"
        try:
            return self.listeners[version, port].recv(10) == b"test"
        except BlockingIOError:
            return False

    def told(self) -> dict[tuple[int, int], Fate]:
        """What is told of each port."""
        with self.host.entered():
            rules = read(Look(), {})
            return {
                (version, port): questions.into_host(
                    rules, Port(version, "udp", port, ip_address(HERE[version])), "eth0", ip_address(THERE[version])
                ).fate
                for version in (4, 6)
                for port in PORTS
            }

    def agree(self) -> None:
        for (version, port), told in self.told().items():
            assert told is (Fate.ACCEPTED if self.got_in(version, port) else Fate.DROPPED), (version, port)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    made = Lab()
    yield made
    made.close()


a = st.sampled_from

# -- plain nft -------------------------------------------------------------------------------------------

ports = a(["80", "443", "5000", "8080", "1-1024", "5000-9000"])
negated = a(["", "!= "])
several = st.lists(ports, min_size=1, max_size=3, unique=True).filter(
    lambda words: (
        not ({"1-1024", "80", "443"} <= {*words, "1-1024"} and len({*words} & {"1-1024", "80", "443"}) > 1)
        and len({*words} & {"5000-9000", "5000", "8080"}) < 2
    )
)
addresses = a(
    [
        "192.0.2.2",
        "192.0.2.0/24",
        "192.0.2.9",
        "10.0.0.0/8",
        "{ 10.0.0.0/8, 192.0.2.2 }",
        "192.0.2.1-192.0.2.5",
        "@known",
    ]
)


def _any_of(sign: str, words: list[str]) -> str:
    return f"udp dport {sign}{{ {', '.join(words)} }}"


matches = st.one_of(
    st.builds("udp dport {}{}".format, negated, ports),
    st.builds(_any_of, negated, several),
    st.builds("th dport {}@wanted".format, negated),
    st.builds("udp dport {} 5000".format, a(["<", ">", "<=", ">="])),
    st.builds("ip saddr {}{}".format, negated, addresses),
    st.builds("ip daddr {}192.0.2.1".format, negated),
    st.builds("ip6 saddr {}2001:db8::/32".format, negated),
    st.builds("iifname {}".format, a(['"eth0"', '"eth*"', '"lo"', '!= "lo"', '{ "lo", "eth0" }', '!= "eth*"'])),
    st.builds("meta l4proto {}".format, a(["udp", "tcp", "{ tcp, udp }", "!= icmp"])),
    st.builds("meta nfproto {}".format, a(["ipv4", "ipv6"])),
    st.builds("ip protocol {}".format, a(["udp", "tcp"])),
    st.builds("ct state {}".format, a(["new", "established,related", "{ new, untracked }", "!= new", "invalid"])),
    st.builds("ct status {}".format, a(["dnat", "!= dnat"])),
    st.builds("meta mark {}".format, a(["0", "1", "!= 1", "& 0x3 == 1"])),
    st.builds("meta pkttype {}".format, a(["host", "broadcast", "!= host"])),
    st.builds("fib daddr type {}".format, a(["local", "!= local", "broadcast"])),
    st.just("tcp flags syn"),
    st.just("tcp dport 80"),
    st.just("icmp type echo-request"),
    st.just("ip saddr . udp dport @pairs"),
    st.just("ip saddr . udp dport { 192.0.2.0/24 . 8080, 10.0.0.1 . 80 }"),
    st.just("limit rate 1000000/second"),
    st.just("limit rate over 1000000/second"),
    st.just("counter"),
    st.just("meta mark set 1"),
)
verdicts = a(
    ["accept", "drop", "return", "continue", "jump one", "goto one", "jump two", "reject", "counter accept",
     "meta mark set 0x1", "reject with icmpx admin-prohibited", "udp dport vmap @decided",
     "udp dport vmap { 80 : accept, 443 : drop, 5000-9000 : jump one }",
     "ip saddr vmap { 192.0.2.0/24 : goto two, 10.0.0.0/8 : accept }",
     'iifname vmap { "lo" : accept, "eth0" : jump two }',
     "ct state vmap { established : accept, new : jump two, invalid : drop }",
     "meta nfproto vmap { ipv4 : drop, ipv6 : continue }"]
)  # fmt: skip


def _level(verdict: str) -> int:
    """The lowest chain that a verdict may stand in: who calls the other must not be called by it."""
    return 0 if re.search(r"(jump|goto) one|@decided", verdict) else 1 if re.search(r"(jump|goto) two", verdict) else 2


@st.composite
def rule(draw: st.DrawFn, level: int) -> str:
    """A rule of a base chain (0), of chain one, which may call two (1), or of chain two, which calls none (2)."""
    verdict = draw(verdicts.filter(lambda text: _level(text) >= level))
    return " ".join([*draw(st.lists(matches, max_size=2)), verdict])


def chain(name: str, rules: list[str], hook: str = "", last: str = "") -> str:
    return f"chain {name} {{\n" + "".join(f"{line}\n" for line in (hook, last, *rules) if line) + "}\n"


@st.composite
def tables(draw: st.DrawFn) -> str:
    """A table with two chains that the kernel calls, one after the other."""
    rules = {level: st.lists(rule(level), max_size=6) for level in range(3)}
    text = "table inet theirs {\n"
    text += "set wanted { type inet_service; flags interval; elements = { 80, 5000-6000 } }\n"
    text += "set known { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.0.2.2 } }\n"
    text += "set pairs { type ipv4_addr . inet_service; elements = { 192.0.2.2 . 443, 192.0.2.9 . 80 } }\n"
    text += chain("two", draw(rules[2])) + chain("one", draw(rules[1]))
    text += "map decided { type inet_service : verdict; elements = { 443 : jump one, 5000 : accept, 8080 : drop } }\n"
    for priority in (0, 10):
        policy = draw(a(["accept", "drop"]))
        hook = f"type filter hook input priority {priority}; policy {policy};"
        neighbours = f"meta l4proto ipv6-icmp accept\nudp dport {LAST} accept"
        text += chain(f"input{priority}", draw(rules[0]), hook, neighbours)
    return text + "}\n"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables())
def test_any_rules_of_nftables(lab: Lab, text: str) -> None:
    lab.load(text)
    lab.agree()


# -- iptables ---------------------------------------------------------------------------------------------

unless = a(["", "! "])
iptables_matches = st.one_of(
    st.builds("-p udp -m udp {}--dport {}".format, unless, a(["80", "443", "5000:9000"])),
    st.builds("-p udp -m multiport {}--dports {}".format, unless, a(["80,443", "1:100,5000", "8080"])),
    st.builds("-m conntrack {}--ctstate {}".format, unless, a(["NEW", "RELATED,ESTABLISHED", "INVALID", "NEW,DNAT"])),
    st.builds("-m addrtype {}--dst-type {}".format, unless, a(["LOCAL", "BROADCAST", "MULTICAST"])),
    st.builds("-m addrtype {}--src-type UNICAST".format, unless),
    st.builds("-m mark {}--mark {}".format, unless, a(["0x0", "0x1/0x3", "0x0/0xff"])),
    st.builds("-m pkttype {}--pkt-type {}".format, unless, a(["unicast", "broadcast"])),
    st.builds("-i {}".format, a(["eth0", "eth+", "lo"])),
    st.builds("! -i {}".format, a(["eth0", "lo"])),
    st.just('-m comment --comment "as it is"'),
    st.just("-m limit --limit 10000/sec"),
    st.just("-p tcp -m tcp --dport 80 --tcp-flags FIN,SYN,RST,ACK SYN"),
    st.just("-p tcp"),
)  # fmt: skip
only4 = st.one_of(
    st.builds("{}-s {}".format, unless, a(["192.0.2.2", "192.0.2.0/24", "10.0.0.0/8"])),
    st.builds("-m iprange {}--src-range {}".format, unless, a(["192.0.2.1-192.0.2.9", "10.0.0.1-10.0.0.9"])),
    st.builds("-m iprange {}--dst-range 192.0.2.1-192.0.2.1".format, unless),
)  # fmt: skip
targets = a(["ACCEPT", "DROP", "RETURN", "REJECT", "LOG", "one", "MARK --set-mark 1"])


@st.composite
def iptables(draw: st.DrawFn, version: int) -> str:
    matches = (
        st.one_of(iptables_matches, only4)
        if version == 4
        else iptables_matches.filter(lambda text: "BROADCAST" not in text)
    )
    policy = draw(a(["ACCEPT", "DROP"]))
    lines = ["*filter", f":INPUT {policy} [0:0]", ":one - [0:0]", f"-A INPUT -p udp -m udp --dport {LAST} -j ACCEPT"]
    if version == 6:
        lines.append("-A INPUT -p ipv6-icmp -j ACCEPT")
    for name in ("INPUT", "one"):
        for _ in range(draw(st.integers(0, 6))):
            words, used = list[str](), set[str]()
            for match in draw(st.lists(matches, max_size=2)):
                asks = {word for word in match.split() if word not in ("-m", "!") and not word[0].isdigit()}
                if not asks & used:  # iptables takes each option once
                    words.append(match)
                    used |= asks
            target = draw(targets if name == "INPUT" else targets.filter(lambda each: each != "one"))
            lines.append(" ".join(["-A", name, *words, "-j", target]))
    return "\n".join([*lines, "COMMIT", ""])


@pytest.mark.needs("iptables")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(iptables(4), iptables(6))
def test_any_rules_of_iptables(lab: Lab, four: str, six: str) -> None:
    lab.load("")
    for program, text in (("iptables-nft-restore", four), ("ip6tables-nft-restore", six)):
        words = ["nsenter", "-t", str(lab.host.pid), "--net", program]
        subprocess.run(words, input=text, text=True, check=True, capture_output=True)
    lab.agree()


# -- programs that keep a firewall --------------------------------------------------------------------------

_UFW = f"""
mount -t tmpfs none /run
cp -a /etc/ufw "$0/ufw"
mount --bind "$0/ufw" /etc/ufw
ufw allow {LAST}/udp
ufw allow 80/udp
ufw allow from 10.0.0.0/8 to any port 443
ufw deny 5000
ufw --force enable
"""
_FIREWALLD = f"""
mount -t tmpfs none /run
mkdir -p /run/dbus
cp -a /etc/firewalld "$0/firewalld"
mount --bind "$0/firewalld" /etc/firewalld
dbus-daemon --system --fork
firewalld --nofork --nopid > "$0/log" 2>&1 < /dev/null &
until firewall-cmd --state > /dev/null 2>&1; do kill -0 $! || exit 1; done
firewall-cmd --add-port={LAST}/udp --add-port=80/udp
firewall-cmd --zone=trusted --add-source=10.0.0.0/8
"""


def keep(lab: Lab, script: str, directory: Path) -> None:
    """Have a program make its rules. It sees files and processes of its own alone, and is killed when it has."""
    lab.load("")
    words = ["nsenter", "-t", str(lab.host.pid), "--net", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
    done = subprocess.run(
        [*words, "--mount-proc", "sh", "-e", "-c", script, str(directory)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def words_of(lab: Lab, outcome: Callable[[Ruleset], Outcome]) -> tuple[Fate, str, str]:
    """What becomes of a packet, which rule says so, and who keeps it."""
    with lab.host.entered():
        found = outcome(of_others(Host(Look(), Path("/run/pycore"), Path("/"))))
        assert found.place
        return found.fate, questions.place_words(Look(), found.place), questions.keeper(found.place)


def into_host(version: int, port: int, source: str = "") -> Callable[[Ruleset], Outcome]:
    where = ip_address(source) if source else questions.ELSEWHERE
    return lambda rules: questions.into_host(rules, Port(version, "tcp", port), "eth0", where)


def into_container(version: int) -> Callable[[Ruleset], Outcome]:
    return lambda rules: questions.into_container(rules, Port(version, "tcp", 80), "eth0", "pc-x")


@pytest.mark.needs("ufw")
def test_ufw(lab: Lab, tmp_path: Path) -> None:
    keep(lab, _UFW, tmp_path)
    lab.agree()
    dropped = (Fate.DROPPED, "table ip filter, chain INPUT, policy drop", "ufw")
    assert words_of(lab, into_host(4, 8080)) == dropped
    fate, words, _ = words_of(lab, into_host(4, 443, "10.0.0.1"))
    assert fate is Fate.ACCEPTED
    assert "ip saddr 10.0.0.0/8" in words
    assert words_of(lab, into_container(6)) == (Fate.DROPPED, "table ip6 filter, chain FORWARD, policy drop", "ufw")


@pytest.mark.needs("firewalld")
def test_firewalld(lab: Lab, tmp_path: Path) -> None:
    keep(lab, _FIREWALLD, tmp_path)
    lab.agree()
    fate, words, keeper = words_of(lab, into_host(6, 8080))
    assert (fate, keeper) == (Fate.DROPPED, "firewalld")
    assert re.fullmatch(r'table inet firewalld, chain filter_IN_\w+, rule "reject with icmpx admin-prohibited"', words)
    assert words_of(lab, into_host(4, 1, "10.0.0.1"))[0] is Fate.ACCEPTED
    assert words_of(lab, into_container(4))[0] is Fate.ACCEPTED


@pytest.mark.needs("iptables")
def test_what_docker_leaves_of_iptables(lab: Lab) -> None:
    lab.load("")
    for rule in ("-P FORWARD DROP", "-N DOCKER-USER", "-A FORWARD -j DOCKER-USER"):
        lab.host.run(f"iptables-nft {rule}")
    blocked = (Fate.DROPPED, "table ip filter, chain FORWARD, policy drop", "Docker")
    assert words_of(lab, into_container(4)) == blocked
    assert words_of(lab, lambda rules: questions.out_of_container(rules, 4, "pc-x", "eth0")) == blocked
    with lab.host.entered():
        rules = read(Look(), {})
        place = into_container(4)(rules).place
        assert place
        mend = questions.letting_through(place)
    for command in mend.replace("'", "").split(" && "):
        lab.host.run(command)
    with lab.host.entered():
        rules = read(Look(), {})
        assert into_container(4)(rules).fate is Fate.ACCEPTED
        assert questions.out_of_container(rules, 4, "pc-x", "eth0").fate is Fate.ACCEPTED


def test_what_nobody_can_know_is_said_to_be_unknown(lab: Lab) -> None:
    lab.load(
        "table inet theirs {\nchain input {\ntype filter hook input priority 0; policy drop;\n"
        "socket transparent 1 accept\nip ttl 3 udp dport 80 accept\n}\n}\n"
    )
    assert set(lab.told().values()) == {Fate.UNKNOWN}


def test_our_own_table_is_nobody_elses(lab: Lab) -> None:
    lab.load("table inet pycore {\nchain input {\ntype filter hook input priority 0; policy drop;\n}\n}\n")
    with lab.host.entered():
        assert not of_others(Host(Look(), Path("/run/pycore"), Path("/"))).tables


def test_the_ways_in(lab: Lab) -> None:
    with lab.host.entered():
        (four,), (six,) = ways(Look(), 4), ways(Look(), 6)
    assert (four.device, list(map(str, four.networks))) == ("eth0", ["192.0.2.0/24"])
    assert six.device == "eth0"
    assert "2001:db8::/64" in map(str, six.networks)
