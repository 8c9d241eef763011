"""Putting an image into a registry: what it lacks, and last the name (distribution-spec, Pushing)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import IO, Self, cast
from urllib.parse import urlencode, urlsplit

from pycore_images.content import INDEXES, MANIFESTS, MAX_DOCUMENT, Damaged, Descriptor, Stream
from pycore_images.reference import Reference
from pycore_images.registry import errors
from pycore_images.registry.credentials import Credentials
from pycore_images.registry.hosts import Hosts
from pycore_images.registry.patience import USUAL, Cancel, Patience, Tries
from pycore_images.registry.repository import ACCEPTED
from pycore_images.registry.session import Answer, Request, Session
from pycore_images.registry.tokens import scopes
from pycore_images.registry.transport import READ, Body, Transport

CHUNK = 16 << 20
"""Bytes that are kept so that they can be sent again. A blob up to this size goes in one piece."""

_PIECE = 1 << 18
_SENT = re.compile(r"(?:bytes=)?0-(\d{1,19})")
_MANY = 100


class RegistrySink:
    """A :class:`pycore_images.content.Sink`. ``neighbours`` are repositories of the same registry that may have layers
    of this image: one that is there is not sent.
    """

    def __init__(
        self,
        reference: Reference,
        hosts: Hosts,
        environment: Mapping[str, str],
        *,
        neighbours: Sequence[str] = (),
        patience: Patience = USUAL,
        cancel: Cancel | None = None,
        read: float = READ,
        chunk: int = CHUNK,
    ) -> None:
        endpoint = hosts.itself(reference.registry)
        credentials = Credentials(environment)
        self.reference = reference
        self._name = endpoint.repository(reference.repository)
        self._neighbours = tuple(name for name in neighbours if name != self._name)[:_MANY]
        self._chunk = chunk
        self._scopes = scopes(self._name, "pull,push")
        self._session = Session(
            endpoint,
            Transport(environment, endpoint.ca, read),
            lambda: credentials.get(endpoint.registry, self._name),
            patience=patience,
            cancel=cancel,
        )

    @property
    def parallel(self) -> bool:
        """Several contents may be put at once."""
        return True

    def has(self, descriptor: Descriptor) -> bool:
        """Whether it is there, or in a neighbour, from which it is then taken."""
        if self._is_there(descriptor):
            return True
        return not _is_document(descriptor) and any(self._mounted(descriptor, name) for name in self._neighbours)

    def put(self, descriptor: Descriptor, stream: Stream) -> None:
        """Send content. Raises Damaged where the stream is not what the descriptor says.

        A stream that can ``seek`` is gone through again where a large one broke off; for another, RegistryError.
        """
        if _is_document(descriptor):
            self._put_manifest(descriptor.digest, descriptor, _whole(stream, descriptor))
        elif descriptor.size <= self._chunk:
            self._put_whole(descriptor, _whole(stream, descriptor))
        else:
            self._put_large(descriptor, stream)

    def finish(self, root: Descriptor, document: bytes) -> None:
        """Send the manifest or index under the reference's tag, or its digest where it has none."""
        self._put_manifest(self.reference.tag or root.digest, root, document)

    def close(self) -> None:
        """Close the connections."""
        self._session.transport.close()

    def break_off(self) -> None:
        """End what other threads wait for."""
        self._session.transport.break_off()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_there(self, descriptor: Descriptor) -> bool:
        if _is_document(descriptor):
            path, headers = f"manifests/{descriptor.digest}", {"Accept": ACCEPTED}
        else:
            path, headers = f"blobs/{descriptor.digest}", {}
        answer = self._ask("HEAD", path, "what is there", (HTTPStatus.OK, HTTPStatus.NOT_FOUND), headers)
        return answer.status == HTTPStatus.OK

    def _mounted(self, descriptor: Descriptor, neighbour: str) -> bool:
        query = urlencode({"mount": descriptor.digest, "from": neighbour})
        request = Request(
            "POST",
            f"/v2/{self._name}/blobs/uploads/?{query}",
            f"a layer of {neighbour}",
            scopes(self._name, "pull,push", [neighbour]),
            {"Content-Length": "0"},
            b"",
        )
        try:
            answer = self._session.ask(request, (HTTPStatus.CREATED, HTTPStatus.ACCEPTED))
        except errors.Denied:  # for the neighbour; what we may do here is seen when something is put
            return False
        if answer.status == HTTPStatus.ACCEPTED:  # it has begun an upload instead
            self._abandon(self._located(answer))
        return answer.status == HTTPStatus.CREATED

    def _begin(self) -> _Upload:
        answer = self._ask("POST", "blobs/uploads/", "an upload", (HTTPStatus.ACCEPTED,), {"Content-Length": "0"}, b"")
        least = answer.headers.get("OCI-Chunk-Min-Length", "")
        return _Upload(self._located(answer), int(least[:19]) if least.isascii() and least.isdigit() else 0)

    def _put_whole(self, descriptor: Descriptor, data: bytes) -> None:
        """In one piece; where that breaks off, in a new upload, since nobody knows what the old one has got."""

        def attempt() -> None:
            self._finish_upload(self._begin(), descriptor, data)

        self._until_there(descriptor, attempt)

    def _put_large(self, descriptor: Descriptor, stream: Stream) -> None:
        """In chunks. A registry that has let go of them gets them all again, where the stream can go back for them."""
        tries = Tries(self._session.patience, self._session.cancel)
        back = _way_back(stream)
        while True:
            try:
                return self._put_in_chunks(descriptor, stream)
            except _Lost as error:
                if back is None:
                    raise
                tries.failed(error)
            back()

    def _put_in_chunks(self, descriptor: Descriptor, stream: Stream) -> None:
        upload = self._begin()
        size = max(self._chunk, min(upload.least_chunk, 16 * self._chunk))
        at = 0
        while chunk := _read(stream, min(size, descriptor.size - at + 1)):
            if at + len(chunk) > descriptor.size:
                break
            try:
                upload = self._send_chunk(upload, chunk, at)
            except errors.RegistryError as error:
                if at or isinstance(error, errors.Denied | errors.Unreachable | errors.Busy | errors.Cancelled):
                    raise
                return self._put_as_stream(descriptor, chunk, stream)  # it knows no chunks
            at += len(chunk)
        if chunk or at != descriptor.size:
            self._abandon(upload.url)
            raise _wrong_length(descriptor)
        return self._until_there(descriptor, lambda: self._finish_upload(upload, descriptor, b""))

    def _put_as_stream(self, descriptor: Descriptor, start: bytes, stream: Stream) -> None:
        """In one piece, of which only the start could be sent again."""
        pieces = itertools.chain([start], _counted(stream, descriptor, len(start)))
        self._finish_upload(self._begin(), descriptor, pieces)

    def _until_there(self, descriptor: Descriptor, attempt: Callable[[], None]) -> None:
        """Again and again; perhaps only the answer was lost."""
        tries = Tries(self._session.patience, self._session.cancel)
        while True:
            try:
                return attempt()
            except (errors.Unreachable, errors.Busy) as error:
                tries.failed(error)
            if self._is_there(descriptor):
                return None

    def _send_chunk(self, upload: _Upload, chunk: bytes, at: int) -> _Upload:
        """One PATCH. Where it breaks off, the registry is asked how much has come, and gets the rest."""
        tries = Tries(self._session.patience, self._session.cancel)
        rest, end = chunk, at + len(chunk)
        while rest:
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Range": f"{end - len(rest)}-{end - 1}",
                "Content-Length": str(len(rest)),
            }
            request = Request("PATCH", upload.url, "an upload", self._scopes, headers, rest, again=False)
            try:
                answer = self._session.ask(request, (HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT))
                return _Upload(self._located(answer), upload.least_chunk)
            except (errors.Unreachable, errors.Busy) as error:
                tries.failed(error)
            upload, arrived = self._progress(upload)
            if not at <= arrived <= end:
                raise _Lost("cut", f"{self._session.server} has let go of a part of what was sent to it")
            rest = chunk[arrived - at :]
        return upload

    def _progress(self, upload: _Upload) -> tuple[_Upload, int]:
        """The address to go on at, and how many bytes have arrived."""
        good = (HTTPStatus.NO_CONTENT, HTTPStatus.OK, HTTPStatus.NOT_FOUND)
        answer = self._ask("GET", upload.url, "how far an upload is", good)
        if answer.status == HTTPStatus.NOT_FOUND:  # distribution 2 drops an upload that broke off inside of a chunk
            raise _Lost("cut", f"{self._session.server} has let go of an upload that broke off")
        found = _SENT.fullmatch(answer.headers.get("Range", ""))
        # Distribution says 0-0 for nothing as well as for one byte; of a chunk, never one byte alone arrives.
        arrived = int(found[1]) + 1 if found and found[1] != "0" else 0
        return _Upload(self._located(answer), upload.least_chunk), arrived

    def _finish_upload(self, upload: _Upload, descriptor: Descriptor, body: bytes | Iterator[bytes]) -> None:
        """With all of the content, or after all of it."""
        parts = urlsplit(upload.url)
        query = f"{parts.query}&" if parts.query else ""
        url = parts._replace(query=f"{query}{urlencode({'digest': descriptor.digest})}").geturl()
        length = len(body) if isinstance(body, bytes) else descriptor.size
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(length)}
        request = Request("PUT", url, f"a layer of {self._name}", self._scopes, headers, body, again=False)
        self._check_digest(self._session.ask(request, (HTTPStatus.CREATED, HTTPStatus.NO_CONTENT)), descriptor)

    def _put_manifest(self, version: str, descriptor: Descriptor, data: bytes) -> None:
        headers = {"Content-Type": descriptor.media_type}
        what = f"the manifest of {self._name}"
        answer = self._ask("PUT", f"manifests/{version}", what, (HTTPStatus.CREATED, HTTPStatus.OK), headers, data)
        self._check_digest(answer, descriptor)

    def _check_digest(self, answer: Answer, descriptor: Descriptor) -> None:
        if answer.headers.get("Docker-Content-Digest", descriptor.digest) != descriptor.digest:
            raise Damaged(f"{self._session.server} has kept something else than {descriptor.digest}")

    def _abandon(self, url: str) -> None:
        """Give up an upload. A registry that does not know that lets it expire."""
        try:
            request = Request("DELETE", url, "an upload", self._scopes)
            self._session.ask(request, (HTTPStatus.NO_CONTENT, HTTPStatus.OK, HTTPStatus.ACCEPTED))
        except errors.Cancelled:
            raise
        except errors.RegistryError:
            pass

    def _located(self, answer: Answer) -> str:
        location = answer.headers.get("Location", "")
        if not location:
            raise errors.RegistryError(f"{self._session.server} does not say where an upload goes")
        return self._session.onward(answer.url, location)

    def _ask(
        self,
        method: str,
        path: str,
        what: str,
        good: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
        body: Body = None,
    ) -> Answer:
        path = path if "://" in path else f"/v2/{self._name}/{path}"
        return self._session.ask(Request(method, path, what, self._scopes, headers or {}, body), good)


