"""Manifests, indexes and configurations, read from bytes that nobody vouches for.

The formats are those of the OCI image specification 1.1 (manifest.md, image-index.md, config.md) and of Docker's
manifest version 2, schema 2, which differ by their media types alone. Whatever is wrong with one is :class:`Damaged`,
with words; nothing is taken on trust that somebody would stumble over later.
"""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar, cast

from pycore.errors import NotFound, UsageError
from pycore.image import ImageConfig

from pycore_images.content import (
    CONFIGS,
    INDEX,
    INDEXES,
    MANIFEST,
    MANIFESTS,
    MAX_DOCUMENT,
    Damaged,
    Descriptor,
    is_digest,
)

MAX_LAYERS = 500
"""What the kernel lays on top of each other (OVL_MAX_STACK)."""
MAX_MANIFESTS = 1000
"""In an index."""
MAX_NESTED = 4
"""Indexes within indexes."""
MAX_LAYER = 64 << 30
"""Bytes of one layer, as it comes."""
_MAX_DEPTH = 64
_MAX_LIST = 10_000
_MAX_TEXT = 256 << 10
"""Characters of one text; the kernel takes half as many in an argument (MAX_ARG_STRLEN)."""
_MAX_SIZE = (1 << 63) - 1
_KEPT = 32 << 10
"""Bytes of a document that is read once while it is asked for again and again."""

_LAYER_TYPE = re.compile(
    r"application/vnd\.(?:oci\.image\.layer(?:\.nondistributable)?\.v1\.tar(?:\+(?:gzip|zstd))?"
    r"|docker\.image\.rootfs\.(?:diff|foreign\.diff)\.tar(?:\.(?:gzip|zstd))?)"
)
_PARTS = re.compile(r"[A-Za-z0-9._-]{1,64}")

Document = Mapping[str, Any]
_Kind = TypeVar("_Kind")
P = ParamSpec("P")
T = TypeVar("T")


