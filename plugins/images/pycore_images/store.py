"""The images that are kept here: one OCI image layout, and the layers unpacked beside it.

    oci-layout, index.json   references: descriptors under their whole names (image-spec, image-layout.md)
    blobs/sha256/HEX         manifests, indexes, configurations, and layers as they came
    layers/HEX/tree          a layer unpacked, by its diff id, in overlayfs's words
    layers/HEX/recipe        how to make the archive of it again, where that came uncompressed and is not kept itself
    layers/HEX/usage         what that takes on the disk
    ingest/                  what is coming in, and what is going
    holds/USER               what a container, or whoever else, uses: digests of manifests and indexes, a line each
    lock                     taken by many who add or look, or by one who removes
    names.lock               taken to change index.json
    sweep.lock               taken to remove what was put aside

Whatever is in its place is whole, and was on the disk before it came there. What a crash leaves behind lies in
``ingest`` alone, and is swept from there by :mod:`pycore_images.collecting`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import struct
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from pycore.errors import NotFound
from pycore.linux import rmtree

from pycore_images import documents
from pycore_images.content import (
    INDEX,
    INDEXES,
    MANIFESTS,
    MAX_DOCUMENT,
    Damaged,
    Descriptor,
    Stream,
    described,
    is_digest,
)

REF_NAME = "org.opencontainers.image.ref.name"
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_MAX_INDEX = 64 << 20
"""Bytes of index.json, which is ours: some hundred thousand names."""
_GET_FLAGS, _SET_FLAGS, _TOP_DIRECTORY = 0x80086601, 0x40086602, 0x00020000
"""FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_TOPDIR_FL (linux/fs.h), where a long has 8 bytes."""
_CHUNK = 1 << 20
_LOOKED = 0.3
"""Seconds between two looks at whether who waits for another still wants to."""
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,200}")
_PASSING = ".passing-"
"""What holds end with that are void when whoever made them is gone."""


class Store:
    """Images by name and by digest. Reading an empty one writes nothing: its directories are made when they are needed.

    Safe for many threads and processes at once. Methods raise OSError; NotFound for content that is not there, and
    Damaged for content that is not as it should be.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ingest = root / "ingest"
        self._layers = str(root / "layers")

    # -- content ---------------------------------------------------------------------------------------------

    def blob_path(self, digest: str) -> Path:
        """Where content is, or would be."""
        return self.root / "blobs" / "sha256" / _hex(digest)

    def has_blob(self, digest: str) -> bool:
        """Whether content is here, whole, or can be made of what is here."""
        return self.blob_path(digest).exists() or self.recipe(digest).exists()

    def blob(self, digest: str) -> bytes:
        """A document, verified: at most MAX_DOCUMENT bytes."""
        with contextlib.closing(_File(self.open_blob(digest))) as file:
            data = file.read(MAX_DOCUMENT + 1)
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            raise Damaged(f"{digest} is not what its digest says", hint="`pycore image rm` it, and pull it anew")
        return data

    def open_blob(self, digest: str) -> int:
        """Content as a descriptor to read from, the caller's to close; it stays readable when the content goes.

        Raises NotFound; and Damaged where it has to be made of an unpacked layer that is not what it was.
        """
        try:
            return os.open(self.blob_path(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            if not self.recipe(digest).exists():
                raise NotFound(f"{digest} is not in the store") from None
        return self._remake(digest)

    def add_document(self, data: bytes, media_type: str) -> Descriptor:
        """Keep a manifest, index or configuration. Whoever holds what it leads to can then look what of that is here:
        nobody who collects began before it was.
        """
        if len(data) > MAX_DOCUMENT:
            raise Damaged(f"a document of {len(data)} bytes is longer than {MAX_DOCUMENT}")
        descriptor = described(data, media_type)
        with self.guard():
            if not self.has_blob(descriptor.digest):
                _replace(self.blob_path(descriptor.digest), data, self.ingest, 0o600)
        return descriptor

    def add_blob(self, stream: Stream, media_type: str) -> Descriptor:
        """Keep content of any length, as it comes."""
        self.prepare()
        part = self.ingest / f"{secrets.token_hex(16)}.part"
        digest, size = hashlib.sha256(), 0
        try:
            with open(part, "xb", opener=_private) as file:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
                    file.write(chunk)
                file.flush()
                os.fdatasync(file.fileno())
            descriptor = Descriptor(media_type, f"sha256:{digest.hexdigest()}", size)
            self.take_blob(part, descriptor.digest)
        finally:
            part.unlink(missing_ok=True)
        return descriptor

    def take_blob(self, part: Path, digest: str) -> None:
        """Put a file of ``ingest`` in its place as content: one that is known to be that, and on the disk."""
        place = self.blob_path(digest)
        os.rename(part, place)
        _sync_directory(place.parent)

    # -- layers ----------------------------------------------------------------------------------------------

    def recipe(self, diff_id: str) -> Path:
        """Where it says how the archive of a layer is made of its tree, or would; see :mod:`pycore_images.recipe`."""
        return self.root / "layers" / _hex(diff_id) / "recipe"

    def _remake(self, diff_id: str) -> int:
        """The archive of a layer in a file without a name, at its beginning."""
        from pycore_images.archives.aside import aside
        from pycore_images.recipe import remade

        digest = hashlib.sha256()
        try:
            with aside(self) as file:
                for piece in remade(self.recipe(diff_id), self.layer_tree(diff_id)):
                    digest.update(piece)
                    file.write(piece)
                if f"sha256:{digest.hexdigest()}" != diff_id:
                    raise Damaged("a file in it has not the content that it had")
                os.lseek(file.fd, 0, os.SEEK_SET)
                return os.dup(file.fd)
        except Damaged as error:
            words = f"layer {diff_id} has been changed in the store since it was unpacked: {error.message}"
            raise Damaged(words, hint="`pycore image rm` what has it, and load it anew") from error

    def layer_tree(self, diff_id: str) -> Path:
        """Where a layer is unpacked, or would be."""
        return Path(self._layer(diff_id))

    def layer_paths(self, image: documents.Image) -> tuple[str, ...]:
        """Where the layers of an image are unpacked, or would be, the uppermost first."""
        return tuple(map(self._layer, reversed(image.config.diff_ids)))

    def has_layer(self, diff_id: str) -> bool:
        """Whether a layer is here, unpacked."""
        return os.path.exists(self._layer(diff_id))

    def layer_trees(self, image: documents.Image) -> tuple[Path, ...]:
        """The layers of an image, the uppermost first. Raises NotFound where one is missing."""
        self.check_layers(image)
        return tuple(map(Path, self.layer_paths(image)))

    def check_layers(self, image: documents.Image) -> None:
        """Raises NotFound where a layer of an image is missing."""
        for diff_id in image.config.diff_ids:
            if not self.has_layer(diff_id):
                raise NotFound(f"layer {diff_id} of {image.digest} is not in the store")

    def _layer(self, diff_id: str) -> str:
        """A plain text: of an image with many layers each is asked for several times at every start."""
        return f"{self._layers}/{_hex(diff_id)}/tree"

    def take_layer(self, directory: Path, diff_id: str) -> None:
        """Put a directory of ``ingest`` that has a whole ``tree``, on the disk, in its place; another may have been
        there first.
        """
        place = self.root / "layers" / _hex(diff_id)
        try:
            os.rename(directory, place)
        except OSError:
            if not self.has_layer(diff_id):
                raise
            rmtree.remove(str(directory))
        _sync_directory(place.parent)

    # -- images ----------------------------------------------------------------------------------------------

    def image(self, root: Descriptor, platform: documents.Platform | None = None) -> documents.Image:
        """The image that a manifest is, or that an index has for a platform: the host's, where none is named.

        Raises NotFound where documents of it are missing; its layers are not looked at.
        """
        wanted = platform or documents.host_platform()
        return documents.image_of(root, lambda each: self.blob(each.digest), wanted, root.digest)

    def any_image(self, root: Descriptor) -> documents.Image:
        """The image for this host, else for whatever platform is here. Raises NotFound, Damaged."""
        try:
            return self.image(root)
        except NotFound:
            for descriptor, manifest in self.documents_of(root):
                if self.has_blob(manifest.config.digest):
                    config = documents.parse_config(self.blob(manifest.config.digest), len(manifest.layers))
                    return documents.Image(root, descriptor, manifest, config)
            raise

    def by_digest(self, digest: str) -> Descriptor | None:
        """The manifest or index of a digest, under whatever name it is here; None where there is none."""
        if not self.has_blob(digest):
            return None
        data = self.blob(digest)
        return Descriptor(documents.media_type_of(data), digest, len(data))

    def walk(self, root: Descriptor) -> Iterator[tuple[Descriptor, documents.Index | documents.Manifest | None]]:
        """All that a manifest or an index leads to, once, what is led to before what leads there; None for what is not
        here, or has too many indexes above it. Raises Damaged.
        """
        return self._walk(root, set(), documents.MAX_NESTED)

    def _walk(
        self, descriptor: Descriptor, seen: set[str], depth: int
    ) -> Iterator[tuple[Descriptor, documents.Index | documents.Manifest | None]]:
        if descriptor.digest in seen:
            return
        seen.add(descriptor.digest)
        found = None
        if depth and descriptor.media_type in MANIFESTS | INDEXES and self.has_blob(descriptor.digest):
            found = documents.parse_root(self.blob(descriptor.digest), descriptor.media_type)
        for each in found.manifests if isinstance(found, documents.Index) else ():
            yield from self._walk(each, seen, depth - 1)
        yield descriptor, found

    def documents_of(self, root: Descriptor) -> Iterator[tuple[Descriptor, documents.Manifest]]:
        """Every manifest that is here of what a manifest or an index leads to."""
        for descriptor, found in self.walk(root):
            if isinstance(found, documents.Manifest):
                yield descriptor, found

    # -- names -----------------------------------------------------------------------------------------------

    def references(self) -> Mapping[str, Descriptor]:
        """Every name in full, and the manifest or index that it leads to."""
        try:
            data = _read(self.root / "index.json", _MAX_INDEX)
        except FileNotFoundError:
            return {}
        try:
            entries = cast("list[Any]", json.loads(data)["manifests"])
            found = [documents.parse_descriptor(entry, "index.json") for entry in entries]
        except (ValueError, KeyError, TypeError) as error:
            raise Damaged(f"{self.root}/index.json is damaged: {error}") from error
        return {name: each for each in found if (name := each.annotations.get(REF_NAME))}

    def resolve(self, reference: str) -> Descriptor | None:
        """What a name in full leads to."""
        return self.references().get(reference)

    def tag(self, reference: str, descriptor: Descriptor) -> None:
        """Let a name lead to a manifest or index that is here, and no more to where it led before. Raises NotFound."""
        with self.guard():
            if not self.has_blob(descriptor.digest):
                raise NotFound(f"{descriptor.digest} is not in the store")
            with self._names() as names:
                names[reference] = descriptor

    def untag(self, reference: str) -> bool:
        """Forget a name. Whether there was one; what it led to, stays until it is collected."""
        return bool(self.untag_all([reference]))

    def untag_all(self, references: Iterable[str]) -> list[str]:
        """Forget names; those that there were."""
        wanted = set(references)
        if wanted.isdisjoint(self.references()):
            return []
        with self._names() as names:
            return [name for name in wanted if names.pop(name, None)]

    @contextlib.contextmanager
    def _names(self) -> Generator[dict[str, Descriptor], None, None]:
        """The names, written back when they are changed."""
        self.prepare()
        with _locked(self.root / "names.lock", fcntl.LOCK_EX):
            before = self.references()
            names = dict(before)
            yield names
            if names != before:
                entries = [
                    documents.describe(replace(each, annotations={**each.annotations, REF_NAME: name}))
                    for name, each in sorted(names.items())
                ]
                document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
                _replace(self.root / "index.json", documents.encode(document), self.ingest, 0o600)

    # -- who uses what ---------------------------------------------------------------------------------------

    def hold(self, user: str, digests: Iterable[str]) -> None:
        """Keep what these manifests or indexes lead to for as long as this user is there, who held something else
        before. Looking whether something is here comes after holding it, or it may be gone again.
        """
        self.prepare()
        with self.guard():
            _replace(self.root / "holds" / _user(user), _lines(digests), self.ingest, 0o600)

    def release(self, user: str) -> None:
        """The user is no more."""
        (self.root / "holds" / _user(user)).unlink(missing_ok=True)

    def holds(self) -> Mapping[str, set[str]]:
        """Who uses what; whoever only passes by, too, but not those that died over it."""
        found: dict[str, set[str]] = {}
        with contextlib.suppress(FileNotFoundError):
            for path in sorted((self.root / "holds").iterdir()):
                with contextlib.suppress(FileNotFoundError):  # released meanwhile
                    if _PASSING not in path.name or is_locked(path):
                        found[path.name] = set(_read(path, _MAX_INDEX).decode("ascii", "replace").split())
        return found

    def forget_the_dead(self) -> None:
        """Remove the holds of who died while passing by. For whoever has the store alone."""
        for path in (self.root / "holds").glob(f"*{_PASSING}*"):
            with contextlib.suppress(FileNotFoundError):
                if not is_locked(path):
                    path.unlink()

    @contextlib.contextmanager
    def passing(self, digests: Iterable[str]) -> Generator[None, None, None]:
        """Hold something while it comes in, or goes out; if this process dies meanwhile, it holds nothing."""
        self.prepare()
        path = self.root / "holds" / f"{os.getpid()}{_PASSING}{secrets.token_hex(8)}"
        with self.guard():
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                os.write(fd, _lines(digests))
            except BaseException:
                os.close(fd)
                raise
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(fd)

    # -- the whole -------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def guard(self, exclusive: bool = False) -> Generator[None, None, None]:
        """With others, nothing is removed meanwhile; alone, nothing is added or looked for either.

        For moments: whoever takes long holds what it needs (:meth:`hold`, :meth:`passing`). Waits for those that have
        it; whoever has it alone must not ask again.
        """
        self.prepare()
        with _locked(self.root / "lock", fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH):
            yield

    @contextlib.contextmanager
    def sweeping(self) -> Generator[None, None, None]:
        """Alone with what was put aside: two who remove the same tree stumble over each other. Waits for another."""
        with _locked(self.root / "sweep.lock", fcntl.LOCK_EX):
            yield

    def prepare(self) -> None:
        """Make the directories. Closed to other users: layers have set-user-id programs and images' secrets."""
        if (self.root / "oci-layout").exists():
            return
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(self.root, 0o700)
        for name in ("blobs/sha256", "layers", "ingest", "holds"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        _spread(self.ingest)
        _replace(self.root / "oci-layout", _LAYOUT, self.ingest, 0o644)

    @contextlib.contextmanager
    def ingesting(self, name: str, check: Callable[[], None] = lambda: None) -> Generator[None, None, None]:
        """Alone with what comes in under a name; waits for whoever else brings the same, here or in another process.

        ``check`` is called now and then meanwhile, and may raise.
        """
        self.prepare()
        path = self.ingest / f"{name}.lock"
        fd = _lock_at_once(path)
        if fd is None:
            fd = _Waiting(path).wait(check)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(fd)


# -- files -----------------------------------------------------------------------------------------------


class _File:
    """A descriptor that is read from its beginning."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size and (part := os.read(self._fd, size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        os.close(self._fd)


def _hex(digest: str) -> str:
    """A digest as the name of a file. Raises Damaged: names of files are made of nothing else."""
    if not is_digest(digest):
        raise Damaged(f"{digest[:80]!r} is no digest")
    return digest.removeprefix("sha256:")


def _user(name: str) -> str:
    if not _USER.fullmatch(name) or _PASSING in name:
        raise ValueError(f"{name!r} is no name for who holds images")
    return name


def _lines(digests: Iterable[str]) -> bytes:
    return "".join(f"sha256:{_hex(digest)}\n" for digest in sorted(set(digests))).encode()


def _read(path: Path, most: int) -> bytes:
    with contextlib.closing(_File(os.open(path, os.O_RDONLY | os.O_CLOEXEC))) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise Damaged(f"{path} is longer than {most} bytes")
    return data


def _spread(directory: Path) -> None:
    """Ask ext4 to put the directories made in this one far from each other (chattr +T).

    Beside files that were removed a moment ago it makes new ones very slowly: it takes no inode anew for minutes, and
    looks at each of them every time. An image that is fetched after another has been removed would cost ten times more.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = struct.unpack("i", fcntl.ioctl(fd, _GET_FLAGS, bytes(4)))[0]
        fcntl.ioctl(fd, _SET_FLAGS, struct.pack("i", flags | _TOP_DIRECTORY))
    except OSError:
        pass  # another file system
    finally:
        os.close(fd)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _replace(place: Path, data: bytes, aside: Path, mode: int) -> None:
    """A file with this content, whole or not at all, also if the power goes.

    Until it is on the disk it has no name, where the file system can do that: who is killed meanwhile leaves nothing.
    """
    part = aside / f"{secrets.token_hex(16)}.part"
    fd, named = _nameless(aside), False
    if fd < 0:
        fd, named = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), True
    try:
        with open(fd, "wb") as file:
            os.fchmod(fd, mode)
            file.write(data)
            file.flush()
            os.fsync(fd)
            if not named:
                # Python follows the link only where a directory is given, whatever follow_symlinks says.
                os.link(f"/proc/self/fd/{fd}", part, src_dir_fd=fd, follow_symlinks=True)
        os.rename(part, place)
    finally:
        part.unlink(missing_ok=True)
    _sync_directory(place.parent)


def _nameless(directory: Path) -> int:
    """A file without a name (O_TMPFILE of open(2)); -1 where the file system has none."""
    try:
        return os.open(directory, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
            raise
        return -1


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _locked(path: Path, how: int) -> Generator[None, None, None]:
    """A lock by a file."""
    fd = _lock(path, how)
    try:
        yield
    finally:
        os.close(fd)


def _lock_at_once(path: Path) -> int | None:
    """The lock, unless somebody else has it."""
    try:
        return _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None


class _Waiting:
    """Waits for a lock in a thread of its own: nothing else ends flock(2) before its time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = threading.Condition()
        self._given_up = False
        self._found: int | BaseException | None = None

    def wait(self, check: Callable[[], None]) -> int:
        """The lock's descriptor. Raises what ``check`` raises, or OSError."""
        threading.Thread(target=self._wait, name="pycore-lock", daemon=True).start()
        with self._changed:
            try:
                while self._found is None:
                    check()
                    self._changed.wait(_LOOKED)  # whoever breaks it off has no way to wake us
            except BaseException:
                self._given_up = True
                raise
        if isinstance(self._found, BaseException):
            raise self._found
        return self._found

    def _wait(self) -> None:
        found: int | BaseException
        try:
            found = _lock(self._path, fcntl.LOCK_EX)
        except OSError as error:
            found = error
        with self._changed:
            self._found = found
            self._changed.notify()
            if self._given_up and isinstance(found, int):
                self._path.unlink(missing_ok=True)
                os.close(found)


def _lock(path: Path, how: int) -> int:
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, how)
            if _is_there(path, fd):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # whoever had it before has removed it; there may be a new one


def _is_there(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def is_locked(path: Path) -> bool:
    """Whether somebody who lives has a file locked; nobody has one that is not there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
