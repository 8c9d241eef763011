"""Puts elements into sets and maps of nftables, takes them out and asks for them, by messages of its own
(linux/netfilter/nf_tables.h).

libnftables lists all tables, sets and elements first, at each call; the kernel needs none of that. Keys and values are
written as nft does, and the kernel says of what types a set is.
"""

from __future__ import annotations

import atexit
import errno
import os
import socket
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from pycore.linux import nfnetlink, nfttypes
from pycore.linux.nfttypes import Field
from pycore.linux.nlmessages import (
    ACK,
    CAP_ACK,
    CREATE,
    DUMP,
    ERROR,
    NESTED,
    REQUEST,
    SOL_NETLINK,
    attribute,
    attributes,
    messages,
    refusal,
    value_of,
)

_NEW_SET, _GET_SET = nfnetlink.NFTABLES | 9, nfnetlink.NFTABLES | 10
_NEW, _GET, _DELETE = nfnetlink.NFTABLES | 12, nfnetlink.NFTABLES | 13, nfnetlink.NFTABLES | 14
"""NFT_MSG_NEWSET, GETSET; NEWSETELEM, GETSETELEM, DELSETELEM."""
_TABLE, _SET, _ELEMENTS = 1, 2, 3
"""NFTA_SET_ELEM_LIST_*; the first two are those of sets as well."""
_SET_FLAGS, _KEY_TYPE, _KEY_SIZE, _VALUE_TYPE, _VALUE_SIZE = 3, 4, 5, 6, 7
"""NFTA_SET_*"""
_INTERVAL, _MAP = 0x4, 0x8
"""NFT_SET_INTERVAL, NFT_SET_MAP."""
_KEY, _VALUE, _FLAGS, _TIMEOUT, _ABOUT, _EXPRESSION, _KEY_END = 1, 2, 3, 4, 6, 7, 10
"""NFTA_SET_ELEM_*"""
_IS_END = 1
"""NFT_SET_ELEM_INTERVAL_END"""
_NEXT, _BYTES = 1, 1
"""NFTA_LIST_ELEM, NFTA_DATA_VALUE."""
_EXPRESSION_NAME, _EXPRESSION_DATA, _COUNTER_PACKETS = 1, 2, 2
_COMMENT = 0
"""NFTNL_UDATA_SET_ELEM_COMMENT of libnftnl: type and length are a byte each, the value follows."""
_LONGEST = 128
"""Bytes of a comment that nft takes (NFTNL_UDATA_COMMENT_MAXLEN)."""
_SNDBUFFORCE = 32
_LARGE = 1 << 14
_FEW = 16
"""Elements that are asked for one by one; what the kernel answers has to fit into the socket."""


@dataclass(frozen=True)
class Element:
    """One element of a set or a map, its key and value as nft writes them."""

    family: str
    place: str
    """The name of the set or map."""
    key: str
    value: str = ""
    """Of a map."""
    who: str = ""
    """Whose it is, for people: ``APP/NAME``, shown beside it by ``nft list ruleset``."""

    def __str__(self) -> str:
        """As ``plan -v`` shows it."""
        return f"{self.family} {self.place} {{ {self.key}{f' : {self.value}' if self.value else ''} }}"


@dataclass(frozen=True)
class Put:
    """It is to be there. One that is there with this value is left as it is, time and all."""

    element: Element
    seconds: int = 0
    """How long it stays, of a set whose elements may end; 0: as long as the set says, or for good."""


@dataclass(frozen=True)
class Withdraw:
    """It is not to be there any more; its key tells which it is."""

    element: Element


Change = Put | Withdraw


def renewal(element: Element, seconds: int) -> tuple[Change, ...]:
    """It is there for so long from now on, whether it was there or not: a kernel before 6.12 leaves the time of an
    element that is put in again as it was, so it is taken out in the same transaction, and nobody misses it meanwhile.
    """
    return Put(element), Withdraw(element), Put(element, seconds)


