"""One exchange over HTTP: connections, TLS, proxies, time limits. What is said over them is not known here."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit
from weakref import WeakSet

from pycore.errors import PycoreError

from pycore_images.registry import errors
from pycore_images.registry.hosts import host_of, is_loopback

if TYPE_CHECKING:
    import ssl

    import urllib3

CONNECT = 10.0
"""Seconds until a connection has to be there."""
READ = 30.0
"""Seconds without a byte after which a server is given up."""

Body = bytes | Iterator[bytes] | None


class Transport:
    """Connections that stay open between exchanges. Any thread may use it.

    ``ca`` is a file of authorities that are trusted beside the host's. ``environment`` is the client's: its proxies
    count.
    """

    def __init__(self, environment: Mapping[str, str], ca: str = "", read: float = READ) -> None:
        self._environment = environment
        self._ca = ca
        self._read = read
        self._managers: dict[tuple[str, str], urllib3.PoolManager] = {}
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._lock = Lock()

    def send(self, method: str, url: str, headers: Mapping[str, str], body: Body = None) -> urllib3.BaseHTTPResponse:
        """The head of the answer; its body is still to be read. Redirections are answers too. Raises Unreachable."""
        import urllib3

        parts = urlsplit(url)
        try:
            return self._manager(parts.scheme, parts.netloc).urlopen(
                method,
                url,
                headers={"User-Agent": _agent(), "Accept-Encoding": "identity", **headers},
                body=body,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=CONNECT, read=self._read),
            )
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise errors.unreachable(parts.netloc.rpartition("@")[2], error) from error

    def close(self) -> None:
        """Close the connections that are not in use."""
        with self._lock:
            for manager in self._managers.values():
                manager.clear()

    def break_off(self) -> None:
        """End what other threads wait for: it fails as if the other side had hung up."""
        with self._lock:
            for each in list(self._sockets):
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(each, socket.SHUT_RDWR)  # not SSLSocket's own, which forgets its keys first

    def _note(self, each: socket.socket) -> None:
        with self._lock:
            self._sockets.add(each)

    def _manager(self, scheme: str, server: str) -> urllib3.PoolManager:
        import urllib3

        proxy = _proxy(self._environment, scheme, server)
        with self._lock:
            if (scheme, proxy) not in self._managers:
                context = _trusting(self._ca, _stamps(self._ca)) if scheme == "https" else None
                manager = (
                    urllib3.ProxyManager(proxy, maxsize=8, ssl_context=context)
                    if proxy
                    else urllib3.PoolManager(maxsize=8, ssl_context=context)
                )
                manager.pool_classes_by_scheme = _pools(self._note)
                self._managers[scheme, proxy] = manager
            return self._managers[scheme, proxy]


def _pools(note: Callable[[socket.socket], None]) -> dict[str, type[urllib3.HTTPConnectionPool]]:
    """Connections that tell of their sockets, so that somebody else can end what is waited for."""
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
    from urllib3.connection import HTTPConnection, HTTPSConnection

    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            note(self.sock)

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            found = super()._new_conn()
            note(found)  # TLS is still to be spoken of
            return found

        def connect(self) -> None:
            super().connect()
            note(self.sock)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = cast(Any, Plain)  # pyright finds that urllib3's own are none either

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = cast(Any, Secure)

    return {"http": PlainPool, "https": SecurePool}


def _stamps(ca: str) -> tuple[object, ...]:
    """What tells whether the files of authorities are still those that were read."""
    import ssl

    found: list[object] = []
    for path in (ca, ssl.get_default_verify_paths().cafile):
        try:
            about = os.stat(path) if path else None
        except OSError:
            about = None
        found.append((path, about and (about.st_ino, about.st_mtime_ns)))
    return tuple(found)


@lru_cache(maxsize=16)
def _trusting(ca: str, _stamps: tuple[object, ...]) -> ssl.SSLContext:
    """Kept, since reading all authorities takes longer than most answers."""
    import ssl

    context = ssl.create_default_context()
    if ca:
        try:
            context.load_verify_locations(ca)
        except OSError as error:  # also of the file's content
            raise PycoreError(
                f"{ca}, which registries.toml names as ca: {error.strerror or 'no certificates'}"
            ) from error
    return context


def _proxy(environment: Mapping[str, str], scheme: str, server: str) -> str:
    """As curl(1) has it: ``https_proxy``, ``no_proxy``; never to this host itself."""

    def of(name: str) -> str:
        return environment.get(f"{name}_proxy") or environment.get(f"{name.upper()}_PROXY") or ""

    proxy = of(scheme) or of("all")
    if not proxy or is_loopback(server) or _is_excepted(server, of("no")):
        return ""
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if urlsplit(proxy).scheme not in ("http", "https"):
        raise PycoreError(
            "a proxy is named that speaks something else than HTTP", hint=f"unset {scheme}_proxy, or all_proxy"
        )
    return proxy


def _is_excepted(server: str, exceptions: str) -> bool:
    names = (f".{server.lower()}", f".{host_of(server).lower()}")
    excepted = [name.strip().lstrip(".").lower() for name in exceptions.split(",")]
    return "*" in excepted or any(one.endswith(f".{name}") for one in names for name in excepted if name)


@cache
def _agent() -> str:
    import pycore

    return f"pycore/{pycore.__version__}"