# -- what they say ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Platform:
    """What programs of an image run on, in Go's words."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True)
class Index:
    """The manifests of one image for several platforms."""

    manifests: tuple[Descriptor, ...]


@dataclass(frozen=True)
class Manifest:
    """What an image consists of: its configuration, and layers, the lowest first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Step:
    """One step of how an image was made."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty: bool = False
    """Whether it made no layer."""


@dataclass(frozen=True)
class Config:
    """What an image says of itself."""

    platform: Platform
    diff_ids: tuple[str, ...]
    """Digests of the layers unpacked, the lowest first."""
    run: ImageConfig
    history: tuple[Step, ...] = ()
    created: str = ""
    author: str = ""
    document: Document = field(default_factory=dict[str, Any], compare=False, repr=False)
    """All that it says, for whoever makes another one of it."""


@dataclass(frozen=True)
class Image:
    """One image for one platform, whole."""

    root: Descriptor
    """What its name leads to: its manifest, or an index that has it."""
    descriptor: Descriptor
    """Of its manifest."""
    manifest: Manifest
    config: Config

    @property
    def digest(self) -> str:
        """Of its manifest."""
        return self.descriptor.digest

    @property
    def layers(self) -> tuple[tuple[Descriptor, str], ...]:
        """Each layer as it comes, and its diff id; the lowest first."""
        return tuple(zip(self.manifest.layers, self.config.diff_ids, strict=True))

    @property
    def size(self) -> int:
        """Bytes to be fetched where nothing is there."""
        layers = {layer.digest: layer.size for layer in self.manifest.layers}
        return self.descriptor.size + self.manifest.config.size + sum(layers.values())


# -- reading ---------------------------------------------------------------------------------------------


def _remembered(parse: Callable[Concatenate[bytes, P], T]) -> Callable[Concatenate[bytes, P], T]:
    """The same bytes always mean the same: every start of a container asks for those of its image. Those of usual
    length are kept as they were understood; nobody changes what comes of them.
    """
    known = cast("Callable[Concatenate[bytes, P], T]", functools.lru_cache(maxsize=64)(parse))

    def understood(data: bytes, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return (known if len(data) <= _KEPT else parse)(data, *args, **kwargs)

    return cast("Callable[Concatenate[bytes, P], T]", functools.wraps(parse)(understood))


@_remembered
def parse_root(data: bytes, media_type: str = "") -> Index | Manifest:
    """A manifest or an index, whichever it is. Raises Damaged."""
    document = _loaded(data, "the manifest")
    kind = _kind_of(document, media_type)
    return _index(document) if kind in INDEXES else _manifest(document, data)


def parse_index(data: bytes) -> Index:
    """Raises Damaged."""
    found = parse_root(data)
    return found if isinstance(found, Index) else _wrong("the index", "is a manifest")


def parse_manifest(data: bytes) -> Manifest:
    """Raises Damaged."""
    found = parse_root(data)
    return found if isinstance(found, Manifest) else _wrong("the manifest", "is an index")


@_remembered
def media_type_of(data: bytes, media_type: str = "") -> str:
    """What a manifest or index says it is; where it says nothing, ``media_type``, or what it looks like.

    Raises Damaged, also where it says something else than ``media_type``.
    """
    return _kind_of(_loaded(data, "the manifest"), media_type)


@_remembered
def parse_config(data: bytes, layers: int | None = None) -> Config:
    """The configuration of an image that has so many layers. Raises Damaged."""
    document = _loaded(data, "the configuration")
    rootfs = Fields(document, "the configuration").table("rootfs")
    diff_ids = tuple(rootfs.digests("diff_ids"))
    if layers is not None and len(diff_ids) != layers:
        _wrong("the configuration", f"speaks of {len(diff_ids)} layers, and the manifest of {layers}")
    fields = Fields(document, "the configuration")
    return Config(
        Platform(fields.text("os") or "linux", fields.text("architecture"), fields.text("variant")),
        diff_ids,
        _run_config(fields.table("config")),
        tuple(_step(step) for step in fields.tables("history")),
        fields.text("created"),
        fields.text("author"),
        document,
    )


def parse_descriptor(document: Any, where: str) -> Descriptor:
    """Raises Damaged; ``where`` says what it stands in."""
    fields = Fields(document, where)
    size = cast(Document, document).get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAX_SIZE:
        _wrong(where, "has a size that is none")
    digest = fields.text("digest")
    if not is_digest(digest):
        known = f"is {digest[:80]!r}, and pycore reads sha256 in small letters" if digest else "is missing"
        _wrong(where, f"has a digest that {known}")
    media_type = fields.text("mediaType")
    if not media_type or len(media_type) > 255:
        _wrong(where, "has a media type that is none")
    platform = fields.texts_by_name("platform", also=("os.features", "features"))
    return Descriptor(media_type, digest, size, fields.texts_by_name("annotations"), platform or None)


def check_document(data: bytes, descriptor: Descriptor, what: str) -> bytes:
    """The same bytes, which are those that the descriptor names. Raises Damaged."""
    if len(data) != descriptor.size or f"sha256:{hashlib.sha256(data).hexdigest()}" != descriptor.digest:
        _wrong(what, f"is not what its digest says ({descriptor.digest[:19]}...)")
    return data


def image_of(root: Descriptor, read: Callable[[Descriptor], bytes], wanted: Platform, name: str) -> Image:
    """The image that a manifest is, or that an index has for a platform. ``read`` gives a manifest, index or
    configuration, which is known to be what its digest says; ``name`` is for messages.

    Raises NotFound, Damaged, and what ``read`` raises.
    """
    descriptor = root
    for _ in range(MAX_NESTED):
        found = parse_root(read(descriptor), descriptor.media_type)
        if isinstance(found, Manifest):
            return Image(root, descriptor, found, parse_config(read(found.config), len(found.layers)))
        descriptor = choose(found, wanted, name)
    raise Damaged(f"{name} has indexes within indexes")


# -- writing ---------------------------------------------------------------------------------------------


def encode(document: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """A document as bytes: the same ones each time for the same content."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def describe(descriptor: Descriptor) -> dict[str, Any]:
    """A descriptor as it stands in a document."""
    more: dict[str, Any] = {}
    if descriptor.platform:
        more["platform"] = dict(descriptor.platform)
    if descriptor.annotations:
        more["annotations"] = dict(descriptor.annotations)
    return {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size} | more


