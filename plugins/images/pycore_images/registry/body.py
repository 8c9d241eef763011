"""Reading an answer's body: never more than was asked for, and every way in which it can end too early in words."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pycore_images.registry import errors

if TYPE_CHECKING:
    import urllib3

_SHORT = 1 << 16

LONGEST = 120.0
"""Seconds that a body may take which is kept in memory; a layer may take as long as it likes, while something comes."""


def read_some(response: urllib3.BaseHTTPResponse, size: int, server: str) -> bytes:
    """At most so many bytes; none at the end. Raises Unreachable where it breaks off."""
    import urllib3

    try:
        return response.read1(size)
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        response.close()
        raise errors.unreachable(server, error) from error


def read_small(response: urllib3.BaseHTTPResponse, limit: int, server: str) -> bytes:
    """A whole body that is to be kept in memory; one longer than ``limit`` bytes raises RegistryError."""
    parts: list[bytes] = []
    left = limit + 1
    end = time.monotonic() + LONGEST
    while left and (part := read_some(response, left, server)):
        if time.monotonic() > end:
            response.close()
            raise errors.Unreachable("slow", f"{server} has not come to an end in {LONGEST:.0f} seconds")
        parts.append(part)
        left -= len(part)
    if not left:
        response.close()
        raise errors.RegistryError(f"{server} answers with more than {limit} bytes where so many are the most")
    response.release_conn()
    return b"".join(parts)


def discard(response: urllib3.BaseHTTPResponse, server: str) -> bytes:
    """Be done with an answer, and keep its connection where what is left of it is short. The start of what was left."""
    start = b""
    try:
        while len(start) < _SHORT:
            part = read_some(response, _SHORT - len(start), server)
            if not part:
                response.release_conn()
                return start
            start += part
    except errors.Unreachable:
        pass
    response.close()
    return start
