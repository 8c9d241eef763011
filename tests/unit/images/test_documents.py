"""Manifests, indexes and configurations: what is read, what is refused, and that nothing else can happen."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycore.errors import NotFound, UsageError
from pycore.image import ImageConfig
from pycore_images import documents
from pycore_images.content import CONFIG, DOCKER_MANIFEST, INDEX, LAYER, MANIFEST, MAX_DOCUMENT, Damaged
from pycore_images.documents import Index, Manifest, Platform


def digest(text: object) -> str:
    return f"sha256:{hashlib.sha256(str(text).encode()).hexdigest()}"


def part(text: object, media_type: str = f"{LAYER}+gzip", size: Any = 10, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(text), "size": size} | more


def manifest(**more: Any) -> dict[str, Any]:
    whole = {"schemaVersion": 2, "mediaType": MANIFEST, "config": part("c", CONFIG), "layers": [part(1), part(2)]}
    return {key: value for key, value in (whole | more).items() if value is not ...}


def index(*manifests: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(manifests)} | more


def config(**more: Any) -> dict[str, Any]:
    whole = {
        "os": "linux", "architecture": "amd64", "created": "2026-01-01T00:00:00Z", "author": "somebody",
        "rootfs": {"type": "layers", "diff_ids": [digest(1), digest(2)]},
        "history": [{"created_by": "ADD x"}, {"created_by": "ENV", "empty_layer": True}],
        "config": {
            "Entrypoint": ["/run"], "Cmd": ["--all"], "Env": ["PATH=/bin", "EMPTY=", "EQUALS=a=b", "BARE"],
            "User": "www:33", "WorkingDir": "/srv", "Volumes": {"/data": {}, "/a/../../log": {}},
            "ExposedPorts": {"80/tcp": {}},
            "StopSignal": "SIGQUIT", "Labels": {"a": "b"}, "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1000},
        },
    }  # fmt: skip
    return whole | more


def raw(document: Any) -> bytes:
    return json.dumps(document).encode()


# -- what they say -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MANIFEST, DOCKER_MANIFEST, ..., None])
def test_a_manifest(kind: Any) -> None:
    found = documents.parse_manifest(raw(manifest(mediaType=kind, annotations={"a": "b"})))
    assert [layer.digest for layer in found.layers] == [digest(1), digest(2)]
    assert (found.config.digest, found.annotations) == (digest("c"), {"a": "b"})


def test_what_is_read_again_is_known() -> None:
    data, long = raw(manifest()), raw(manifest(annotations={"long": "x" * 100_000}))
    assert documents.parse_root(bytes(bytearray(data))) is documents.parse_root(data)
    assert documents.parse_root(long) is not documents.parse_root(long)
    assert documents.parse_root(long) == documents.parse_root(long)


def test_a_configuration() -> None:
    found = documents.parse_config(raw(config()), 2)
    run = found.run
    assert (run.entrypoint, run.command, run.user, run.working_dir) == (("/run",), ("--all",), "www:33", "/srv")
    assert run.environment == {"PATH": "/bin", "EMPTY": "", "EQUALS": "a=b", "BARE": ""}
    assert (run.volumes, run.ports, run.stop_signal, run.labels) == (
        ("/data", "/log"), ("80/tcp",), "SIGQUIT", {"a": "b"},
    )  # fmt: skip
    assert run.healthcheck == {"Test": ["CMD", "true"], "Interval": 1000}
    assert [step.empty for step in found.history] == [False, True]
    assert found.document == config()


def test_a_configuration_that_says_nothing() -> None:
    bare = {"rootfs": None, "config": None, "history": None}
    assert documents.parse_config(raw(bare), 0).run.command == ()
    nothing = dict.fromkeys(config()["config"])
    assert documents.parse_config(raw(config(config=nothing)), 2).run.volumes == ()


def test_what_is_written_is_read() -> None:
    read = documents.parse_manifest(raw(manifest()))
    assert documents.parse_manifest(documents.manifest_of(read.config, read.layers)) == read


def test_what_is_said_of_running_it_is_read() -> None:
    said = ImageConfig(
        ("/entry",), ("serve",), {"A": "=1", "B": ""}, "web:7", "/srv", ("/data",), ("80/tcp",), "SIGQUIT",
        {"Test": ["NONE"]}, {"vendor": "x"},
    )  # fmt: skip
    for each in (said, ImageConfig()):
        assert documents.parse_config(raw(config(config=documents.run_table(each)))).run == each


# -- hostile -------------------------------------------------------------------------------------------------

BAD_SIZES = [-1, True, 1.5, "10", None, 1 << 63]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (manifest(layers=[part(number) for number in range(10_000)]), "10000 parts; 500"),
        (index(*(part(number, MANIFEST) for number in range(10_000))), "10000 parts; 1000"),
        (manifest(schemaVersion=1), "version that is not read any more"),
        (manifest(schemaVersion=...), "is none"),
        (manifest(manifests=[]), "could be an index as well"),
        (index(layers=[]), "could be an index as well"),
        (manifest(mediaType=INDEX), "not of the kind"),
        (index(mediaType=MANIFEST), "not of the kind"),
        (manifest(mediaType="application/json"), "kind that is not read"),
        (manifest(mediaType=7), "wrong type"),
        (manifest(config=...), "configuration is missing"),
        (manifest(config=[]), "no JSON object"),
        (manifest(config=part("c", "application/vnd.cncf.helm.config.v1+json")), "not one of a container image"),
        (manifest(config=part("c", CONFIG, MAX_DOCUMENT + 1)), "are read at most"),
        (manifest(config=part(1, CONFIG)), "is its configuration"),
        (manifest(layers=...), "no list"),
        (manifest(layers={}), "no list"),
        (manifest(layers=["x"]), "part 1 of the manifest is no JSON object"),
        (manifest(layers=[part(1, "text/html")]), "layer of a kind"),
        (manifest(layers=[part(1, size=1 << 40)]), "are read at most"),
        (manifest(layers=[part(1) | {"digest": "sha512:" + "0" * 128}]), "reads sha256"),
        (manifest(layers=[part(1) | {"digest": "sha256:../../../etc/passwd"}]), "reads sha256"),
        (manifest(layers=[part(1) | {"digest": digest(1).upper()}]), "reads sha256"),
        (manifest(layers=[part(1, "")]), "media type"),
        (manifest(layers=[part(1, annotations={"a": 1})]), "no text"),
        *((manifest(layers=[part(1, size=size)]), "size that is none") for size in BAD_SIZES),
        ([], "no JSON object"),
        ("manifest", "no JSON object"),
        (manifest(annotations={"a": "\0"}), "NUL"),
        (manifest(annotations={"a": "\ud800"}), "no Unicode"),
        (manifest(annotations={"\udc00": ""}), "no Unicode"),
        (manifest(annotations={"a": "x" * (1 << 20)}), "too long"),
    ],
)
def test_a_manifest_that_is_refused(document: Any, words: str) -> None:
    with pytest.raises(Damaged, match=words):
        documents.parse_root(raw(document))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no JSON"),
        (b"<html>", "no JSON"),
        (b"\xff\xfe{\0}\0", "no JSON"),
        (b"[" * 1_000_000, "nested too deep"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deep"),
        (raw(manifest(annotations=None))[:-1] + b',"x":' + b"[" * 100 + b"]" * 100 + b"}", "nested too deep"),
        (b" " * (MAX_DOCUMENT + 1), "longer than"),
        (b'{"schemaVersion":2,"schemaVersion":2}', "twice"),
        (b'{"schemaVersion":NaN}', "NaN is no number"),
        (b'{"schemaVersion":' + b"9" * 100_000 + b"}", "no JSON that can be read"),
        (b'{"schemaVersion":1e999}', "version that is not read"),
    ],
)
def test_bytes_that_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(Damaged, match=words) as caught:
        documents.parse_root(data)
    assert len(str(caught.value)) < 400


def test_a_manifest_that_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """SHA-256 has no fixed point that anybody knows, so it takes a digest that has."""
    document = raw(manifest(annotations={"read": "never before"}))
    fixed = digest(2).removeprefix("sha256:")
    monkeypatch.setattr("hashlib.sha256", lambda _data: SimpleNamespace(hexdigest=lambda: fixed))
    with pytest.raises(Damaged, match="names itself"):
        documents.parse_manifest(document)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"rootfs": {"diff_ids": [digest(1)]}}, "speaks of 1 layers, and the manifest of 2"),
        ({"rootfs": {"diff_ids": ["x", "y"]}}, "no digest"),
        ({"rootfs": {"diff_ids": "xy"}}, "wrong type"),
        ({"rootfs": []}, "wrong type"),
        ({"os": 1}, "wrong type"),
        ({"history": [1]}, "no JSON object"),
        ({"history": [{}] * 100_000}, "100000 items"),
        ({"history": [{"empty_layer": "yes"}]}, "wrong type"),
        ({"config": {"Env": ["=x"]}}, "without a name"),
        ({"config": {"Env": "A=b"}}, "wrong type"),
        ({"config": {"Cmd": [1]}}, "no text"),
        ({"config": {"Cmd": ["a\0b"]}}, "NUL"),
        ({"config": {"Volumes": ["/data"]}}, "wrong type"),
        ({"config": {"Volumes": {"/": {}}}}, "in place of everything"),
        ({"config": {"Volumes": {"../..": {}}}}, "in place of everything"),
        ({"config": {"Labels": {"a": 1}}}, "no text"),
        ({"config": {"Healthcheck": []}}, "wrong type"),
    ],
)
def test_a_configuration_that_is_refused(more: dict[str, Any], words: str) -> None:
    with pytest.raises(Damaged, match=words):
        documents.parse_config(raw(config(**more)), 2)


def test_what_is_not_what_its_digest_says() -> None:
    data = raw(config())
    descriptor = documents.parse_descriptor(part("other", size=len(data)), "a test")
    with pytest.raises(Damaged, match="not what its digest says"):
        documents.check_document(data, descriptor, "the configuration")


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([digest(1), LAYER]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def places(document: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        found += [(document, key), *places(value)]
    return found


@settings(deadline=None)
@given(st.data())
def test_any_change_is_read_or_refused(data: st.DataObject) -> None:
    for whole in (manifest(), index(part(1, MANIFEST, platform={"os": "linux", "architecture": "amd64"})), config()):
        document = copy.deepcopy(whole)
        for _ in range(data.draw(st.integers(1, 3))):
            container, key = data.draw(st.sampled_from(places(document)))
            container[key] = data.draw(values)
        for parse in (documents.parse_root, documents.parse_config):
            try:
                found = parse(raw(document))
            except Damaged:
                continue
            assert isinstance(found, Index | Manifest | documents.Config)


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400))
def test_any_bytes_are_read_or_refused(noise: bytes, place: int) -> None:
    for whole in (raw(manifest()), raw(config())):
        for data in (noise, whole[:place] + noise + whole[place + len(noise) :]):
            for parse in (documents.parse_root, documents.parse_config):
                with contextlib.suppress(Damaged):
                    parse(data)


# -- platforms -----------------------------------------------------------------------------------------------


def for_platforms(*platforms: str) -> Index:
    def fields(text: str) -> dict[str, str]:
        return dict(zip(("os", "architecture", "variant"), text.split("/"), strict=False))

    return documents.parse_index(raw(index(*(part(text, MANIFEST, platform=fields(text)) for text in platforms))))


@pytest.mark.parametrize(
    ("there", "wanted", "chosen"),
    [
        (("linux/arm64", "linux/amd64"), "linux/amd64", "linux/amd64"),
        (("unknown/unknown", "linux/amd64"), "linux/amd64", "linux/amd64"),
        (("linux/amd64/v3", "linux/amd64"), "linux/amd64", "linux/amd64"),
        (("linux/arm64/v8",), "linux/arm64", "linux/arm64/v8"),
        (("linux/arm64",), "linux/arm64/v8", "linux/arm64"),
        (("linux/arm/v5", "linux/arm/v6"), "linux/arm/v7", "linux/arm/v6"),
        (("linux/arm/v7", "linux/arm/v6"), "linux/arm/v6", "linux/arm/v6"),
        (("windows/amd64", "linux/amd64"), "linux/amd64", "linux/amd64"),
    ],
)
def test_the_nearest_platform_is_chosen(there: tuple[str, ...], wanted: str, chosen: str) -> None:
    assert documents.choose(for_platforms(*there), documents.parse_platform(wanted)).digest == digest(chosen)


@pytest.mark.parametrize("there", ["linux/amd64/v3", "linux/arm64", "windows/amd64"])
def test_what_does_not_run_is_not_chosen(there: str) -> None:
    with pytest.raises(NotFound, match="not there for linux/amd64") as caught:
        documents.choose(for_platforms(there, "unknown/unknown"), Platform("linux", "amd64"))
    assert caught.value.hint == f"there is {there}"


@pytest.mark.parametrize("text", ["", "linux", "linux/", "linux/a b", "a/b/c/d"])
def test_a_platform_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="is no platform"):
        documents.parse_platform(text)


def test_the_hosts_platform() -> None:
    assert documents.host_platform().os == "linux"
