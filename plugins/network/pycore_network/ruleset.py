"""The nftables table that all networks of one pycore share: its text, and what is put into it and taken out.

There is no rule per network or per port: rules look into sets and maps, so a packet costs the same with one
port published as with a thousand, and to publish is to add one element. Names of priorities as in nft(8).
"""

from __future__ import annotations

from collections.abc import Iterable

ANYWHERE = "0.0.0.0"
"""The address of a port that is published on all addresses of the host."""

Key = tuple[str, str, int]
"""What is published: protocol, address of the host, port of the host."""

_TABLE = """
table inet {table} {{
    # Devices of our networks, each also beside itself: traffic that stays within one.
    set bridges {{ type ifname; }}
    set within {{ type ifname . ifname; }}
    set subnets {{ type ipv4_addr; flags interval; }}

    # Published ports, on one address of the host or on all of them.
    map ports_at {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
    map ports {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}

    # Queries for names, sent to a gateway: what answers them listens on the host's loopback.
    map resolver {{ type inet_service : ipv4_addr . inet_service; }}
    set askers {{ type ipv4_addr; size 65535; flags dynamic,timeout; timeout 10s; }}

    # route_localnet lets answers reach the host's 127.0.0.1; nothing else from a container may go there.
    # Before conntrack, so answers still carry the address they were masqueraded to.
    chain guard {{
        type filter hook prerouting priority raw; policy accept;
        iifname @bridges ip daddr 127.0.0.0/8 drop
        iifname @bridges meta l4proto {{ tcp, udp }} th dport 53 fib daddr . iif type local update @askers \
            {{ ip saddr limit rate over 500/second burst 1000 packets }} drop
    }}

    chain publish {{
        meta l4proto {{ tcp, udp }} dnat ip to ip daddr . meta l4proto . th dport map @ports_at
        meta l4proto {{ tcp, udp }} dnat ip to meta l4proto . th dport map @ports
    }}

    # From other hosts and from containers.
    chain prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
        iifname @bridges fib daddr . iif type local meta l4proto {{ tcp, udp }} dnat ip to th dport map @resolver
        fib daddr type local jump publish
    }}

    # From this host itself. Priority dstnat by its number: nft before 1.0.8 takes the name in prerouting only.
    chain output {{
        type nat hook output priority -100; policy accept;
        fib daddr type local jump publish
    }}

    # Out of the networks; back into one through a published port, or the answer would take the short way and
    # not be recognised; and from the host's 127.0.0.1, where no answer could be sent to.
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr @subnets ip daddr != @subnets masquerade
        ip saddr @subnets ip daddr @subnets ct status dnat masquerade
        ip saddr 127.0.0.0/8 ip daddr @subnets masquerade
    }}

    # Into a network comes what it asked for and what goes to a published port; other traffic is not our business.
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname . oifname @within accept
        oifname @bridges ct state established,related accept
        oifname @bridges ct status dnat accept
        oifname @bridges drop
    }}
}}
"""


def create(table: str) -> str:
    """Make the table, empty. For a table that is not there."""
    return _TABLE.format(table=table)


def delete(table: str) -> str:
    """Delete the table with all that is in it."""
    return f"delete table inet {table}"


def add_network(table: str, bridge: str, subnet: str) -> str:
    """Let a network take part; one that does already is fine."""
    return _network("add", table, bridge, subnet)


def delete_network(table: str, bridge: str, subnet: str) -> str:
    """The inverse of :func:`add_network`."""
    return _network("delete", table, bridge, subnet)


def _network(verb: str, table: str, bridge: str, subnet: str) -> str:
    elements = {"bridges": f'"{bridge}"', "within": f'"{bridge}" . "{bridge}"', "subnets": subnet}
    return "\n".join(f"{verb} element inet {table} {name} {{ {element} }}" for name, element in elements.items())


def lead_queries(table: str, address: str, port: int) -> str:
    """Lead queries for names to where they are answered; one that is led elsewhere until now is led here."""
    return f"flush map inet {table} resolver\nadd element inet {table} resolver {{ 53 : {address} . {port} }}"


def add_ports(table: str, keys: Iterable[Key], targets: Iterable[tuple[str, int]], who: str) -> str:
    """Publish ports. A target is the container's address and port.

    ``who`` is the container's name, shown beside each element by ``nft list ruleset``.
    """
    return "\n".join(
        f'add element inet {table} {map_of(key)} {{ {key_text(key)} comment "{who}" : {address} . {port} }}'
        for key, (address, port) in zip(keys, targets, strict=True)
    )


def delete_ports(table: str, keys: Iterable[Key]) -> str:
    """The inverse of :func:`add_ports`."""
    return "\n".join(f"delete element inet {table} {map_of(key)} {{ {key_text(key)} }}" for key in keys)


def delete_element(table: str, name: str, key: str) -> str:
    """Take one element out of a set or a map, by its key as nft writes it."""
    return f"delete element inet {table} {name} {{ {key} }}"


def map_of(key: Key) -> str:
    """The map that a published port is an element of."""
    return "ports" if key[1] == ANYWHERE else "ports_at"


def key_text(key: Key) -> str:
    """Its key there, as nft writes it."""
    protocol, host, port = key
    return f"{protocol} . {port}" if host == ANYWHERE else f"{host} . {protocol} . {port}"
