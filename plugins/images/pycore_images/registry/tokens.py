"""The header Authorization: from a credential, or from a token server that takes one (Docker's token authentication).

Tokens are kept per scope until shortly before they expire. A token server is asked by one thread at a time.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from threading import Lock
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode, urlsplit

from pycore_images.registry import challenge, errors
from pycore_images.registry.body import read_small
from pycore_images.registry.credentials import Credential
from pycore_images.registry.transport import Transport

if TYPE_CHECKING:
    import urllib3

Scopes = tuple[str, ...]
"""What is to be allowed: ``repository:library/nginx:pull``."""

_LASTS = 60.0
"""Seconds for which a token is good that does not say it."""
_LONGEST_LIFE = 86400.0
_FRESH = 0.8
"""The part of that time for which it is used: our clock is not the registry's, and a request takes time."""
_MAX_ANSWER = 1 << 20
_TOKEN = re.compile(r"[\x21-\x7e]+")
_CLIENT = "pycore"


@dataclass
class _Token:
    header: str = field(repr=False)
    until: float


class Authorization:
    """What one registry wants to see of us.

    ``credential`` is called once, when it is first asked who we are. A token server without TLS is
    spoken to only where the registry itself is.
    """

    def __init__(
        self, registry: str, transport: Transport, credential: Callable[[], Credential | None], *, offline: bool = False
    ) -> None:
        self._registry = registry
        self._transport = transport
        self._find = credential
        self._offline = offline
        self._found: Credential | None = None
        self._asked = False
        self._challenge: challenge.Challenge | None = None
        self._plain = False
        self._tokens: dict[Scopes, _Token] = {}
        self._lock = Lock()
        self.refresh_token = ""
        """What a token server gave in place of the password, if it was asked with ``offline``."""

    @property
    def known(self) -> bool:
        """Whether there is a credential. Not asked before the registry has."""
        return self._found is not None

    def header(self, scopes: Scopes) -> str | None:
        """For a request; None where nothing is asked for, or nothing is there to be given."""
        with self._lock:
            if self._challenge is None:
                return None
            if self._challenge.scheme == "basic":
                return self._basic()
            if self._found and self._found.bearer:
                return f"Bearer {self._found.bearer}"
            token = self._tokens.get(scopes)
            if token is None or token.until < time.monotonic():
                token = self._tokens[scopes] = self._fetch(scopes)
            return token.header

    def refused(self, response: urllib3.BaseHTTPResponse, scopes: Scopes, header: str | None, plain: bool) -> bool:
        """After an answer of 401 to a request with that header: whether there is something better to say now."""
        offered = challenge.parse(response.headers.getlist("WWW-Authenticate"))
        # A token says less than a password.
        wanted = sorted(
            (one for one in offered if one.scheme in ("bearer", "basic")), key=lambda one: one.scheme != "bearer"
        )
        if not wanted:
            return False
        with self._lock:
            if not self._asked:
                self._found, self._asked = self._find(), True
            self._challenge, self._plain = wanted[0], plain
            kept = self._tokens.get(scopes)
            if kept and kept.header == header:
                del self._tokens[scopes]
            return wanted[0].scheme == "bearer" or self._basic() not in (None, header)

    def _basic(self) -> str | None:
        found = self._found
        return basic(found) if found and found.username and found.password else None

    def _fetch(self, scopes: Scopes) -> _Token:
        assert self._challenge is not None
        realm = self._challenge.parameters.get("realm", "")
        service = self._challenge.parameters.get("service", "")
        server = self._token_server(realm)
        found = self._found
        response = (
            self._post(realm, service, scopes, found.identity_token)
            if found and found.identity_token
            else self._get(realm, service, scopes, found)
        )
        body = read_small(response, _MAX_ANSWER, server)
        if response.status != HTTPStatus.OK:
            self._raise(server, response, body)
        return self._token(server, body)

    def _token_server(self, realm: str) -> str:
        try:
            parts = urlsplit(realm)
        except ValueError as error:
            raise errors.RegistryError(f"{self._registry} names a token server that can be none") from error
        server = parts.netloc.rpartition("@")[2]
        if not server or parts.scheme not in (("https", "http") if self._plain else ("https",)):
            raise errors.RegistryError(f"{self._registry} names no token server that is reached through TLS")
        return server

    def _get(self, realm: str, service: str, scopes: Scopes, found: Credential | None) -> urllib3.BaseHTTPResponse:
        query = [("service", service)] if service else []
        query += [("scope", scope) for scope in scopes]
        headers: dict[str, str] = {}
        if found and found.username:
            query += [("account", found.username)]
            headers["Authorization"] = basic(found)
        if self._offline:
            query += [("client_id", _CLIENT), ("offline_token", "true")]
        return self._transport.send("GET", f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}", headers)

    def _post(self, realm: str, service: str, scopes: Scopes, refresh: str) -> urllib3.BaseHTTPResponse:
        """With a refresh token (RFC 6749, 6)."""
        words = {"grant_type": "refresh_token", "refresh_token": refresh, "service": service, "client_id": _CLIENT}
        form = urlencode(words | ({"scope": " ".join(scopes)} if scopes else {}))
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._transport.send("POST", realm, headers, form.encode())

    def _token(self, server: str, body: bytes) -> _Token:
        try:
            values = cast("dict[str, Any]", json.loads(body))
            token = values.get("token") or values.get("access_token")
            lasts = values.get("expires_in") or _LASTS
            refresh = values.get("refresh_token")
        except (ValueError, AttributeError, RecursionError):
            token, lasts, refresh = None, _LASTS, None
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise errors.RegistryError(f"{server}, where {self._registry} sends us for a token, answers with none")
        self.refresh_token = refresh if isinstance(refresh, str) else ""
        lasts = lasts if isinstance(lasts, int | float) and 0 < lasts < _LONGEST_LIFE else _LASTS
        return _Token(f"Bearer {token}", time.monotonic() + lasts * _FRESH)

    def _raise(self, server: str, response: urllib3.BaseHTTPResponse, body: bytes) -> None:
        if response.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            said = errors.detail(response, body)
            raise (
                errors.wrong_login(self._registry, said)
                if self.known
                else errors.denied(server, "a token", self._registry, False, said)
            )
        raise errors.refusal(server, "a token", response, body)


def basic(credential: Credential) -> str:
    """A name and a password as a header (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{credential.username}:{credential.password}".encode()).decode()


def scopes(repository: str, actions: str, also: Sequence[str] = ()) -> Scopes:
    """To pull or ``pull,push`` a repository, and to pull from others on the same registry."""
    return (f"repository:{repository}:{actions}", *(f"repository:{name}:pull" for name in also))