def manifest_of(config: Descriptor, layers: Sequence[Descriptor], media_type: str = MANIFEST) -> bytes:
    """A manifest, as bytes."""
    return encode(
        {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": describe(config),
            "layers": [describe(layer) for layer in layers],
        }
    )


def run_table(config: ImageConfig) -> dict[str, Any]:
    """The table ``config`` of a configuration, with what an image says nothing of as empty."""
    return {
        "Entrypoint": list(config.entrypoint),
        "Cmd": list(config.command),
        "Env": [f"{name}={value}" for name, value in config.environment.items()],
        "User": config.user,
        "WorkingDir": config.working_dir,
        "Volumes": {place: {} for place in config.volumes},
        "ExposedPorts": {port: {} for port in config.ports},
        "StopSignal": config.stop_signal,
        "Healthcheck": config.healthcheck and dict(config.healthcheck),
        "Labels": dict(config.labels),
    }


# -- platforms -------------------------------------------------------------------------------------------

_MACHINES = {
    "x86_64": ("amd64", ""), "aarch64": ("arm64", "v8"), "armv8l": ("arm", "v7"), "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"), "i686": ("386", ""), "i386": ("386", ""), "riscv64": ("riscv64", ""),
    "ppc64le": ("ppc64le", ""), "s390x": ("s390x", ""), "loongarch64": ("loong64", ""), "mips64": ("mips64le", ""),
}  # fmt: skip


@functools.cache
def host_platform() -> Platform:
    """Of this host."""
    machine = platform.machine()
    return Platform("linux", *_MACHINES.get(machine, (machine, "")))


def parse_platform(text: str) -> Platform:
    """``linux/arm/v7``, as a person writes it. Raises UsageError."""
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(_PARTS.fullmatch(part) for part in parts):
        raise UsageError(f"{text!r} is no platform", hint="write it like linux/amd64 or linux/arm/v7")
    return Platform(*parts)


def choose(index: Index, wanted: Platform, name: str = "the image") -> Descriptor:
    """The manifest, or index within the index, for a platform: of those that run on it, the one nearest to it.

    Raises NotFound, which says what there is.
    """
    fitting = [(_distance(each, wanted), place, each) for place, each in enumerate(index.manifests)]
    near = [(distance, place, each) for distance, place, each in fitting if distance is not None]
    if near:
        return min(near, key=lambda found: found[:2])[2]
    there = sorted({str(platform) for each in index.manifests if (platform := _platform_of(each))})
    hint = f"there is {', '.join(there[:20])}" if there else "its index names no platform"
    raise NotFound(f"{name} is not there for {wanted}", hint=hint)


def _platform_of(descriptor: Descriptor) -> Platform | None:
    """None for what is no image: buildx puts its attestations beside the images, for ``unknown/unknown``."""
    named = descriptor.platform or {}
    if "unknown" in (named.get("os"), named.get("architecture")) or not named.get("architecture"):
        return None
    return Platform(named.get("os", "linux"), named["architecture"], named.get("variant", ""))


def _distance(descriptor: Descriptor, wanted: Platform) -> int | None:
    """How far a manifest is from what is wanted; None where it does not run there."""
    if descriptor.media_type not in MANIFESTS | INDEXES:
        return None
    found = _platform_of(descriptor)
    if found is None:
        return None if descriptor.platform else 100  # an index within an index need not say
    if (found.os, found.architecture) != (wanted.os, wanted.architecture):
        return None
    order = _variants(wanted)
    return order.index(found.variant) if found.variant in order else None


def _variants(wanted: Platform) -> Sequence[str]:
    """Which variants run on a platform, the nearest first: an older one does, and mostly none is named."""
    if wanted.architecture == "arm":
        number = int(wanted.variant[1:]) if re.fullmatch(r"v[5-8]", wanted.variant) else 7
        return [wanted.variant, *(f"v{older}" for older in range(number, 4, -1)), ""]
    plain = {"arm64": "v8", "amd64": "v1"}.get(wanted.architecture, "")
    return [wanted.variant, "", plain] if wanted.variant in ("", plain) else [wanted.variant, plain, ""]


