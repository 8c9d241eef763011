"""What a registry should not do, and what is made of it: scripted answers on loopback."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest
from pycore.errors import NotFound, PycoreError
from pycore_images import documents
from pycore_images.content import CONFIG, MANIFEST, MAX_DOCUMENT, Damaged, Descriptor
from pycore_images.reference import parse
from pycore_images.registry import body
from pycore_images.registry.errors import Busy, Cancelled, Denied, RegistryError, Unreachable
from pycore_images.registry.hosts import Hosts, Registry
from pycore_images.registry.login import login
from pycore_images.registry.patience import Cancel, Patience
from pycore_images.registry.pull import RegistrySource
from pycore_images.registry.push import RegistrySink
from pycore_images.sending import send
from pycore_images.store import Store
from support.images import Sample, read_all, sample, stream
from support.scripted import CUT, Reply, Scripted

HASTY = Patience(tries=3, delay=0.001, longest=0.01, longest_asked=5)
IMAGE = sample(100_000)
((LAYER, DATA),) = IMAGE.layers
ELSEWHERE = "/else/where?Signature=s3cret"
CHALLENGE = {"WWW-Authenticate": 'Basic realm="test"'}


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted().running() as script:
        yield serving(script, IMAGE)


@pytest.fixture
def other() -> Iterator[Scripted]:
    with Scripted().running() as script:
        yield script


def serving(script: Scripted, image: Sample, name: str = "app") -> Scripted:
    """A registry as it should be, with one image under the tag ``1``."""
    about = {"Content-Type": MANIFEST, "Docker-Content-Digest": image.root.digest}
    for version in ("1", image.root.digest):
        for method in ("HEAD", "GET"):
            script.on(f"{method} /v2/{name}/manifests/{version}", Reply(200, about, image.document))
    for content, data in image.contents:
        script.on(f"GET /v2/{name}/blobs/{content.digest}", Reply(200, {}, data))
    return script


def manifest(method: str = "HEAD", version: str = "1") -> str:
    return f"{method} /v2/app/manifests/{version}"


def blob(layer: Descriptor = LAYER, method: str = "GET") -> str:
    return f"{method} /v2/app/blobs/{layer.digest}"


def source(
    server: Scripted,
    name: str = "app:1",
    environment: dict[str, str] | None = None,
    cancel: Cancel | None = None,
    patience: Patience = HASTY,
    hosts: Hosts | None = None,
    read: float = 30,
) -> RegistrySource:
    hosts = hosts or Hosts({server.address: Registry(insecure=True)})
    reference = parse(f"{server.address}/{name}")
    return RegistrySource(
        reference, hosts, environment or {"HOME": "/nowhere"}, patience=patience, cancel=cancel, read=read
    )


def logged_in(tmp_path: Path, address: str) -> dict[str, str]:
    auth = base64.b64encode(b"me:pa55word").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {address: {"auth": auth}}}), encoding="utf-8")
    return {"DOCKER_CONFIG": str(tmp_path)}


def failure(found: RegistrySource, kind: type[PycoreError] = RegistryError) -> PycoreError:
    with found, pytest.raises(kind) as caught:
        found.root()
    shown = f"{caught.value.message} {caught.value.hint}"
    assert "pa55word" not in shown
    assert "s3cret" not in shown
    assert shown.isprintable()
    return caught.value


def test_as_it_should_be(server: Scripted) -> None:
    with source(server) as found:
        assert found.root() == IMAGE.root
        assert found.document(IMAGE.root) == IMAGE.document
        assert found.document(IMAGE.config) == IMAGE.config_data
        assert read_all(found, LAYER) == DATA
    assert len(server.asked) == 4


def test_plain_http_on_loopback_is_tried_after_tls(server: Scripted) -> None:
    with source(server, hosts=Hosts()) as found:
        assert found.root() == IMAGE.root


@pytest.mark.parametrize(
    "passing",
    [CUT, Reply(500), Reply(503, {"Retry-After": "0"}), Reply(429, {"Retry-After": "0"}), Reply(429)],
    ids=["cut", "500", "503", "429", "429 without a time"],
)
def test_what_passes_is_waited_for(server: Scripted, passing: Reply) -> None:
    good = server.replies[manifest()][0]
    server.on(manifest(), passing, passing, good)
    with source(server) as found:
        assert found.root() == IMAGE.root
    server.on(manifest(), passing)
    server.asked.clear()
    failure(source(server))
    assert len(server.asked) == HASTY.tries


@pytest.mark.parametrize("wait", ["3600", formatdate(4e9, usegmt=True)])
def test_longer_than_that_is_not_waited(server: Scripted, wait: str) -> None:
    server.on(manifest(), Reply(429, {"Retry-After": wait}))
    error = failure(source(server), Busy)
    assert len(server.asked) == 1
    assert "too many requests" in error.message
    assert "logged in" in (error.hint or "")


def test_waiting_can_be_broken_off(server: Scripted) -> None:
    server.on(manifest(), Reply(503))
    cancel = threading.Event()
    thread = threading.Timer(0.05, cancel.set)
    thread.start()
    failure(source(server, cancel=cancel, patience=Patience(delay=1000, longest=1000)), Cancelled)
    thread.join()


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(400, body=b'{"errors": [{"code": "X", "message": "be\\u001b[31m polite"}]}'), "400 Bad Request: be"),
        (Reply(418, body=b"x" * 100_000), "418 I'm a Teapot"),
        (Reply(299), "299"),
        (Reply(200, {"Content-Type": "text/html"}, b"<html>"), "a web page"),
        (Reply(404, {"Content-Type": "text/html"}, b"<html>"), "has no repository app"),
        (Reply(200, {"Content-Type": "image/png"}, b"{}"), "but image/png"),
        (Reply(200, {}, b"{}"), "something without a type"),
        (Reply(200, {"Content-Type": "application/vnd.docker.distribution.manifest.v1+prettyjws"}), "gave up in 2017"),
        (Reply(200, {"Content-Type": MANIFEST}, b"x" * (MAX_DOCUMENT + 1)), f"more than {MAX_DOCUMENT} bytes"),
        (Reply(200, {"Content-Type": MANIFEST, "Content-Length": ""}, b"x"), None),
    ],
    ids=["400", "418", "299", "page", "404 page", "picture", "no type", "schema 1", "large", "no length"],
)
def test_other_answers(server: Scripted, reply: Reply, words: str | None) -> None:
    server.on(manifest(), Reply(405))
    server.on(manifest("GET"), reply)
    if words:
        assert words in failure(source(server), PycoreError).message
    server.on(manifest(), reply)
    failure(source(server), PycoreError) if words else source(server).close()


@pytest.mark.parametrize("without", ["Docker-Content-Digest", "Content-Length"])
def test_head_that_does_not_say_enough(server: Scripted, without: str) -> None:
    good = server.replies[manifest()][0]
    server.on(manifest(), Reply(200, {**good.headers, without: ""}, good.body))
    with source(server) as found:
        assert found.root() == IMAGE.root
        assert found.document(IMAGE.root) == IMAGE.document
    assert server.requests("GET") == [manifest("GET")]


def test_digest_that_is_another(server: Scripted) -> None:
    pinned = f"app@sha256:{'0' * 64}"
    server.on(manifest(version=f"sha256:{'0' * 64}"), *server.replies[manifest()])
    assert "gives sha256:" in failure(source(server, pinned), Damaged).message


def test_manifest_of_another_length(server: Scripted) -> None:
    with source(server) as found:
        root = found.root()
        server.on(manifest("GET", root.digest), Reply(200, {"Content-Type": MANIFEST}, IMAGE.document + b" "))
        with pytest.raises(Damaged):
            found.document(root)
        huge = Descriptor(MANIFEST, root.digest, MAX_DOCUMENT + 1)
        with pytest.raises(Damaged, match="are the most"):
            found.document(huge)


def test_tags_that_are_like_it(server: Scripted) -> None:
    server.on(manifest(version="1.72"), Reply(404))
    tags = json.dumps({"name": "app", "tags": ["1.27", "1.7", "nightly", 7]}).encode()
    server.on("GET /v2/app/tags/list", Reply(200, {}, tags))
    assert failure(source(server, "app:1.72"), NotFound).hint == "tags there: 1.7, 1.27"
    server.on("GET /v2/app/tags/list", Reply(500))
    assert failure(source(server, "app:1.72"), NotFound).hint is None


def test_pages_of_tags(server: Scripted) -> None:
    link = {"Link": '</v2/app/tags/list?n=2&last=b>; rel="next"'}
    server.on("GET /v2/app/tags/list?n=1000", Reply(200, link, b'{"tags": ["a", "b"]}'))
    server.on("GET /v2/app/tags/list?n=2&last=b", Reply(200, {}, b'{"tags": ["c"]}'))
    with source(server) as found:
        assert found.tags() == ["a", "b", "c"]
    for wrong in (b"[]", b"{", b'{"tags": 7}', b"[" * 100_000):
        server.on("GET /v2/app/tags/list?n=1000", Reply(200, {}, wrong))
        with source(server) as found, pytest.raises(RegistryError, match="something else for the tags"):
            found.tags()


def test_broken_off_layer_goes_on_from_there(server: Scripted) -> None:
    server.on(blob(), Reply(200, {}, DATA, cut_at=40_000))
    with source(server) as found:
        got = b""
        with found.blob(LAYER) as coming:
            while len(got) < 40_000:
                got += coming.read(7000)
            with pytest.raises(ConnectionError, match="after 40000 of 100000 bytes"):
                coming.read(7000)
        assert got == DATA[:40_000]
        server.on(blob(), Reply(206, {"Content-Range": "bytes 40000-99999/100000"}, DATA[40_000:]))
        assert read_all(found, LAYER, 40_000) == DATA[40_000:]
        assert server.asked[-1].headers["Range"] == "bytes=40000-"
        server.on(blob(), Reply(200, {}, DATA))
        assert read_all(found, LAYER, 40_000) == DATA[40_000:], "a server that knows no ranges"
        server.on(blob(), Reply(206, {"Content-Range": "bytes 0-99999/100000"}, DATA))
        with pytest.raises(RegistryError, match="another part"):
            read_all(found, LAYER, 40_000)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(200, {}, DATA + b"x"), Damaged),
        (Reply(200, {}, DATA[:-1]), Damaged),
        (Reply(200, {"Content-Length": "", "Connection": "close"}, DATA[:-1], cut_at=len(DATA)), ConnectionError),
        (Reply(200, {"Content-Length": "", "Connection": "close"}, DATA + b"x", cut_at=len(DATA) + 1), Damaged),
        (Reply(200, {"Content-Type": "text/html"}, DATA), RegistryError),
        (Reply(404), NotFound),
        (Reply(403), Denied),
        (Reply(500), Busy),
    ],
    ids=["longer", "shorter", "ends early", "does not end", "page", "404", "403", "500"],
)
def test_layer_that_is_not_what_was_announced(server: Scripted, reply: Reply, error: type[Exception]) -> None:
    server.on(blob(), reply)
    with source(server) as found, pytest.raises(error):
        read_all(found, LAYER)


@pytest.mark.parametrize("request_", [manifest(), blob()], ids=["manifest", "layer"])
def test_server_from_which_nothing_comes(server: Scripted, request_: str) -> None:
    """However slow one is, it is given up only when nothing at all has come for a while."""
    server.on(request_, Reply(200, {"Content-Type": MANIFEST}, DATA, stall_at=1000))
    if request_ == blob():
        with source(server, read=0.1) as found, pytest.raises(ConnectionError, match="nothing came from it"):
            read_all(found, LAYER)
        return
    server.on(manifest(), Reply(405))
    server.on(manifest("GET"), Reply(200, {"Content-Type": MANIFEST}, DATA, stall_at=1000))
    assert "nothing came from it" in failure(source(server, read=0.1), Unreachable).message


def test_server_that_does_not_come_to_an_end(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "LONGEST", -1.0)
    server.on(manifest(), Reply(405))
    assert "has not come to an end" in failure(source(server), Unreachable).message


@pytest.mark.parametrize(
    ("address", "words"),
    [("localhost:1", "cannot be connected to"), ("nowhere.invalid", "nowhere.invalid: there is no host of this name")],
)
def test_nobody_there(address: str, words: str) -> None:
    found = RegistrySource(parse(f"{address}/app"), Hosts(), {"HOME": "/nowhere"}, patience=HASTY)
    assert words in failure(found, Unreachable).message


def test_who_went_away_is_waited_for(server: Scripted) -> None:
    """Somebody who has answered before may be back in a moment; a name that never answered is more likely wrong."""
    waits: list[float | None] = []

    class Waiting(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            return False

    with Scripted().running() as gone:
        serving(gone, IMAGE)
        found = source(gone, cancel=Waiting())
        assert found.root() == IMAGE.root
    with found, pytest.raises(Unreachable):
        found.document(IMAGE.config)
    assert len(waits) == HASTY.tries - 1


def test_no_tls_where_it_is_asked_for(server: Scripted) -> None:
    hosts = Hosts({server.address: Registry(ca="/etc/hostname")})
    assert "/etc/hostname" in failure(source(server, hosts=hosts), PycoreError).message
    named = Hosts({"reg.test": Registry(server=server.address.replace("127.0.0.1", "127.0.0.1.nowhere.invalid"))})
    found = RegistrySource(parse("reg.test/app"), named, {"HOME": "/nowhere"}, patience=HASTY)
    assert "there is no host" in failure(found, Unreachable).message


def test_redirection_learns_no_credentials(server: Scripted, other: Scripted, tmp_path: Path) -> None:
    server.on(blob(), Reply(401, CHALLENGE), Reply(307, {"Location": f"http://{other.address}{ELSEWHERE}"}))
    other.on(f"GET {ELSEWHERE}", Reply(200, {}, DATA))
    with source(server, environment=logged_in(tmp_path, server.address)) as found:
        found.root()
        assert read_all(found, LAYER) == DATA
    assert [one.headers.get("Authorization") is None for one in server.asked] == [True, True, False]
    assert "Authorization" not in other.asked[0].headers


def test_redirection_at_home_keeps_them(server: Scripted, tmp_path: Path) -> None:
    server.on(blob(), Reply(401, CHALLENGE), Reply(302, {"Location": ELSEWHERE}))
    server.on(f"GET {ELSEWHERE}", Reply(200, {}, DATA))
    with source(server, environment=logged_in(tmp_path, server.address)) as found:
        assert read_all(found, LAYER) == DATA
    assert "Authorization" in server.asked[-1].headers


def test_stranger_that_asks_who_we_are(server: Scripted, other: Scripted, tmp_path: Path) -> None:
    server.on(blob(), Reply(307, {"Location": f"http://{other.address}{ELSEWHERE}"}))
    other.on(f"GET {ELSEWHERE}", Reply(401, CHALLENGE))
    with source(server, environment=logged_in(tmp_path, other.address)) as found, pytest.raises(Denied):
        read_all(found, LAYER)
    assert len(other.asked) == 1


@pytest.mark.parametrize("location", ["/v2/app/manifests/1", "//", "ftp://127.0.0.1/", "http://[::1", "http://a:b/"])
def test_redirection_to_nowhere(server: Scripted, location: str) -> None:
    server.on(manifest(), Reply(302, {"Location": location}))
    failure(source(server))


def test_denied(server: Scripted, tmp_path: Path) -> None:
    server.on(manifest(), Reply(401, CHALLENGE))
    assert f"pycore login {server.address}" in (failure(source(server), Denied).hint or "")
    assert (
        "who is logged in" in failure(source(server, environment=logged_in(tmp_path, server.address)), Denied).message
    )
    assert len(server.asked) == 3
    for challenge in ({}, {"WWW-Authenticate": "Negotiate"}, {"WWW-Authenticate": "=,,=" * 5000}):
        server.on(manifest(), Reply(401, challenge))
        failure(source(server), Denied)


@pytest.mark.parametrize(
    "realm", ["", "http://token.invalid/", "file:///etc/passwd", "http://[", "https://", "token"], ids=repr
)
def test_token_server_without_tls_gets_nothing(tmp_path: Path, realm: str) -> None:
    """Not even when the registry itself has it: so here the registry is thought to have it."""
    from pycore_images.registry.credentials import Credential
    from pycore_images.registry.tokens import Authorization
    from pycore_images.registry.transport import Transport
    from urllib3 import HTTPResponse

    response = HTTPResponse(headers={"WWW-Authenticate": f'Bearer realm="{realm}",service="x"'})
    one = Authorization("reg.test", Transport({}), lambda: Credential("me", "pa55word"))
    assert one.refused(response, (), None, plain=False)
    with pytest.raises(RegistryError, match="token server"):
        one.header(())


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(200, {}, b"{}"), "answers with none"),
        (Reply(200, {}, b"[]"), "answers with none"),
        (Reply(200, {}, b"[" * 100_000), "answers with none"),
        (Reply(200, {}, b'{"token": "a\\r\\nX: y"}'), "answers with none"),
        (Reply(200, {}, b'{"token": 7}'), "answers with none"),
        (Reply(200, {}, b"x" * (1 << 20) + b"x"), "more than"),
        (Reply(302, {"Location": "/x"}), "refuses a token"),
        (Reply(401, {}, b'{"details": "no"}'), "denies a token"),
        (Reply(500), "cannot answer for a token"),
        (CUT, "broke off"),
    ],
)
def test_token_server(server: Scripted, other: Scripted, reply: Reply, words: str) -> None:
    bearer = {"WWW-Authenticate": f'Bearer realm="http://{other.address}/token?x=y",service="s",scope="all"'}
    server.on(manifest(), Reply(401, bearer))
    other.on("GET /token", reply)
    assert words in failure(source(server), RegistryError).message
    assert "x=y&service=s&scope=repository%3Aapp%3Apull" in other.asked[0].path


def test_token_that_is_not_accepted(server: Scripted, other: Scripted) -> None:
    server.on(manifest(), Reply(401, {"WWW-Authenticate": f'Bearer realm="http://{other.address}/token"'}))
    other.on("GET /token", Reply(200, {}, b'{"token": "abc", "expires_in": "x"}'))
    failure(source(server), Denied)
    assert [one.headers.get("Authorization") for one in server.asked] == [None, "Bearer abc"]


def test_mirror_that_is_broken(server: Scripted, other: Scripted) -> None:
    hosts = Hosts(
        {server.address: Registry(mirrors=(other.address,), insecure=True), other.address: Registry(insecure=True)}
    )
    for wrong in (Reply(500), Reply(404), CUT, Reply(200, {"Content-Type": "text/html"}, b"<html>")):
        other.on(manifest(), wrong)
        with source(server, hosts=hosts) as found:
            assert found.root() == IMAGE.root
            other.asked.clear()
            assert read_all(found, LAYER) == DATA
            assert not other.asked, "who did not have the manifest is not asked for its layers"
    serving(other, IMAGE)
    other.on(blob(), Reply(200, {}, DATA[1:]))
    with source(server, hosts=hosts) as found:
        assert found.root() == IMAGE.root
        assert read_all(found, LAYER) == DATA


def test_proxy(server: Scripted, other: Scripted) -> None:
    other.on("GET http://reg.test/v2/app/tags/list", Reply(200, {}, b'{"tags": ["a"]}'))
    hosts = Hosts({"reg.test": Registry(insecure=True)})
    environment = {"HOME": "/nowhere", "http_proxy": other.address, "NO_PROXY": "lan, .example"}
    with RegistrySource(parse("reg.test/app"), hosts, environment, patience=HASTY) as found:
        assert found.tags() == ["a"]
    with source(server, environment=environment) as found:
        assert found.root() == IMAGE.root, "what is on this host is not asked for through a proxy"
    excepted = environment | {"no_proxy": "test"}
    with RegistrySource(parse("reg.test/app"), hosts, excepted, patience=HASTY) as found, pytest.raises(Unreachable):
        found.tags()
    for wrong in ("socks5://127.0.0.1:1", "http://127.0.0.1:1"):
        other_way = environment | {"http_proxy": wrong}
        with RegistrySource(parse("reg.test/app"), hosts, other_way, patience=HASTY) as found:
            failure(found, PycoreError)


# Pushing

UPLOAD = "POST /v2/app/blobs/uploads/"
AT = "/v2/app/blobs/uploads/1?_state=x"


def sink(server: Scripted, environment: dict[str, str] | None = None, chunk: int = 1 << 24) -> RegistrySink:
    hosts = Hosts({server.address: Registry(insecure=True)})
    reference = parse(f"{server.address}/app:1")
    return RegistrySink(reference, hosts, environment or {"HOME": "/nowhere"}, patience=HASTY, chunk=chunk)


def receiving(server: Scripted, location: str = AT) -> None:
    server.on(UPLOAD, Reply(202, {"Location": location}))
    server.on("PATCH /v2/app/blobs/uploads/1", Reply(202, {"Location": location}))
    server.on("PUT /v2/app/blobs/uploads/1", Reply(201, {"Docker-Content-Digest": LAYER.digest}))


def test_small_layer_is_sent_again_from_its_start(server: Scripted) -> None:
    receiving(server)
    server.on("PUT /v2/app/blobs/uploads/1", CUT, Reply(503), Reply(201))
    with sink(server) as found:
        found.put(LAYER, stream(DATA))
    sent = [one for one in server.asked if one.method == "PUT"]
    assert [one.body for one in sent] == [DATA] * 3
    assert server.requests(UPLOAD) == [UPLOAD] * 3, (
        "each in an upload of its own: nobody knows what the old one has got"
    )
    assert sent[0].path == f"{AT}&digest=sha256%3A{LAYER.hex}"


@pytest.mark.parametrize("chunk", [1 << 24, 30_000], ids=["whole", "chunks"])
def test_only_the_answer_was_lost(server: Scripted, chunk: int) -> None:
    receiving(server)
    server.on("PUT /v2/app/blobs/uploads/1", CUT)
    server.on(blob(method="HEAD"), Reply(200))
    with sink(server, chunk=chunk) as found:
        found.put(LAYER, stream(DATA))
    assert server.requests()[-1] == blob(method="HEAD")


def test_chunk_goes_on_from_where_it_broke_off(server: Scripted) -> None:
    receiving(server)
    good = Reply(202, {"Location": AT})
    server.on("PATCH /v2/app/blobs/uploads/1", good, CUT, good)
    server.on("GET /v2/app/blobs/uploads/1", Reply(204, {"Location": AT, "Range": "0-44999"}))
    with sink(server, chunk=30_000) as found:
        found.put(LAYER, stream(DATA))
    sent = [(one.headers.get("Content-Range"), one.body) for one in server.asked if one.method in ("PATCH", "PUT")]
    ranges = ["0-29999", "30000-59999", "45000-59999", "60000-89999", "90000-99999", None]
    assert [found for found, _ in sent] == ranges
    assert b"".join(body for found, body in sent if found != "30000-59999") == DATA[:30_000] + DATA[45_000:]
    assert server.asked[-1].body == b""


@pytest.mark.parametrize("arrived", ["0-29998", "0-60000", "", "nonsense"])
def test_what_was_sent_is_lost(server: Scripted, arrived: str) -> None:
    receiving(server)
    server.on("PATCH /v2/app/blobs/uploads/1", *[Reply(202, {"Location": AT}), CUT] * HASTY.tries)
    server.on("GET /v2/app/blobs/uploads/1", Reply(204, {"Location": AT, "Range": arrived}))
    with sink(server, chunk=30_000) as found, pytest.raises(RegistryError, match="has let go of a part"):
        found.put(LAYER, stream(DATA))
    assert server.requests(UPLOAD) == [UPLOAD] * HASTY.tries


def test_a_layer_of_the_store_is_sent_again_from_its_start(server: Scripted, tmp_path: Path) -> None:
    """As ``push`` sends it."""
    store = Store(tmp_path / "images")
    layer = store.add_blob(stream(DATA), "application/vnd.oci.image.layer.v1.tar")
    about = store.add_document(b'{"rootfs": {"diff_ids": ["' + layer.digest.encode() + b'"]}}', CONFIG)
    root = store.add_document(documents.manifest_of(about, [layer]), MANIFEST)
    receiving(server)
    server.on("PATCH /v2/app/blobs/uploads/1", Reply(202, {"Location": AT}), CUT, Reply(202, {"Location": AT}))
    server.on(f"HEAD /v2/app/blobs/{about.digest}", Reply())
    server.on("PUT /v2/app/manifests/1", Reply(201))
    with sink(server, chunk=30_000) as found:
        send(store, root, found)
    assert b"".join(one.body for one in server.asked if one.method == "PATCH")[-len(DATA) :] == DATA


def test_stream_that_cannot_go_back(server: Scripted) -> None:
    receiving(server)
    server.on("PATCH /v2/app/blobs/uploads/1", CUT)

    class Pipe:
        read = stream(DATA).read

    with sink(server, chunk=30_000) as found, pytest.raises(RegistryError, match="has let go of an upload"):
        found.put(LAYER, Pipe())
    assert server.requests(UPLOAD) == [UPLOAD]


def test_registry_that_knows_no_chunks(server: Scripted) -> None:
    receiving(server)
    server.on("PATCH /v2/app/blobs/uploads/1", Reply(405))
    with sink(server, chunk=30_000) as found:
        found.put(LAYER, stream(DATA))
        with pytest.raises(Damaged):
            found.put(LAYER, stream(DATA + b"x"))
    assert next(one.body for one in server.asked if one.method == "PUT") == DATA


def test_least_size_of_a_chunk(server: Scripted) -> None:
    receiving(server)
    server.on(UPLOAD, Reply(202, {"Location": AT, "OCI-Chunk-Min-Length": "60000"}))
    with sink(server, chunk=10_000) as found:
        found.put(LAYER, stream(DATA))
    assert [len(one.body) for one in server.asked if one.method in ("PATCH", "PUT")] == [60_000, 40_000, 0]


@pytest.mark.parametrize("location", ["", "ftp://x/", "http://[::1"])
def test_upload_to_nowhere(server: Scripted, location: str) -> None:
    server.on(UPLOAD, Reply(202, {"Location": location}))
    with sink(server) as found, pytest.raises(RegistryError):
        found.put(LAYER, stream(DATA))


def test_upload_to_a_stranger_says_not_who_we_are(server: Scripted, other: Scripted, tmp_path: Path) -> None:
    receiving(other)
    server.on(UPLOAD, Reply(401, CHALLENGE), Reply(202, {"Location": f"http://{other.address}{AT}"}))
    with sink(server, logged_in(tmp_path, server.address)) as found:
        found.put(LAYER, stream(DATA))
    assert "Authorization" in server.asked[-1].headers
    assert [one.headers.get("Authorization") for one in other.asked] == [None]


def test_registry_that_keeps_something_else(server: Scripted) -> None:
    receiving(server)
    server.on("PUT /v2/app/blobs/uploads/1", Reply(201, {"Docker-Content-Digest": "sha256:0"}))
    server.on("PUT /v2/app/manifests/1", Reply(201, {"Docker-Content-Digest": "sha256:0"}))
    with sink(server) as found:
        with pytest.raises(Damaged):
            found.put(LAYER, stream(DATA))
        with pytest.raises(Damaged):
            found.finish(IMAGE.root, IMAGE.document)


def test_mount_that_becomes_an_upload_is_given_up(server: Scripted) -> None:
    receiving(server)
    server.on("DELETE /v2/app/blobs/uploads/1", Reply(500))
    hosts = Hosts({server.address: Registry(insecure=True)})
    reference = parse(f"{server.address}/app:1")
    with RegistrySink(
        reference, hosts, {"HOME": "/nowhere"}, neighbours=["app", "base", "more"], patience=HASTY
    ) as found:
        assert not found.has(LAYER)
        server.on(UPLOAD, Reply(201))
        assert found.has(LAYER)
        server.on(UPLOAD, Reply(403))
        assert not found.has(LAYER)
    assert f"POST /v2/app/blobs/uploads/?mount=sha256%3A{LAYER.hex}&from=base" in server.requests()
    assert not any("from=app" in line for line in server.requests())


def test_blocked_registry() -> None:
    hosts = Hosts({"bad.test": Registry(blocked=True)})
    for make in (RegistrySource, RegistrySink):
        with pytest.raises(PycoreError, match=r"bad\.test is blocked"):
            make(parse("bad.test/app"), hosts, {})


def test_login_that_a_registry_cannot_check(server: Scripted, tmp_path: Path) -> None:
    hosts = Hosts({server.address: Registry(insecure=True)})
    server.on("GET /v2/", Reply(500))
    with pytest.raises(Busy):
        login(server.address, "me", "pa55word", hosts, {"HOME": str(tmp_path)}, patience=HASTY)
    for name, word in (("", "x"), ("x", ""), ("a:b", "x")):
        with pytest.raises(PycoreError, match="a login is"):
            login(server.address, name, word, hosts, {"HOME": str(tmp_path)})
    assert not list(tmp_path.iterdir())
