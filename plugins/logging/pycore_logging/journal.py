"""How one speaks with systemd's journal: its native protocol, and the export format in which it gives entries back.

Written from https://systemd.io/JOURNAL_NATIVE_PROTOCOL and https://systemd.io/JOURNAL_EXPORT_FORMATS.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator, Mapping
from typing import IO

SOCKET = "/run/systemd/journal/socket"

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def entry(fields: Mapping[str, bytes]) -> bytes:
    """A datagram for the journal."""
    return b"".join(_field(name.encode(), value) for name, value in fields.items())


def _field(name: bytes, value: bytes) -> bytes:
    if b"\n" in value:
        return name + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
    return name + b"=" + value + b"\n"


class Journal:
    """A connection to the journal, which never waits."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def fileno(self) -> int:
        """Writable when the journal takes more; -1 where there is no connection."""
        return self._socket.fileno() if self._socket else -1

    def send(self, datagram: bytes) -> None:
        """Send an entry. Raises BlockingIOError while the journal is busy, OSError where it is not there."""
        try:
            self._send(self._connected(), datagram)
        except (ConnectionRefusedError, ConnectionResetError, BrokenPipeError, FileNotFoundError):
            self.close()  # it was started anew
            self._send(self._connected(), datagram)

    def _connected(self) -> socket.socket:
        if self._socket is None:
            fresh = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            try:
                fresh.connect(SOCKET)
            except OSError:
                fresh.close()
                raise
            self._socket = fresh
        return self._socket

    @staticmethod
    def _send(sock: socket.socket, datagram: bytes) -> None:
        try:
            sock.send(datagram)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            _send_memory(sock, datagram)

    def close(self) -> None:
        if self._socket:
            self._socket.close()
            self._socket = None


def _send_memory(sock: socket.socket, datagram: bytes) -> None:
    """An entry that is too large for a datagram goes as a sealed file in memory."""
    fd = os.memfd_create("pycore-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(datagram)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        sock.sendmsg([], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
    finally:
        os.close(fd)


def exported(stream: IO[bytes]) -> Iterator[dict[str, bytes]]:
    """The entries of ``journalctl --output=export``; one that is cut off is left out."""
    fields: dict[str, bytes] = {}
    while line := stream.readline():
        name, equals, value = line.rstrip(b"\n").partition(b"=")
        if not name:
            if fields:
                yield fields
            fields = {}
        elif equals:
            fields[name.decode("ascii", "replace")] = value
        else:
            length = int.from_bytes(stream.read(8), "little")
            with contextlib.suppress(OverflowError, MemoryError):
                fields[name.decode("ascii", "replace")] = stream.read(length)
            stream.read(1)
    if fields:
        yield fields