# -- the parts -------------------------------------------------------------------------------------------


def _kind_of(document: Document, media_type: str) -> str:
    """A document that could be read as either would be one image for us and another for others (CVE-2021-41190)."""
    where = "the manifest"
    said = Fields(document, where).text("mediaType")
    if document.get("schemaVersion") != 2:
        _wrong(where, "is of a version that is not read any more" if "schemaVersion" in document else "is none")
    if "manifests" in document and ("layers" in document or "config" in document):
        _wrong(where, "could be an index as well")
    looks = INDEX if "manifests" in document else MANIFEST
    kind = said or media_type or looks
    if kind not in INDEXES | MANIFESTS:
        _wrong(where, f"is of a kind that is not read: {kind[:100]!r}")
    if (kind in INDEXES) != (looks == INDEX) or (said and media_type in INDEXES | MANIFESTS and said != media_type):
        _wrong(where, "is not of the kind that it is said to be")
    return kind


def _index(document: Document) -> Index:
    manifests = document.get("manifests")
    return Index(tuple(_descriptors(manifests, "the index", MAX_MANIFESTS)))


def _manifest(document: Document, data: bytes) -> Manifest:
    where = "the manifest"
    config = parse_descriptor(document.get("config"), "the manifest's configuration")
    layers = tuple(_descriptors(document.get("layers"), where, MAX_LAYERS))
    if config.media_type not in CONFIGS:
        _wrong(where, f"is not one of a container image: its configuration is {config.media_type[:100]!r}")
    if config.size > MAX_DOCUMENT:
        _wrong(where, f"has a configuration of {config.size} bytes; {MAX_DOCUMENT} are read at most")
    for layer in layers:
        if not _LAYER_TYPE.fullmatch(layer.media_type):
            _wrong(where, f"has a layer of a kind that is not read: {layer.media_type[:100]!r}")
        if layer.size > MAX_LAYER:
            _wrong(where, f"has a layer of {layer.size} bytes; {MAX_LAYER} are read at most")
    _check_itself(where, data, config, layers)
    return Manifest(config, layers, Fields(document, where).texts_by_name("annotations"))


def _check_itself(where: str, data: bytes, config: Descriptor, layers: Sequence[Descriptor]) -> None:
    """A manifest is not its own layer, and neither is its configuration."""
    own = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if own in {config.digest, *(layer.digest for layer in layers)}:
        _wrong(where, "names itself")
    if config.digest in {layer.digest for layer in layers}:
        _wrong(where, "has a layer that is its configuration")


def _descriptors(found: Any, where: str, most: int) -> Iterator[Descriptor]:
    if not isinstance(found, list):
        _wrong(where, "has no list of what it consists of")
    items = cast("list[Any]", found)
    if len(items) > most:
        _wrong(where, f"names {len(items)} parts; {most} are read at most")
    for number, item in enumerate(items, 1):
        yield parse_descriptor(item, f"part {number} of {where}")


def _run_config(fields: Fields) -> ImageConfig:
    return ImageConfig(
        entrypoint=tuple(fields.texts("Entrypoint")),
        command=tuple(fields.texts("Cmd")),
        environment=dict(_variable(each) for each in fields.texts("Env")),
        user=fields.text("User"),
        working_dir=fields.text("WorkingDir"),
        volumes=tuple(sorted({_place(each) for each in fields.names("Volumes")})),
        ports=tuple(fields.names("ExposedPorts")),
        stop_signal=fields.text("StopSignal"),
        healthcheck=fields.value("Healthcheck", dict, {}) or None,
        labels=fields.texts_by_name("Labels"),
    )