def change(table: str, changes: Sequence[Change]) -> None:
    """Make changes, in their order, as one transaction: all of them or none.

    Raises OSError: ENOENT where there is no such table or set, or no such element to take out; EEXIST where there is
    one with another value, or in a set of ranges one that overlaps, which nothing merges; EINVAL for what is no key or
    value of the set; EOPNOTSUPP where the kernel has no nftables, or the set a type that is not known here.
    """
    if changes:
        with _connected() as kernel:
            kernel.know({(each.element.family, each.element.place) for each in changes}, table)
            kernel.spare(table, [each.element for each in changes if isinstance(each, Withdraw)])
            requests = [kernel.request(table, each, at) for at, each in enumerate(changes, 1)]
            _fit(kernel.sock, sum(map(len, requests)))
            refused = kernel.refused(nfnetlink.batch(b"".join(requests)))
            if refused:
                kernel.sets.clear()  # they may be others by now
                at = min(refused)
                said = f": {changes[at - 1].element}" if 0 < at <= len(changes) else ""
                raise OSError(refused[at], f"nftables: {os.strerror(refused[at])}{said}")


def elements(table: str, name: str) -> dict[str, str]:
    """The elements of a set or map of a table (``inet pycore``), key to value; nothing where it is not there.

    Raises OSError.
    """
    family, _, own = table.partition(" ")
    with _connected() as kernel, suppress(FileNotFoundError):
        kernel.sets.clear()  # who lists tables may find those of anybody, made anew since
        kernel.know([(family, name)], own)
        of = kernel.sets[family, own, name]
        return {
            nfttypes.decode(of.key, *each.key): nfttypes.decode(of.value, each.value, each.value)
            for each in kernel.all_of(family, own, name)
        }
    return {}


def packets(table: str, wanted: Sequence[Element]) -> list[int | None]:
    """How many packets each element has counted, 0 where its set does not count; None for one that is not there, or has
    another value. Raises OSError.
    """
    with _connected() as kernel, suppress(FileNotFoundError):
        by_place: dict[tuple[str, str], list[Element]] = {}
        for each in wanted:
            by_place.setdefault((each.family, each.place), []).append(each)
        kernel.know(by_place, table)
        counted = dict[Element, int]()
        for (family, place), some in by_place.items():
            of = kernel.sets[family, table, place]
            found = (
                kernel.all_of(family, table, place) if of.in_pairs or len(some) > _FEW else kernel.some_of(table, some)
            )
            there = {(each.key, each.value): each.packets for each in found}
            for each in some:
                count = there.get((of.encoded(each), of.encoded_value(each)))
                if count is not None:
                    counted[each] = count
        return [counted.get(each) for each in wanted]
    return [None] * len(wanted)


@dataclass(frozen=True)
class _Of:
    """What a set has."""

    key: tuple[Field, ...]
    value: tuple[Field, ...]
    in_pairs: bool
    """Whether a range is two elements: its first, and one that says where it ends."""
    has_ends: bool
    """Whether the last of a range stands beside its first."""

    def encoded(self, element: Element) -> tuple[bytes, bytes]:
        """The first and the last of its key. Raises OSError."""
        return self._encoded(element, self.key, element.key, ranges=self.in_pairs or self.has_ends)

    def encoded_value(self, element: Element) -> bytes:
        """Raises OSError."""
        return self._encoded(element, self.value, element.value)[0] if self.value else b""

    @staticmethod
    def _encoded(element: Element, parts: Sequence[Field], text: str, *, ranges: bool = False) -> tuple[bytes, bytes]:
        try:
            first, last = nfttypes.encode(parts, text)
        except ValueError as error:
            raise OSError(errno.EINVAL, f"nftables: {error}: {element}") from None
        if first != last and not ranges:
            raise OSError(errno.EINVAL, f"nftables: no set of ranges: {element}")
        return first, last


@dataclass(frozen=True)
class _Found:
    """An element as the kernel has it."""

    key: tuple[bytes, bytes]
    """The first and the last."""
    value: bytes
    packets: int
    is_end: bool = False


