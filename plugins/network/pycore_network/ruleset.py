"""The two nftables tables that all networks of one pycore share: ``inet`` for what is routed, ``bridge`` for frames.

There is no rule per network, container or port: rules look into sets and maps, so a packet costs the same with one
port published as with a thousand, and to publish is to add an element (:mod:`pycore_network.elements`). Names of
priorities as in nft(8); all of it is understood by nft 1.0.6.
"""

from __future__ import annotations

import re

LEARNED = ("learned", "learned_any", "learned6", "learned6_any")
"""Sets of the table of frames, filled by answers to queries for names; their elements go by themselves."""

_INET = """
table inet {table} {{
    # Devices of our networks, each also beside itself: traffic that stays within one. Then those without a way out,
    # and those that others may reach which are open, too.
    set bridges {{ type ifname; }}
    set within {{ type ifname . ifname; }}
    set internal {{ type ifname; }}
    set open {{ type ifname; }}

    # Subnets of our networks, each also beside itself.
    set subnets {{ type ipv4_addr; flags interval; }}
    set subnets6 {{ type ipv6_addr; flags interval; }}
    set neighbours {{ type ipv4_addr . ipv4_addr; flags interval; }}
    set neighbours6 {{ type ipv6_addr . ipv6_addr; flags interval; }}

    # Addresses of the host's loopback that answers find back to.
    set loopback6 {{ type ipv6_addr; }}

    # Published ports, on all addresses of the host or on one of them (at): for everybody, for some sources (from),
    # and for this host itself where not for everybody (here). Each counts the connections made by way of it.
    map ports {{ type inet_proto . inet_service : ipv4_addr . inet_service; counter;
    }}
    map ports_at {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; counter;
    }}
    map ports_here {{ type inet_proto . inet_service : ipv4_addr . inet_service; counter;
    }}
    map ports_at_here {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; counter;
    }}
    map ports_from {{
        type inet_proto . inet_service . ipv4_addr : ipv4_addr . inet_service; flags interval; counter;
    }}
    map ports_at_from {{
        type ipv4_addr . inet_proto . inet_service . ipv4_addr : ipv4_addr . inet_service; flags interval; counter;
    }}
    map ports6 {{ type inet_proto . inet_service : ipv6_addr . inet_service; counter;
    }}
    map ports6_at {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; counter;
    }}
    map ports6_here {{ type inet_proto . inet_service : ipv6_addr . inet_service; counter;
    }}
    map ports6_at_here {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; counter;
    }}
    map ports6_from {{
        type inet_proto . inet_service . ipv6_addr : ipv6_addr . inet_service; flags interval; counter;
    }}
    map ports6_at_from {{
        type ipv6_addr . inet_proto . inet_service . ipv6_addr : ipv6_addr . inet_service; flags interval; counter;
    }}

    # Queries for names, sent to a gateway: what answers them listens on the host's loopback.
    map resolver {{ type inet_service : ipv4_addr . inet_service; }}
    set askers {{ type ipv4_addr; size 65535; flags dynamic,timeout; timeout 10s; }}

    # Whom containers have tried to reach without being allowed to, within an hour; for people.
    set denied {{
        type ipv4_addr . ipv4_addr . inet_proto . inet_service; size 4096; flags dynamic,timeout;
    }}
    set denied6 {{
        type ipv6_addr . ipv6_addr . inet_proto . inet_service; size 4096; flags dynamic,timeout;
    }}

    # route_localnet lets answers reach the host's 127.0.0.1; nothing else from a container may go there.
    # Before conntrack, so answers still carry the address they were masqueraded to.
    chain guard {{
        type filter hook prerouting priority raw; policy accept;
        iifname @bridges ip daddr 127.0.0.0/8 drop
        iifname @bridges meta l4proto {{ tcp, udp }} th dport 53 fib daddr . iif type local update @askers \
            {{ ip saddr limit rate over 500/second burst 1000 packets }} drop
    }}

    # What a container sends that its egress does not name: only answers, and queries for names, whose mark stays.
    # Before anybody's mangle rules, which may set marks of their own; after conntrack, before addresses are translated.
    chain egress {{
        type filter hook prerouting priority -175; policy accept;
        iifname != @bridges accept
        meta mark & {mark} == 0 accept
        meta l4proto {{ tcp, udp }} th dport 53 fib daddr . iif type local accept
        meta mark set meta mark & {others}
        ct state established,related accept
        meta l4proto {{ tcp, udp, sctp }} jump note
        fib daddr type {{ local, unicast }} reject with icmpx admin-prohibited
        drop
    }}

    chain note {{
        update @denied {{ ip saddr . ip daddr . meta l4proto . th dport timeout 1h }}
        update @denied6 {{ ip6 saddr . ip6 daddr . meta l4proto . th dport timeout 1h }}
    }}

    chain published {{
        meta l4proto {{ tcp, udp, sctp }} dnat ip to ip daddr . meta l4proto . th dport map @ports_at
        meta l4proto {{ tcp, udp, sctp }} dnat ip to meta l4proto . th dport map @ports
        meta l4proto {{ tcp, udp, sctp }} dnat ip6 to ip6 daddr . meta l4proto . th dport map @ports6_at
        meta l4proto {{ tcp, udp, sctp }} dnat ip6 to meta l4proto . th dport map @ports6
    }}

    chain published_from {{
        meta l4proto {{ tcp, udp, sctp }} dnat ip to ip daddr . meta l4proto . th dport . ip saddr map @ports_at_from
        meta l4proto {{ tcp, udp, sctp }} dnat ip to meta l4proto . th dport . ip saddr map @ports_from
        meta l4proto {{ tcp, udp, sctp }} \
            dnat ip6 to ip6 daddr . meta l4proto . th dport . ip6 saddr map @ports6_at_from
        meta l4proto {{ tcp, udp, sctp }} dnat ip6 to meta l4proto . th dport . ip6 saddr map @ports6_from
    }}

    chain published_here {{
        meta l4proto {{ tcp, udp, sctp }} dnat ip to ip daddr . meta l4proto . th dport map @ports_at_here
        meta l4proto {{ tcp, udp, sctp }} dnat ip to meta l4proto . th dport map @ports_here
        meta l4proto {{ tcp, udp, sctp }} dnat ip6 to ip6 daddr . meta l4proto . th dport map @ports6_at_here
        meta l4proto {{ tcp, udp, sctp }} dnat ip6 to meta l4proto . th dport map @ports6_here
    }}

    # From other hosts and from containers.
    chain prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type != local accept
        iifname @bridges fib daddr . iif type local meta l4proto {{ tcp, udp }} dnat ip to th dport map @resolver
        jump published
        jump published_from
    }}

    # While no engine is there nobody answers queries: who asks is not told so, waits, and asks again.
    chain silence {{
        type filter hook output priority filter; policy accept;
        oifname @bridges ip saddr 127.0.0.0/8 icmp type destination-unreachable drop
    }}

    # From this host itself. Priority dstnat by its number: nft before 1.0.8 takes the name in prerouting only.
    chain output {{
        type nat hook output priority -100; policy accept;
        fib daddr type != local accept
        ip6 daddr ::1 ip6 daddr != @loopback6 accept
        jump published_here
        jump published
    }}

    # Out of the networks; back into the same one through a published port, or the answer would take the short way
    # and not be recognised; and from the host's loopback, where no answer could be sent to.
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr @subnets ip daddr != @subnets masquerade
        ip saddr . ip daddr @neighbours ct status dnat masquerade
        ip saddr 127.0.0.0/8 ip daddr @subnets masquerade
        ip6 saddr @subnets6 ip6 daddr != @subnets6 masquerade
        ip6 saddr . ip6 daddr @neighbours6 ct status dnat masquerade
        ip6 saddr ::1 ip6 daddr @subnets6 masquerade
    }}

    # Into a network comes what it asked for and what goes to a published port; other traffic is not our business.
    # Neighbour discovery is of one link (RFC 4861): routed, it would be a way past a container's egress.
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname . oifname @within accept
        iifname @bridges icmpv6 type {{ {discovery} }} drop
        iifname @internal drop
        oifname @internal drop
        oifname @bridges ct state established,related accept
        oifname @bridges ct status dnat accept
        iifname @open oifname @open accept
        oifname @bridges drop
    }}

    # Queries come to the resolver or to nobody: the host may have another one at the same port.
    # Of the host a network without a way out reaches its gateway alone, not what is on other addresses.
    chain input {{
        type filter hook input priority filter; policy accept;
        iifname @bridges meta mark & {mark} != 0 ct status & dnat == 0 drop
        iifname != @internal accept
        ct state established,related accept
        ct status dnat accept
        fib daddr . iif type {{ local, broadcast, multicast, anycast }} accept
        drop
    }}
}}
"""

