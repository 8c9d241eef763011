"""How processes of pycore talk: JSON frames over a unix stream socket, descriptors beside them.

A frame is four bytes of length (big-endian) and that many bytes of JSON. Descriptors travel with the
first byte of the frame (unix(7), SCM_RIGHTS) and arrive close-on-exec.
"""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MAX_FRAME = 64 << 20
MAX_FDS = 16

Message = dict[str, Any]


class Channel:
    """One end of a conversation. Owns its socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two ends that are connected to each other, both close-on-exec."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return cls(one), cls(other)

    @classmethod
    def of(cls, fd: int) -> Channel:
        """An end that came as a descriptor, and is this object's from now on."""
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        self.socket.close()

    def send(self, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        """Send a frame. Raises OSError (BrokenPipeError when the other end is gone)."""
        body = json.dumps(message, separators=(",", ":")).encode()
        frame = len(body).to_bytes(4, "big") + body
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self.socket.sendmsg([frame], ancillary, socket.MSG_NOSIGNAL)
        if sent < len(frame):
            self.socket.sendall(frame[sent:], socket.MSG_NOSIGNAL)

    def receive(self) -> tuple[Message, list[int]] | None:
        """The next frame and its descriptors, which the caller then owns; None when the other end is closed.

        Raises ValueError on a frame that is not ours.
        """
        fds: list[int] = []
        try:
            header = self._exactly(4, fds)
            if header is None:
                return None
            size = int.from_bytes(header, "big")
            if size > MAX_FRAME:
                raise ValueError(f"a frame of {size} bytes")
            body = self._exactly(size, fds)
            if body is None:
                return None
            message: Message = json.loads(body)
            if type(message) is not dict:
                raise ValueError("a frame that is no object")
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        return message, fds

    def _exactly(self, size: int, fds: list[int]) -> bytes | None:
        """``size`` bytes, or None when the other end closes before they have come."""
        parts: list[bytes] = []
        while size:
            try:
                data, ancillary, _, _ = self.socket.recvmsg(
                    size, socket.CMSG_SPACE(4 * MAX_FDS), socket.MSG_CMSG_CLOEXEC
                )
            except ConnectionResetError:
                return None
            fds += received_fds(ancillary)
            if not data:
                return None
            parts.append(data)
            size -= len(data)
        return b"".join(parts)


def received_fds(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors that came with recvmsg(2); the caller's to close."""
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return list(fds)