@dataclass
class _Kernel:
    """A socket to nftables of a network namespace, and what is known of the sets there."""

    place: tuple[int, int]
    sock: socket.socket
    sets: dict[tuple[str, str, str], _Of] = field(default_factory=dict[tuple[str, str, str], _Of])
    """By family, table and name."""

    def know(self, places: Iterable[tuple[str, str]], table: str) -> None:
        """Have the kernel say what sets are of, given by family and name, where that is not known yet."""
        unknown = [each for each in places if (each[0], table, each[1]) not in self.sets]
        for start in range(0, len(unknown), _FEW):
            some = unknown[start : start + _FEW]
            self.sock.send(b"".join(_question(_GET_SET, family, table, place) for family, place in some))
            bodies, refused = self._answers(_NEW_SET)
            if refused:
                number = next(iter(refused.values()))
                if number == errno.EINVAL:  # of whatever is asked: nobody is there to answer
                    number = errno.EOPNOTSUPP
                raise OSError(number, f"nftables: {os.strerror(number)}: a set of table {table}")
            for (family, place), body in zip(some, bodies, strict=True):
                self.sets[family, table, place] = _of(body)

    def spare(self, table: str, unwanted: Sequence[Element]) -> None:
        """Raise FileNotFoundError where another element would be taken out: of a concatenation with ranges the kernel
        takes the one that the first of a key is in, wherever that one ends (nft_pipapo_deactivate).
        """
        found = self.sets
        apart = [each for each in unwanted if found[each.family, table, each.place].has_ends]
        for start in range(0, len(apart), _FEW):
            some = apart[start : start + _FEW]
            wanted = {found[each.family, table, each.place].encoded(each) for each in some}
            if any(each.key not in wanted for each in self.some_of(table, some)):
                raise OSError(errno.ENOENT, f"nftables: another is there: one of {', '.join(map(str, some))}")

    def request(self, table: str, wanted: Change, sequence: int) -> bytes:
        """The message for a change. Raises OSError."""
        element = wanted.element
        of = self.sets[element.family, table, element.place]
        first, last = of.encoded(element)
        about = b""
        if isinstance(wanted, Put):
            about = attribute(_VALUE | NESTED, attribute(_BYTES, of.encoded_value(element))) if of.value else b""
            if wanted.seconds:
                about += attribute(_TIMEOUT, (1000 * wanted.seconds).to_bytes(8, "big"))
            if element.who:
                about += attribute(_ABOUT, _comment(element.who))
        parts = [_key(_KEY, first) + (_key(_KEY_END, last) if of.has_ends else b"") + about]
        end = nfttypes.after(last) if of.in_pairs else None
        if end:
            parts.append(attribute(_FLAGS, _IS_END.to_bytes(4, "big")) + _key(_KEY, end))
        kind, flags = (_NEW, CREATE) if isinstance(wanted, Put) else (_DELETE, 0)
        body = _named(table, element.place) + _listed(parts)
        return nfnetlink.request(kind, REQUEST | flags, nfnetlink.FAMILIES[element.family], body, sequence)

    def refused(self, request: bytes) -> dict[int, int]:
        """Send it; the sequences of what is refused, to errnos."""
        self.sock.send(request)
        return self._answers(_NEW)[1]

    def all_of(self, family: str, table: str, place: str) -> list[_Found]:
        """All elements of a set that is known. Raises OSError."""
        question = nfnetlink.request(_GET, REQUEST | DUMP, nfnetlink.FAMILIES[family], _named(table, place))
        found = [each for body in nfnetlink.dump(self.sock, question) for each in _found(body)]
        return list(_paired(found)) if self.sets[family, table, place].in_pairs else found

    def some_of(self, table: str, wanted: Sequence[Element]) -> list[_Found]:
        """Those of a few elements that are there; a range in a concatenation may be another that has its first.

        Raises OSError.
        """
        asked = list[bytes]()
        for each in wanted:
            of = self.sets[each.family, table, each.place]
            first, last = of.encoded(each)
            key = _listed([_key(_KEY, first) + (_key(_KEY_END, last) if of.has_ends else b"")])
            asked.append(_question(_GET, each.family, table, each.place, key))
        self.sock.send(b"".join(asked))
        bodies, refused = self._answers(_NEW)
        for number in refused.values():
            if number != errno.ENOENT:
                raise OSError(number, f"nftables: {os.strerror(number)}")
        return [each for body in bodies for each in _found(body)]

    def _answers(self, wanted: int) -> tuple[list[bytes], dict[int, int]]:
        """The bodies of one kind, and the sequences of what was refused to errnos.

        The kernel has answered by the time that sending comes back.
        """
        bodies, refused = list[bytes](), dict[int, int]()
        while True:
            try:
                data = self.sock.recv(_LARGE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return bodies, refused
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                refused[_LAST] = errno.ENOBUFS  # more refusals than there was room for: those before follow
                continue
            for kind, body in messages(data):
                number, sequence = refusal(body) if kind == ERROR else (0, 0)
                if number:
                    refused.setdefault(sequence, number)
                elif kind == wanted:
                    bodies.append(body)


_LAST = 1 << 32
"""After every sequence."""
_lock = threading.Lock()
_kept: _Kernel | None = None


@contextmanager
def _connected() -> Generator[_Kernel, None, None]:
    """The socket of this process and network namespace.

    It is kept, because closing it waits until the kernel has freed what was deleted (nft_rcv_nl_event in
    net/netfilter/nf_tables_api.c); but not by who is interrupted, whose answers may be in it.
    """
    global _kept
    with _lock:
        place = nfnetlink.namespace()
        if not _kept or _kept.place != place:
            _let_go()
            _kept = _Kernel(place, nfnetlink.open_socket())
            _kept.sock.setsockopt(SOL_NETLINK, CAP_ACK, 1)
        try:
            yield _kept
        except OSError:
            raise
        except BaseException:
            _let_go()
            raise


@atexit.register
def _let_go() -> None:
    global _kept
    if _kept:
        _kept.sock.close()
    _kept = None


def _fit(sock: socket.socket, size: int) -> None:
    """Make room in a socket for a message; who has no power over the host gets what others may have."""
    size += 1 << 10
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < size:
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SNDBUFFORCE, size)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)


