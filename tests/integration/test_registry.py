"""Pull and push against a real registry: without a login, with one, with tokens, through TLS."""

from __future__ import annotations

import base64
import contextlib
import json
import stat
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from pycore.errors import NotFound, PycoreError
from pycore_images.content import INDEX, Damaged, Descriptor
from pycore_images.reference import parse
from pycore_images.registry.errors import Denied, RegistryError
from pycore_images.registry.hosts import Hosts, Registry
from pycore_images.registry.login import login, logout
from pycore_images.registry.patience import Patience
from pycore_images.registry.pull import RegistrySource
from pycore_images.registry.push import RegistrySink
from support.cutting import Cutting
from support.images import Sample, descriptor, entry, read_all, sample, stream
from support.registry import PASSWORD, USER, registry
from support.scripted import Asked, Reply, Scripted

pytestmark = pytest.mark.needs("docker-registry")

NOBODY: dict[str, str] = {"HOME": "/nowhere"}
PLAIN = Hosts()
HASTY = Patience(tries=3, delay=0.001, longest=0.01)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One that lets everybody in."""
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "run")}


def push(
    name: str, image: Sample, environment: dict[str, str] = NOBODY, hosts: Hosts = PLAIN, **more: object
) -> list[bool]:
    """What was there already, of each content."""
    with RegistrySink(parse(name), hosts, environment, patience=HASTY, **more) as found:  # type: ignore[arg-type]
        there = []
        for one, data in image.contents:
            there.append(found.has(one))
            if not there[-1]:
                found.put(one, stream(data))
        found.finish(image.root, image.document)
        return there


def source(name: str, environment: dict[str, str] = NOBODY, hosts: Hosts = PLAIN) -> RegistrySource:
    return RegistrySource(parse(name), hosts, environment, patience=HASTY)


def sink(name: str, **more: object) -> RegistrySink:
    return RegistrySink(parse(name), PLAIN, NOBODY, patience=HASTY, **more)  # type: ignore[arg-type]


def check_pull(name: str, image: Sample, environment: dict[str, str] = NOBODY, hosts: Hosts = PLAIN) -> None:
    with source(name, environment, hosts) as found:
        assert found.root() == image.root
        assert found.document(image.root) == image.document
        assert found.document(image.config) == image.config_data
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda layer: read_all(found, layer[0]), image.layers)) == [
                data for _, data in image.layers
            ]


def test_what_was_pushed_is_pulled(address: str) -> None:
    image = sample(10, 100_000, 3_000_000)
    assert push(f"{address}/team/app:1", image) == [False] * 4
    check_pull(f"{address}/team/app:1", image)
    check_pull(f"{address}/team/app@{image.root.digest}", image)
    assert push(f"{address}/team/app:2", image) == [True] * 4
    with source(f"{address}/team/app") as found:
        assert sorted(found.tags()) == ["1", "2"]


def test_part_of_a_layer(address: str) -> None:
    image = sample(100_000, seed=1)
    push(f"{address}/part", image)
    ((layer, data),) = image.layers
    with source(f"{address}/part") as found:
        assert found.root()
        assert read_all(found, layer, 99_000) == data[99_000:]
        assert read_all(found, layer, 100_000) == b""


def test_pushed_in_chunks(address: str) -> None:
    image = sample(1_000_003, seed=2)
    push(f"{address}/chunks", image, chunk=100_000)
    check_pull(f"{address}/chunks:latest", image)


def test_layer_of_a_neighbour_is_not_sent(address: str) -> None:
    image = sample(5000, 6000, seed=3)
    push(f"{address}/first", image)
    assert push(f"{address}/second", image) == [False] * 3
    assert push(f"{address}/third", image, neighbours=["nothing/here", "first"]) == [True] * 3
    check_pull(f"{address}/third", image)


def test_index_and_what_it_names(address: str) -> None:
    one, two = sample(100, seed=4), sample(200, seed=5)
    document = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry(one.root), entry(two.root)]})
    index = descriptor(document.encode(), INDEX)
    with sink(f"{address}/index:1") as found:
        for image in (one, two):
            assert not found.has(image.root)
            for content, data in [*image.contents, (image.root, image.document)]:
                found.put(content, stream(data))
            assert found.has(image.root)
        found.finish(index, document.encode())
    with source(f"{address}/index:1") as pulled:
        assert pulled.root() == index
        assert pulled.document(index) == document.encode()
        assert pulled.document(two.root) == two.document


def test_stream_that_is_not_what_was_announced(address: str) -> None:
    layer = Descriptor("application/octet-stream", f"sha256:{'0' * 64}", 1000)
    with sink(f"{address}/wrong", chunk=100) as found:
        for data in (b"x" * 999, b"x" * 1001):
            with pytest.raises(Damaged, match="has not the 1000 bytes"):
                found.put(layer, stream(data))
        with pytest.raises(RegistryError, match="digest"):
            found.put(layer, stream(b"x" * 1000))
        assert not found.has(layer)


@pytest.mark.parametrize("chunk", [1 << 24, 700_000], ids=["whole", "chunks"])
@pytest.mark.parametrize("after", [100, 500_000, 1_000_000, 2_500_000])
def test_push_over_a_line_that_breaks(address: str, chunk: int, after: int) -> None:
    image = sample(3_000_000, seed=after + chunk)
    ((layer, data),) = image.layers
    with Cutting(address).running() as line, sink(f"{line.address}/lines", chunk=chunk) as found:
        assert not found.has(image.config)
        line.allow(after)
        found.put(layer, stream(data))
        found.put(image.config, stream(image.config_data))
        found.finish(image.root, image.document)
        assert line.cuts == 1
    check_pull(f"{address}/lines", image)


def test_pull_over_a_line_that_breaks(address: str) -> None:
    image = sample(3_000_000, seed=12)
    push(f"{address}/line", image)
    ((layer, data),) = image.layers
    with Cutting(address).running() as line, source(f"{line.address}/line") as found:
        line.allow(100)
        assert found.root() == image.root
        line.allow(1_000_000)
        got = bytearray()
        with found.blob(layer) as coming, contextlib.suppress(ConnectionError):
            while piece := coming.read(1 << 16):
                got += piece
        assert 0 < len(got) < len(data)
        assert got + read_all(found, layer, len(got)) == data
        assert line.cuts == 2


def test_names_that_are_not_there(address: str) -> None:
    push(f"{address}/tags:1.27", sample(1))
    with source(f"{address}/tags:1.72") as found, pytest.raises(NotFound) as caught:
        found.root()
    assert "has no tags:1.72" in caught.value.message
    assert caught.value.hint == "tags there: 1.27"
    with source(f"{address}/nothing") as found, pytest.raises(NotFound, match="has no repository nothing"):
        found.root()
    with source(f"{address}/tags:1.27") as found, pytest.raises(NotFound, match="has no sha256:"):
        read_all(found, Descriptor("x", f"sha256:{'0' * 64}", 10))


def test_mirrors_come_first_and_the_registry_last(address: str) -> None:
    image, other = sample(1000, seed=6), sample(1000, seed=7)
    push(f"{address}/mirror/app:1", image)
    push(f"{address}/app:2", other)
    hosts = Hosts(
        {"reg.test": Registry(server=address, mirrors=("127.0.0.1:1", f"{address}/mirror")), address: Registry()}
    )
    check_pull("reg.test/app:1", image, hosts=hosts)
    check_pull("reg.test/app:2", other, hosts=Hosts({"reg.test": Registry(server=address, insecure=True)}))


def test_failures_of_mirrors_are_said_beside_the_last_one() -> None:
    hosts = Hosts({"localhost:1": Registry(mirrors=("127.0.0.1:1",))})
    with source("localhost:1/app", hosts=hosts) as found, pytest.raises(RegistryError) as caught:
        found.root()
    assert "localhost:1" in caught.value.message
    assert "127.0.0.1:1" in " ".join(caught.value.__notes__)


def test_login(tmp_path: Path, home: dict[str, str]) -> None:
    image = sample(1000)
    with registry(tmp_path / "registry", login=True) as address:
        name = f"{address}/app"
        with pytest.raises(Denied) as caught:
            push(name, image, home)
        assert caught.value.hint is not None
        assert f"pycore login {address}" in caught.value.hint
        with pytest.raises(Denied, match="does not accept the login"):
            login(address, USER, "wrong", Hosts(), home)
        file = Path(login(address, USER, PASSWORD, Hosts(), home))
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        push(name, image, home)
        check_pull(name, image, home)
        assert logout(address, home)
        assert not logout(address, home)
        with source(name, home) as found, pytest.raises(Denied):
            found.root()


def test_nothing_to_log_in_to(address: str, home: dict[str, str]) -> None:
    with pytest.raises(RegistryError, match="nothing to log in to"):
        login(address, USER, PASSWORD, Hosts(), home)


@dataclass
class TokenServer:
    """Gives tokens that the registry believes, to who knows the password: for what was asked, for a minute."""

    directory: Path
    script: Scripted
    asked: list[Asked] = field(default_factory=list[Asked])
    refresh: str = ""
    lasts: float = 60

    def certify(self) -> None:
        command = (
            "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=token -sha256"
        )
        subprocess.run(command.split(), cwd=self.directory, check=True, capture_output=True)

    def answer(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        if asked.method == "POST":
            query = parse_qs(asked.body.decode())
            allowed = query["refresh_token"] == [self.refresh]
            scopes = query.get("scope", [""])[0].split()
        else:
            query = parse_qs(urlsplit(asked.path).query)
            wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            given = asked.headers.get("Authorization")
            allowed = given is None or given == wanted
            scopes = query.get("scope", [])
        if not allowed:
            return Reply(401, body=b'{"errors": [{"code": "UNAUTHORIZED", "message": "who is that"}]}')
        known = asked.method == "POST" or "Authorization" in asked.headers
        values = {"token": self._token(scopes if known else []), "expires_in": self.lasts}
        if "offline_token" in query:
            values["refresh_token"] = self.refresh
        return Reply(body=json.dumps(values).encode())

    def _token(self, scopes: list[str]) -> str:
        certificate = "".join((self.directory / "cert.pem").read_text(encoding="utf-8").splitlines()[1:-1])
        now = int(time.time())
        access = [
            {"type": kind, "name": name, "actions": actions.split(",")}
            for kind, name, actions in (scope.split(":") for scope in scopes)
        ]
        claims = {"iss": "tests", "aud": "registry", "sub": USER, "access": access, "nbf": now - 60, "exp": now + 600}
        head = {"typ": "JWT", "alg": "RS256", "x5c": [certificate]}
        text = ".".join(_b64(json.dumps(part).encode()) for part in (head, claims))
        command = ["openssl", "dgst", "-sha256", "-sign", "key.pem"]
        signed = subprocess.run(command, cwd=self.directory, input=text.encode(), capture_output=True, check=True)
        return f"{text}.{_b64(signed.stdout)}"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@contextmanager
def with_tokens(directory: Path, refresh: str = "") -> Iterator[tuple[str, TokenServer]]:
    with Scripted().running() as script:
        tokens = TokenServer(directory, script, refresh=refresh)
        tokens.certify()
        script.reply = tokens.answer  # type: ignore[method-assign]
        auth = {
            "token": {
                "realm": f"http://{script.address}/token",
                "service": "registry",
                "issuer": "tests",
                "rootcertbundle": str(directory / "cert.pem"),
            }
        }
        with registry(directory / "registry", auth=auth) as address:
            yield address, tokens


@pytest.mark.needs("openssl")
def test_tokens(tmp_path: Path, home: dict[str, str]) -> None:
    image = sample(1000, 2000)
    with with_tokens(tmp_path) as (address, tokens):
        with pytest.raises(Denied):
            push(f"{address}/app", image, home)
        with pytest.raises(Denied, match="does not accept the login"):
            login(address, USER, "wrong", Hosts(), home)
        login(address, USER, PASSWORD, Hosts(), home)
        tokens.asked.clear()
        push(f"{address}/app", image, home)
        assert len(tokens.asked) == 1, "one token serves all requests of its scope"
        push(f"{address}/other", image, home, neighbours=["app"])
        check_pull(f"{address}/app", image, home)
        tokens.lasts = 0.001
        tokens.asked.clear()
        with source(f"{address}/app", home) as found:
            found.root()
            assert found.document(image.root) == image.document
        assert len(tokens.asked) == 2, "one that has run out is not used"


@pytest.mark.needs("openssl")
def test_identity_token_takes_the_place_of_the_password(tmp_path: Path, home: dict[str, str]) -> None:
    image = sample(1000)
    with with_tokens(tmp_path, refresh="for-later") as (address, tokens):
        file = Path(login(address, USER, PASSWORD, Hosts(), home))
        kept = json.loads(file.read_text(encoding="utf-8"))["auths"][address]
        assert kept["identitytoken"] == "for-later"
        assert base64.b64decode(kept["auth"]).decode() == f"{USER}:"
        tokens.asked.clear()
        push(f"{address}/app", image, home)
        check_pull(f"{address}/app", image, home)
        assert {one.method for one in tokens.asked} == {"POST"}
        tokens.refresh = "another"
        with source(f"{address}/app", home) as found, pytest.raises(Denied, match="does not accept the login"):
            found.root()


@pytest.mark.needs("openssl")
def test_tls(tmp_path: Path) -> None:
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost"
        " -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    image = sample(1000)
    tls = {"certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    with registry(tmp_path / "registry", tls=tls) as address:
        hosts = Hosts({address: Registry(ca=str(tmp_path / "cert.pem"))})
        push(f"{address}/app", image, hosts=hosts)
        check_pull(f"{address}/app", image, hosts=hosts)
        with source(f"{address}/app") as found, pytest.raises(RegistryError, match="certificate is not trusted") as no:
            found.root()
        assert no.value.hint is not None
        assert "registries.toml" in no.value.hint
        nowhere = Hosts({address: Registry(ca="/nowhere.pem")})
        with source(f"{address}/app", hosts=nowhere) as found, pytest.raises(PycoreError, match=r"/nowhere\.pem"):
            found.root()


@pytest.mark.needs("skopeo")
def test_skopeo_reads_what_was_pushed_and_we_what_it_pushes(address: str) -> None:
    image = sample(1000, 5_000_000, seed=9)
    push(f"{address}/ours:1", image, chunk=1_000_000)
    command = ["skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests"]
    names = (f"docker://{address}/ours:1", f"docker://{address}/theirs:2")
    subprocess.run([*command, *names], capture_output=True, check=True)
    check_pull(f"{address}/theirs:2", image)