@dataclass(frozen=True)
class _Upload:
    url: str
    least_chunk: int


class _Lost(errors.Unreachable):
    """What was sent has to be sent from its start."""


def _way_back(stream: Stream) -> Callable[[], object] | None:
    """What brings a stream back to where it is now: a file can go there, a pipe cannot."""
    seekable: Callable[[], bool] = getattr(stream, "seekable", bool)
    if not seekable():
        return None
    file = cast(IO[bytes], stream)
    start = file.tell()
    return lambda: file.seek(start)


def _is_document(descriptor: Descriptor) -> bool:
    return descriptor.media_type in MANIFESTS | INDEXES


def _read(stream: Stream, size: int) -> bytes:
    """So many bytes, or fewer at the end."""
    data = bytearray()
    while len(data) < size and (piece := stream.read(min(_PIECE, size - len(data)))):
        data += piece
    return bytes(data)


def _whole(stream: Stream, descriptor: Descriptor) -> bytes:
    limit = MAX_DOCUMENT if _is_document(descriptor) else descriptor.size
    data = _read(stream, min(limit, descriptor.size) + 1)
    if len(data) != descriptor.size:
        raise _wrong_length(descriptor)
    return data


def _counted(stream: Stream, descriptor: Descriptor, at: int) -> Iterator[bytes]:
    while at < descriptor.size and (piece := stream.read(_PIECE)):
        at += len(piece)
        if at > descriptor.size:
            raise _wrong_length(descriptor)
        yield piece
    if at != descriptor.size or stream.read(1):
        raise _wrong_length(descriptor)


def _wrong_length(descriptor: Descriptor) -> Damaged:
    return Damaged(f"{descriptor.digest} has not the {descriptor.size} bytes that it is said to have")