_BRIDGE = """
table bridge {table} {{
    # The host's ends of containers' devices, and what is theirs: hardware addresses, addresses, and addresses again
    # as they stand in neighbour discovery, where nft knows no name for them.
    set ends {{ type ifname; }}
    set macs {{ type ifname . ether_addr; }}
    set addresses {{ type ifname . ipv4_addr; }}
    set addresses6 {{ type ifname . ipv6_addr; }}
    set targets {{ typeof iifname . @th,64,128; }}

    # Devices of containers that may send to what is named alone: by their specs, and by answers to queries for names.
    # Then who may be answered within a bridge, where connections need not be tracked.
    set bound {{ type ifname; }}
    set allowed {{ type ipv4_addr . ipv4_addr . inet_proto . inet_service; flags interval; }}
    set allowed_any {{ type ipv4_addr . ipv4_addr; flags interval; }}
    set allowed6 {{ type ipv6_addr . ipv6_addr . inet_proto . inet_service; flags interval; }}
    set allowed6_any {{ type ipv6_addr . ipv6_addr; flags interval; }}
    set learned {{ type ipv4_addr . ipv4_addr . inet_proto . inet_service; flags timeout; }}
    set learned_any {{ type ipv4_addr . ipv4_addr; flags timeout; }}
    set learned6 {{ type ipv6_addr . ipv6_addr . inet_proto . inet_service; flags timeout; }}
    set learned6_any {{ type ipv6_addr . ipv6_addr; flags timeout; }}
    set heard {{
        type ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service; size 1048576; flags dynamic,timeout;
    }}
    set heard6 {{
        type ipv6_addr . ipv6_addr . inet_proto . inet_service . inet_service; size 1048576; flags dynamic,timeout;
    }}
    set denied {{
        type ipv4_addr . ipv4_addr . inet_proto . inet_service; size 4096; flags dynamic,timeout;
    }}
    set denied6 {{
        type ipv6_addr . ipv6_addr . inet_proto . inet_service; size 4096; flags dynamic,timeout;
    }}
    set pinged {{ type ipv4_addr . ipv4_addr; size 65536; flags dynamic,timeout; }}
    set pinged6 {{ type ipv6_addr . ipv6_addr; size 65536; flags dynamic,timeout; }}

    # Before the bridge learns where an address is.
    chain prerouting {{
        type filter hook prerouting priority -300; policy accept;
        iifname @ends jump own
    }}

    # From a container come frames of its own: no other addresses, no other protocols, no word of a router.
    chain own {{
        iifname . ether saddr != @macs drop
        ether type ip iifname . ip saddr @addresses goto egress
        ether type arp arp htype 1 arp ptype ip arp hlen 6 arp plen 4 iifname . arp saddr ether @macs goto own_arp
        ether type ip6 goto own_ip6
        drop
    }}

    # Nobody's address is that of who looks whether one is free.
    chain own_arp {{
        arp saddr ip 0.0.0.0 arp operation request accept
        iifname . arp saddr ip @addresses accept
        drop
    }}

    # Nobody asks for routers or listeners: said to all by each, it would make every start dearer the more there are.
    chain own_ip6 {{
        icmpv6 type {{ nd-router-advert, nd-redirect, nd-router-solicit }} drop
        icmpv6 type {{ mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report }} drop
        icmpv6 type nd-neighbor-advert iifname . @th,64,128 != @targets drop
        iifname . ip6 saddr @addresses6 goto egress6
        ip6 saddr :: icmpv6 type nd-neighbor-solicit iifname . @th,64,128 @targets accept
        drop
    }}

    # What its egress does not name is marked: whether it answers somebody is known only later.
    chain egress {{
        iifname != @bound accept
        ip saddr . ip daddr . meta l4proto . th dport @allowed accept
        ip saddr . ip daddr @allowed_any accept
        ip saddr . ip daddr . meta l4proto . th dport @learned accept
        ip saddr . ip daddr @learned_any accept
        meta mark set meta mark | {mark} accept
    }}

    chain egress6 {{
        iifname != @bound accept
        icmpv6 type {{ {discovery} }} accept
        ip6 saddr . ip6 daddr . meta l4proto . th dport @allowed6 accept
        ip6 saddr . ip6 daddr @allowed6_any accept
        ip6 saddr . ip6 daddr . meta l4proto . th dport @learned6 accept
        ip6 saddr . ip6 daddr @learned6_any accept
        meta mark set meta mark | {mark} accept
    }}

    # Within a bridge. What somebody else has begun is answered: a connection until it is silent for ten minutes.
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname @bound meta mark & {mark} != 0 jump answers
        oifname @bound jump listen
    }}

    chain answers {{
        meta mark set meta mark & {others}
        ip saddr . ip daddr . meta l4proto . th sport . th dport @heard return
        ip6 saddr . ip6 daddr . meta l4proto . th sport . th dport @heard6 return
        icmp type echo-reply ip saddr . ip daddr @pinged return
        icmpv6 type echo-reply ip6 saddr . ip6 daddr @pinged6 return
        meta l4proto {{ tcp, udp, sctp }} jump note
        drop
    }}

    chain note {{
        update @denied {{ ip saddr . ip daddr . meta l4proto . th dport timeout 1h }}
        update @denied6 {{ ip6 saddr . ip6 daddr . meta l4proto . th dport timeout 1h }}
    }}

    chain listen {{
        icmp type echo-request update @pinged {{ ip daddr . ip saddr timeout 10s }}
        icmpv6 type echo-request update @pinged6 {{ ip6 daddr . ip6 saddr timeout 10s }}
        meta l4proto {{ udp, sctp }} goto listen_always
        tcp flags & (syn | ack) == syn goto listen_always
        meta l4proto != tcp return
        ip daddr . ip saddr . meta l4proto . th dport . th sport @heard goto listen_always
        ip6 daddr . ip6 saddr . meta l4proto . th dport . th sport @heard6 goto listen_always
    }}

    chain listen_always {{
        update @heard {{ ip daddr . ip saddr . meta l4proto . th dport . th sport timeout 10m }}
        update @heard6 {{ ip6 daddr . ip6 saddr . meta l4proto . th dport . th sport timeout 10m }}
    }}
}}
"""