def _variable(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name:
        _wrong("the configuration", f"has a variable without a name: {text[:80]!r}")
    return name, value


def _place(path: str) -> str:
    """Where a volume goes: below the root, whatever leads upwards."""
    place = posixpath.normpath(f"/{path}").replace("//", "/")
    if place == "/":
        _wrong("the configuration", f"has a volume in place of everything: {path[:80]!r}")
    return place


def _step(fields: Fields) -> Step:
    words = {name: fields.text(name) for name in ("created", "created_by", "author", "comment")}
    return Step(**words, empty=fields.value("empty_layer", bool, False))


# -- JSON ------------------------------------------------------------------------------------------------


def read_json(data: bytes, where: str) -> Any:
    """Any JSON whose texts can be written, whose nesting is bounded, and whose keys are there once. Raises Damaged;
    ``where`` says what it is.
    """
    if len(data) > MAX_DOCUMENT:
        _wrong(where, f"is longer than {MAX_DOCUMENT} bytes")
    try:
        document = json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        words = "is nested too deep" if isinstance(error, RecursionError) else f"is no JSON that can be read: {error}"
        raise Damaged(f"{where} {words[:200]}") from None
    _check_values(document, where)
    return document


def _loaded(data: bytes, where: str) -> dict[str, Any]:
    document = read_json(data, where)
    if not isinstance(document, dict):
        _wrong(where, "is no JSON object")
    return cast("dict[str, Any]", document)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key is there twice")
    return table


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _check_values(document: Any, where: str) -> None:
    level = [document]
    for _ in range(_MAX_DEPTH):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner += cast("dict[str, Any]", value)
                inner += cast("dict[str, Any]", value).values()
            elif isinstance(value, list):
                inner += cast("list[Any]", value)
            elif isinstance(value, str):
                _check_text(value, where)
        if not inner:
            return
        level = inner
    _wrong(where, "is nested too deep")


def _check_text(text: str, where: str) -> None:
    """What no program could be given as an argument, and no file as a name."""
    if "\0" in text or len(text) > _MAX_TEXT:
        _wrong(where, "has a text with a NUL in it" if "\0" in text else "has a text that is too long")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        _wrong(where, "has a text that is no Unicode")


class Fields:
    """A JSON object whose fields are of the types that they should be. As in Go, null is the same as nothing.

    Methods raise Damaged; ``where`` says in it what the object is.
    """

    def __init__(self, document: Any, where: str) -> None:
        if not isinstance(document, dict):
            _wrong(where, "is missing" if document is None else "is no JSON object")
        self._document, self._where = cast("dict[str, Any]", document), where

    def value(self, name: str, kind: type[_Kind], default: _Kind) -> _Kind:
        found = self._document.get(name)
        if found is None:
            return default
        if not isinstance(found, kind):
            _wrong(self._where, f"has a {name} that is of the wrong type")
        return found

    def text(self, name: str) -> str:
        return self.value(name, str, "")

    def texts(self, name: str) -> list[str]:
        items = self._list(name)
        if not all(isinstance(item, str) for item in items):
            _wrong(self._where, f"has in {name} what is no text")
        return items

    def digests(self, name: str) -> list[str]:
        items = self.texts(name)
        if not all(is_digest(item) for item in items):
            _wrong(self._where, f"has in {name} what is no digest")
        return items

    def names(self, name: str) -> list[str]:
        """The keys of a table whose values mean nothing."""
        return [*self.value(name, dict, {})]

    def texts_by_name(self, name: str, also: Sequence[str] = ()) -> dict[str, str]:
        """A table of texts; keys of ``also`` may be there with other values, and are left out."""
        table = {key: value for key, value in self.value(name, dict, {}).items() if key not in also}
        if not all(isinstance(value, str) for value in table.values()):
            _wrong(self._where, f"has in {name} what is no text")
        return table

    def table(self, name: str) -> Fields:
        return Fields(self.value(name, dict, {}), f"{name} of {self._where}")

    def tables(self, name: str) -> list[Fields]:
        return [Fields(item, f"{name} of {self._where}") for item in self._list(name)]

    def _list(self, name: str) -> list[Any]:
        items = self.value(name, list, [])
        if len(items) > _MAX_LIST:
            _wrong(self._where, f"has {len(items)} items in {name}; {_MAX_LIST} are read at most")
        return items


def _wrong(where: str, words: str) -> NoReturn:
    raise Damaged(f"{where} {words}")
