"""One repository on one server, to read from: manifests, blobs, tags."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Generator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from pycore.errors import NotFound

from pycore_images.content import INDEXES, MANIFESTS, MAX_DOCUMENT, Damaged, Descriptor, is_digest
from pycore_images.registry import errors
from pycore_images.registry.body import discard, read_some
from pycore_images.registry.session import Answer, Request, Session
from pycore_images.registry.tokens import scopes

if TYPE_CHECKING:
    import urllib3

ACCEPTED = ", ".join(sorted(MANIFESTS | INDEXES))

_OLD = {
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
}
_MOST_TAGS = 100_000
_PAGE = 1000
_PIECE = 1 << 16
_RANGE = re.compile(r"bytes (\d{1,19})-\d{1,19}/(?:\d{1,19}|\*)")
_LINK = re.compile(r'<([^>]*)>\s*;\s*rel="?next"?')


class Repository:
    """What a server has under one name. Any thread may use it."""

    def __init__(self, session: Session, name: str) -> None:
        self.session = session
        self.name = name
        self._scopes = scopes(name, "pull")

    @property
    def server(self) -> str:
        """Its server, for messages."""
        return self.session.server

    def head(self, version: str) -> Descriptor | None:
        """What a tag or digest leads to, without fetching it; None where the server does not say it so.

        Raises NotFound.
        """
        request = self._manifest_request("HEAD", version)
        missing = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED)
        answer = self.session.ask(request, (HTTPStatus.OK, *missing))
        if answer.status == HTTPStatus.NOT_FOUND:
            raise self._no_manifest(version)
        digest, length = answer.headers.get("Docker-Content-Digest", ""), answer.headers.get("Content-Length", "")
        if answer.status != HTTPStatus.OK or not is_digest(digest) or not (length.isascii() and length.isdigit()):
            return None
        return self._descriptor(answer, digest, int(length[:19]), version)

    def manifest(self, version: str) -> tuple[Descriptor, bytes]:
        """What a tag or digest leads to. Raises NotFound."""
        request = self._manifest_request("GET", version)
        answer = self.session.ask(request, (HTTPStatus.OK, HTTPStatus.NOT_FOUND))
        if answer.status == HTTPStatus.NOT_FOUND:
            raise self._no_manifest(version)
        digest = f"sha256:{hashlib.sha256(answer.body).hexdigest()}"
        return self._descriptor(answer, digest, len(answer.body), version), answer.body

    def document(self, descriptor: Descriptor) -> bytes:
        """A manifest, an index or a config by its digest. Raises NotFound, and Damaged where its length is another."""
        if descriptor.size > MAX_DOCUMENT:
            raise Damaged(f"{descriptor.digest} has {descriptor.size} bytes, and {MAX_DOCUMENT} are the most")
        if descriptor.media_type in MANIFESTS | INDEXES:
            data = self.manifest(descriptor.digest)[1]
        else:
            with self.blob(descriptor) as stream:
                data = b"".join(iter(lambda: stream.read(_PIECE), b""))
        if len(data) != descriptor.size:
            raise Damaged(f"{self.server} gives {len(data)} bytes for {descriptor.digest}, not {descriptor.size}")
        return data

    @contextmanager
    def blob(self, descriptor: Descriptor, offset: int = 0) -> Generator[Blob]:
        """A blob from a place on. Raises NotFound."""
        if offset >= descriptor.size:
            yield Blob(None, self.server, descriptor, descriptor.size)
            return
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        request = self._request("GET", f"blobs/{descriptor.digest}", f"a layer of {self.name}", headers)
        good = (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT, HTTPStatus.NOT_FOUND)
        response = self.session.open(request, good)
        try:
            if response.status == HTTPStatus.NOT_FOUND:
                discard(response, self.server)
                raise NotFound(f"{self.server} has no {descriptor.digest} in {self.name}")
            yield self._opened(response, descriptor, offset)
        finally:
            _finish(response)

    def tags(self, most: int = _MOST_TAGS) -> list[str]:
        """Its tags, in the server's order. Raises NotFound where there is no such repository."""
        found: list[str] = []
        path = f"tags/list?n={min(_PAGE, most)}"
        while True:
            request = self._request("GET", path, f"the tags of {self.name}")
            answer = self.session.ask(request, (HTTPStatus.OK, HTTPStatus.NOT_FOUND))
            if answer.status == HTTPStatus.NOT_FOUND:
                raise NotFound(f"{self.server} has no repository {self.name}")
            page = self._tags_of(answer)
            found += page
            link = _LINK.search(answer.headers.get("Link", ""))
            if not link or not page or len(found) >= most:
                return found[:most]
            path = self.session.onward(answer.url, link[1])

    def _tags_of(self, answer: Answer) -> list[str]:
        try:
            tags: Any = cast("dict[str, Any]", json.loads(answer.body))["tags"] or []
            return [tag for tag in tags if isinstance(tag, str)]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise errors.RegistryError(f"{self.server} gives something else for the tags of {self.name}") from error

    def _request(self, method: str, path: str, what: str, headers: dict[str, str] | None = None) -> Request:
        path = path if "://" in path else f"/v2/{self.name}/{path}"
        return Request(method, path, what, self._scopes, headers or {})

    def _manifest_request(self, method: str, version: str) -> Request:
        what = f"the manifest of {_versioned(self.name, version)}"
        return self._request(method, f"manifests/{version}", what, {"Accept": ACCEPTED})

    def _descriptor(self, answer: Answer, digest: str, size: int, version: str) -> Descriptor:
        media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if media_type in _OLD:
            raise errors.RegistryError(f"{_versioned(self.name, version)} is of a form that Docker gave up in 2017")
        if media_type == "text/html":
            raise errors.web_page(self.server)
        if media_type not in MANIFESTS | INDEXES:
            kind = errors.shown(media_type) or "something without a type"
            raise errors.RegistryError(f"{self.server} has no image under {_versioned(self.name, version)}, but {kind}")
        if is_digest(version) and digest != version:
            raise Damaged(f"{self.server} gives {digest} for {version}")
        return Descriptor(media_type, digest, size)

    def _no_manifest(self, version: str) -> NotFound:
        what = f"{self.server} has no {_versioned(self.name, version)}"
        if is_digest(version):
            return NotFound(what)
        try:
            tags = self.tags(_PAGE)
        except NotFound:
            return NotFound(f"{self.server} has no repository {self.name}", hint="check the name")
        except errors.RegistryError:  # what is missing is the news, not that more could not be learnt
            return NotFound(what)
        close = difflib.get_close_matches(version, tags, 5, 0.5) or tags[-5:]
        return NotFound(what, hint=f"tags there: {', '.join(errors.shown(tag) for tag in close)}" if close else None)

    def _opened(self, response: urllib3.BaseHTTPResponse, descriptor: Descriptor, offset: int) -> Blob:
        if errors.is_page(response):
            raise errors.web_page(self.server)
        skip = 0
        if response.status == HTTPStatus.OK:
            skip, offset = offset, 0  # it does not know ranges, or does not want to
        elif not (match := _RANGE.fullmatch(response.headers.get("Content-Range", ""))) or int(match[1]) != offset:
            raise errors.RegistryError(f"{self.server} gives another part of a layer than it was asked for")
        length = response.headers.get("Content-Length", "")
        if length.isascii() and length.isdigit() and int(length[:19]) != descriptor.size - offset:
            got = int(length[:19]) + offset
            raise Damaged(f"{self.server} has {got} bytes under {descriptor.digest}, not {descriptor.size}")
        blob = Blob(response, self.server, descriptor, offset)
        while skip and (data := blob.read(min(skip, _PIECE))):
            skip -= len(data)
        return blob


