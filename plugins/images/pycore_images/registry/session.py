"""Asking a server of a registry: as whom, at which address, again where that may help, and onward where it sends us."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urljoin, urlsplit

from pycore_images.content import MAX_DOCUMENT
from pycore_images.registry import errors
from pycore_images.registry.body import discard, read_small
from pycore_images.registry.credentials import Credential
from pycore_images.registry.hosts import Endpoint
from pycore_images.registry.patience import USUAL, Cancel, Patience, Tries, never
from pycore_images.registry.tokens import Authorization, Scopes
from pycore_images.registry.transport import Body, Transport

if TYPE_CHECKING:
    import urllib3

T = TypeVar("T")

_REDIRECTED = {
    HTTPStatus.MOVED_PERMANENTLY,
    HTTPStatus.FOUND,
    HTTPStatus.SEE_OTHER,
    HTTPStatus.TEMPORARY_REDIRECT,
    HTTPStatus.PERMANENT_REDIRECT,
}
_KEEPING_METHOD = {HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.PERMANENT_REDIRECT}
_MOST_REDIRECTIONS = 5
_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True)
class Request:
    """What is asked of a server."""

    method: str
    path: str
    """Below its root, ``/v2/...``; or a whole address, which the server itself has given."""
    what: str
    """For people: ``the manifest of nginx:1``."""
    scopes: Scopes = ()
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: Body = None
    again: bool = True
    """Whether it does no harm to ask again where nobody knows how far it got."""


@dataclass(frozen=True)
class Answer:
    """A whole one."""

    status: int
    headers: Mapping[str, str]
    """Names in any letters."""
    body: bytes
    url: str
    """Where it came from at last."""


class Session:
    """One server, and what it knows of us. Any thread may use it."""

    def __init__(
        self,
        endpoint: Endpoint,
        transport: Transport,
        credential: Callable[[], Credential | None],
        *,
        patience: Patience = USUAL,
        cancel: Cancel | None = None,
        offline: bool = False,
    ) -> None:
        self.endpoint = endpoint
        self.transport = transport
        self.authorization = Authorization(endpoint.registry, transport, credential, offline=offline)
        self.patience = patience
        self.cancel = cancel or never()
        self._schemes = endpoint.schemes
        self._met = False

    @property
    def server(self) -> str:
        """Its name in messages."""
        return self.endpoint.server

    def ask(self, request: Request, good: Collection[int] = (HTTPStatus.OK,), limit: int = MAX_DOCUMENT) -> Answer:
        """A whole answer with one of these statuses. Raises RegistryError in words for any other; also where the body
        is longer than ``limit``.
        """
        return self._patiently(request, lambda: self._ask_once(request, good, limit))

    def open(self, request: Request, good: Collection[int] = (HTTPStatus.OK,)) -> urllib3.BaseHTTPResponse:
        """The head of such an answer, with the body still to come. It has to be read to its end, or closed."""
        return self._patiently(request, lambda: self._open_once(request, good)[0])

    def onward(self, url: str, location: str) -> str:
        """Where a header Location leads, seen from an address. Raises RegistryError where it must not be followed."""
        try:
            new = _resolved(url, location)
        except ValueError as error:
            raise errors.RegistryError(f"{self.server} sends us on to what is no address") from error
        scheme = urlsplit(new).scheme
        if scheme not in _PORTS or (scheme == "http" and url.startswith("https:")):
            raise errors.RegistryError(f"{self.server} sends us on to where nothing is encrypted")
        return new

    def _patiently(self, request: Request, attempt: Callable[[], T]) -> T:
        tries = Tries(self.patience, self.cancel)
        while True:
            try:
                return attempt()
            except (errors.Unreachable, errors.Busy) as error:
                if not request.again or not _is_whole(request):
                    raise
                if isinstance(error, errors.Unreachable) and not error.passes(self._met):
                    raise
                tries.failed(error)

    def _ask_once(self, request: Request, good: Collection[int], limit: int) -> Answer:
        response, url = self._open_once(request, good)
        body = b"" if request.method == "HEAD" else read_small(response, limit, self.server)
        if request.method == "HEAD":
            discard(response, self.server)
        return Answer(response.status, response.headers, body, url)

    def _open_once(self, request: Request, good: Collection[int]) -> tuple[urllib3.BaseHTTPResponse, str]:
        response, url = self._authorized(request)
        if response.status in good:
            return response, url
        start = discard(response, self.server)
        if response.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise errors.denied(
                self.server,
                request.what,
                self.endpoint.registry,
                self.authorization.known,
                errors.detail(response, start),
            )
        if errors.is_page(response) and response.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            raise errors.web_page(self.server)
        raise errors.refusal(self.server, request.what, response, start)

    def _authorized(self, request: Request) -> tuple[urllib3.BaseHTTPResponse, str]:
        """Twice where it first has to be learnt what the server wants to see."""
        header = self.authorization.header(request.scopes)
        response, url = self._followed(request, header)
        if response.status != HTTPStatus.UNAUTHORIZED or not self._is_own(url):
            return response, url
        if not self.authorization.refused(response, request.scopes, header, url.startswith("http:")):
            return response, url
        if not _is_whole(request):
            return response, url
        discard(response, self.server)
        return self._followed(request, self.authorization.header(request.scopes))

    def _followed(self, request: Request, header: str | None) -> tuple[urllib3.BaseHTTPResponse, str]:
        """To where redirections lead. Elsewhere nobody learns who we are."""
        method, body = request.method, request.body
        if "://" in request.path and not self._is_own(request.path):
            header = None
        response, url = self._first(request, self._headers(request, header))
        for _ in range(_MOST_REDIRECTIONS):
            if not _leads_on(response, request):
                return response, url
            discard(response, self.server)
            url = self.onward(url, response.headers["Location"])
            response = self._send(method, url, self._headers(request, header if self._is_own(url) else None), body)
        response.close()
        raise errors.RegistryError(f"{self.server} sends us around and around for {request.what}")

    def _first(self, request: Request, headers: Mapping[str, str]) -> tuple[urllib3.BaseHTTPResponse, str]:
        """On the first contact also find out which scheme it speaks."""
        for scheme in self._schemes[:-1]:
            url = self._url(scheme, request.path)
            try:
                response = self._send(request.method, url, headers, request.body)
            except errors.Unreachable as error:
                if error.kind not in ("tls", "refused", "cut"):
                    raise
            else:
                self._schemes = (scheme,)
                return response, url
        scheme = self._schemes[-1]
        url = self._url(scheme, request.path)
        response = self._send(request.method, url, headers, request.body)
        self._schemes = (scheme,)
        return response, url

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: Body) -> urllib3.BaseHTTPResponse:
        if self.cancel.is_set():
            raise errors.Cancelled("broken off")
        response = self.transport.send(method, url, headers, body)
        self._met = True
        return response

    def _headers(self, request: Request, header: str | None) -> dict[str, str]:
        return {**request.headers, **({"Authorization": header} if header else {})}

    def _url(self, scheme: str, path: str) -> str:
        return path if "://" in path else f"{scheme}://{self.endpoint.server}{path}"

    def _is_own(self, url: str) -> bool:
        """Whether an address is the server's that we were configured to speak to, as we were to."""
        return _origin(url) == _origin(self._url(self._schemes[0], "/"))


def _leads_on(response: urllib3.BaseHTTPResponse, request: Request) -> bool:
    if response.status not in _REDIRECTED or "Location" not in response.headers or not _is_whole(request):
        return False
    return response.status in _KEEPING_METHOD or request.method in ("GET", "HEAD")


def _is_whole(request: Request) -> bool:
    """Whether the body is still there after the first try: a stream is half gone then."""
    return request.body is None or isinstance(request.body, bytes)


def _resolved(url: str, location: str) -> str:
    """A registry behind a proxy that encrypts for it often does not know of that, and gives its address without."""
    new = urljoin(url, location)
    here, there = urlsplit(url), urlsplit(new)
    if here.scheme == "https" and there.scheme == "http" and here.netloc == there.netloc:
        return there._replace(scheme="https").geturl()
    return new


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    try:
        return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme)
    except ValueError:  # the port is none
        return parts.scheme, parts.netloc, None
