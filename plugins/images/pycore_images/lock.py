"""``app.lock``: the very images that an app was applied with, so that the next apply uses the same.

It lies beside the spec and is meant to be kept with it:

    [image."docker.io/library/nginx:1.27"]
    digest = "sha256:..."
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pycore.errors import PycoreError
from pycore.spec import App

from pycore_images.content import is_digest

_HEAD = """\
# The images that {file} was applied with: the next apply uses the same. To be kept with it, not to be edited.
# pycore pull --update {file} moves them on, and says what differs.
"""
_MAX_FILE = 4 << 20


def path_of(app: App) -> Path | None:
    """Where the lock of an app is; None for one that comes from no file, like that of ``pycore run``."""
    spec = app.directory / Path(app.file).name
    return spec.with_suffix(".lock") if app.file and spec.suffix == ".toml" and spec.is_file() else None


def read(app: App) -> Mapping[str, str]:
    """Names of images in full, and the digest that each is held at. Raises PycoreError for a file that is none."""
    path = path_of(app)
    if path is None:
        return {}
    import tomli

    try:
        data = _content(path)
        return _digests(tomli.loads(data.decode())) if data is not None else {}
    except (ValueError, RecursionError) as error:
        raise PycoreError(f"{path}: {error}", hint="remove it: the next apply writes it anew") from error
    except OSError as error:
        raise PycoreError(f"{path}: {error.strerror}") from error


def _content(path: Path) -> bytes | None:
    """None where there is no such file. The directory may be another user's: a pipe in it is not waited for."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_NOCTTY)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError("is no regular file")
            data = file.read(_MAX_FILE + 1)
    except FileNotFoundError:
        return None
    if len(data) > _MAX_FILE:
        raise ValueError(f"larger than {_MAX_FILE >> 20} MiB")
    return data


def write(app: App, digests: Mapping[str, str]) -> None:
    """Write the lock, where it differs; it belongs to whom the spec belongs to. Raises PycoreError."""
    path = path_of(app)
    if path is None or digests == read(app):
        return
    tables = [f'\n[image."{name}"]\ndigest = "{digest}"\n' for name, digest in sorted(digests.items())]
    text = _HEAD.format(file=Path(app.file).name) + "".join(tables)
    try:
        _put(path, text, os.stat(app.directory / Path(app.file).name))
    except OSError as error:
        hint = "until it is, the next apply may find other images under the same names"
        words = f"{app.name} was applied, but {path} could not be written: {error.strerror}"
        raise PycoreError(words, hint=hint) from error


def _digests(document: Mapping[str, Any]) -> dict[str, str]:
    images: Any = document.get("image", {})
    if not isinstance(images, dict) or document.keys() - {"image"}:
        raise ValueError('it has nothing but tables [image."NAME"]')
    found: dict[str, str] = {}
    for name, table in cast("dict[str, Any]", images).items():
        digest: Any = cast("dict[str, Any]", table).get("digest") if isinstance(table, dict) else None
        if not isinstance(digest, str) or not is_digest(digest):
            raise ValueError(f'[image."{name}"] has no digest, or one that is none')
        found[name] = digest
    return found


def _put(path: Path, text: str, like: os.stat_result) -> None:
    """The directory may be another user's: nothing there is followed, nothing of it is taken for ours."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    name = f".{path.name}.{secrets.token_hex(8)}"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o644, dir_fd=directory)
        try:
            with open(fd, "w", encoding="utf-8") as file:
                os.fchown(file.fileno(), like.st_uid, like.st_gid)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.rename(name, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            os.unlink(name, dir_fd=directory)
            raise
    finally:
        os.close(directory)