_MARK = 0x20000000
"""A packet that a container's egress does not name, between the two tables."""
_DISCOVERY = "nd-neighbor-solicit, nd-neighbor-advert"
"""What IPv6 needs on a link."""
_WORDS = {"mark": f"{_MARK:#010x}", "others": f"{_MARK ^ 0xFFFFFFFF:#010x}", "discovery": _DISCOVERY}

_OF_RULES = (
    "resolver", "askers", "loopback6", *LEARNED, "heard", "heard6", "pinged", "pinged6", "denied", "denied6",
)  # fmt: skip
PLACES = {
    family: tuple(name for name in re.findall(r"(?:set|map) (\w+) \{", text) if name not in _OF_RULES)
    for family, text in (("inet", _INET), ("bridge", _BRIDGE))
}
"""Family of each table to its sets and maps whose elements are those of networks and containers."""


def create(table: str) -> str:
    """Make the tables, empty. For tables that are not there."""
    return _INET.format(table=table, **_WORDS) + _BRIDGE.format(table=table, **_WORDS)


def delete(table: str) -> str:
    """Delete the tables with all that is in them, whatever is left of them."""
    both = [f"{family} {table}" for family in ("inet", "bridge")]
    return "".join(f"{verb} table {name}\n" for verb in ("add", "delete") for name in both)


def lead_queries(table: str, address: str, port: int) -> str:
    """Lead queries for names to where they are answered; one that is led elsewhere until now is led here."""
    return f"flush map inet {table} resolver\nadd element inet {table} resolver {{ 53 : {address} . {port} }}"


def serve_loopback6(table: str, serve: bool) -> str:
    """Whether ports are published on the host's ``::1``, too."""
    return f"flush set inet {table} loopback6" + (f"\nadd element inet {table} loopback6 {{ ::1 }}" if serve else "")