def _question(kind: int, family: str, table: str, place: str, about: bytes = b"") -> bytes:
    return nfnetlink.request(kind, REQUEST | ACK, nfnetlink.FAMILIES[family], _named(table, place) + about)


def _named(table: str, place: str) -> bytes:
    return attribute(_TABLE, table.encode() + b"\0") + attribute(_SET, place.encode() + b"\0")


def _listed(parts: Iterable[bytes]) -> bytes:
    return attribute(_ELEMENTS | NESTED, b"".join(attribute(_NEXT | NESTED, each) for each in parts))


def _key(kind: int, key: bytes) -> bytes:
    return attribute(kind | NESTED, attribute(_BYTES, key))


def _comment(text: str) -> bytes:
    value = text.encode()[: _LONGEST - 1] + b"\0"
    return bytes((_COMMENT, len(value))) + value


def _of(body: bytes) -> _Of:
    """What a set has, as the kernel tells of it. Raises OSError for types that are not known here."""
    about = {
        kind: int.from_bytes(value, "big") for kind, value in attributes(nfnetlink.split(body)[1]) if len(value) == 4
    }
    flags = about.get(_SET_FLAGS, 0)
    try:
        key = nfttypes.fields(about[_KEY_TYPE], about[_KEY_SIZE])
        value = nfttypes.fields(about[_VALUE_TYPE], about[_VALUE_SIZE]) if flags & _MAP else ()
    except ValueError as error:
        raise OSError(errno.EOPNOTSUPP, f"nftables: {error}") from None
    is_interval = bool(flags & _INTERVAL)
    return _Of(key, value, is_interval and len(key) == 1, is_interval and len(key) > 1)


def _found(body: bytes) -> Iterator[_Found]:
    for _, element in attributes(value_of(nfnetlink.split(body)[1], _ELEMENTS)):
        about = dict(attributes(element))
        first = value_of(about[_KEY], _BYTES)
        last = value_of(about[_KEY_END], _BYTES) if _KEY_END in about else first
        yield _Found(
            (first, last),
            value_of(about.get(_VALUE, b""), _BYTES),
            _packets(about.get(_EXPRESSION, b"")),
            bool(int.from_bytes(about.get(_FLAGS, b""), "big") & _IS_END),
        )


def _packets(expression: bytes) -> int:
    if value_of(expression, _EXPRESSION_NAME) != b"counter\0":
        return 0
    return int.from_bytes(value_of(value_of(expression, _EXPRESSION_DATA), _COUNTER_PACKETS), "big")


def _paired(found: Iterable[_Found]) -> Iterator[_Found]:
    """Ranges, of firsts and of ends, which lie beyond the last; one without an end goes to the last there is."""
    open_: _Found | None = None
    for each in sorted(found, key=lambda each: (each.key, not each.is_end)):
        if each.is_end and open_:
            yield _Found((open_.key[0], nfttypes.before(each.key[0])), open_.value, open_.packets)
        open_ = None if each.is_end else each
    if open_:
        yield _Found((open_.key[0], b"\xff" * len(open_.key[0])), open_.value, open_.packets)
