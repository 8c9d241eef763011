"""Whatever bytes a server answers with, they are an image's or an error in words."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycore.errors import PycoreError
from pycore_images.content import CONFIG, MANIFEST, Descriptor
from pycore_images.reference import parse
from pycore_images.registry.hosts import Hosts, Registry
from pycore_images.registry.patience import Patience
from pycore_images.registry.pull import RegistrySource
from pycore_images.registry.push import RegistrySink
from support.images import stream

ONCE = Patience(tries=1, delay=0)
DIGEST = f"sha256:{'0' * 64}"

NAMES = """Content-Length Content-Type Content-Range Content-Encoding Transfer-Encoding Docker-Content-Digest Location
WWW-Authenticate Retry-After Range Link Connection OCI-Chunk-Min-Length"""
VALUES = f"""0
5
-1
{"1" * 30}
{DIGEST}
{MANIFEST}
text/html
/v2/
//
http://[
chunked
gzip
bytes 0-4/5
0-4
<http://[>; rel="next"
Bearer realm="http://["
Basic realm="x"
"""
names = st.sampled_from(NAMES.split())
values = st.sampled_from(VALUES.encode().splitlines()) | st.binary(max_size=20)
bodies = st.sampled_from(
    [b"", b"12345", b'{"tags": ["a"]}', b'{"errors": [{"message": 7}]}', b'{"errors": 7}', b"[" * 9999]
)
answers = st.builds(
    lambda status, headers, body: (
        b"HTTP/1.1 %d X\r\n" % status
        + b"".join(name.encode() + b": " + value + b"\r\n" for name, value in headers)
        + b"\r\n"
        + body
    ),
    st.sampled_from([100, 200, 201, 202, 204, 206, 301, 302, 307, 400, 401, 403, 404, 405, 416, 429, 500, 999]),
    st.lists(st.tuples(names, values), max_size=5),
    bodies,
) | st.binary(max_size=100)


class Raw:
    """Gives the same bytes to everybody, and hangs up."""

    def __init__(self) -> None:
        self.answer = b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError):
                client.recv(1 << 16)
                client.sendall(self.answer)


@pytest.fixture(scope="module")
def raw() -> Iterator[Raw]:
    server = Raw()
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield server
    server.listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    server.listener.close()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answers)
def test_any_answer(raw: Raw, answer: bytes) -> None:
    raw.answer = answer
    reference = parse(f"{raw.address}/app:1")
    hosts = Hosts({raw.address: Registry(insecure=True)})
    with RegistrySource(reference, hosts, {"HOME": "/nowhere"}, patience=ONCE, read=5) as source:
        for act in (
            source.root,
            source.tags,
            lambda: source.document(Descriptor(MANIFEST, DIGEST, 5)),
            lambda: source.document(Descriptor(CONFIG, DIGEST, 5)),
        ):
            never_a_traceback(act)
    with RegistrySink(reference, hosts, {"HOME": "/nowhere"}, patience=ONCE, read=5, chunk=2, neighbours=["x"]) as sink:
        layer = Descriptor("", DIGEST, 5)
        for act in (
            lambda: sink.has(layer),
            lambda: sink.put(layer, stream(b"12345")),
            lambda: sink.finish(Descriptor(MANIFEST, DIGEST, 2), b"{}"),
        ):
            never_a_traceback(act)


def never_a_traceback(act: Callable[[], object]) -> None:
    words = ""
    try:
        act()
    except PycoreError as error:
        words = error.message
    except ConnectionError as error:
        words = str(error)
    assert words.isprintable()