class Blob:
    """A blob that comes in: exactly as many bytes as its descriptor says, or an error."""

    def __init__(
        self, response: urllib3.BaseHTTPResponse | None, server: str, descriptor: Descriptor, offset: int
    ) -> None:
        self._response, self._server, self._descriptor = response, server, descriptor
        self._at = offset

    def read(self, size: int, /) -> bytes:
        """What has come, at most so many bytes; none at the end. Raises ConnectionError where it breaks off, after
        which the rest can be asked for, and Damaged where there is more than there should be.
        """
        if self._response is None:
            return b""
        try:
            data = read_some(self._response, size, self._server)
        except errors.Unreachable as error:
            raise ConnectionError(self._broken(error.message)) from error
        self._at += len(data)
        if self._at > self._descriptor.size:
            raise Damaged(f"{self._server} gives more for {self._descriptor.digest} than {self._descriptor.size} bytes")
        if not data and size and self._at < self._descriptor.size:
            raise ConnectionError(self._broken(f"{self._server}: it ended"))
        return data

    def _broken(self, words: str) -> str:
        return f"{words} after {self._at} of {self._descriptor.size} bytes"


def _versioned(name: str, version: str) -> str:
    return f"{name}{'@' if is_digest(version) else ':'}{version}"


def _finish(response: urllib3.BaseHTTPResponse) -> None:
    """Keep the connection where all was read; what was broken off would come in before the next answer."""
    if response.closed:
        response.release_conn()
    else:
        response.close()
