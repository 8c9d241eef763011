"""The two short notations, read: ``data:/srv:ro`` for a volume, ``/tmp:size=64M,mode=1777`` for memory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pycore.spec import NAME_PATTERN, is_path, parse_size

_NO_ID = (1 << 32) - 1


@dataclass(frozen=True)
class VolumeMount:
    """A volume or a path of the host, and the place where the container finds it."""

    source: str
    target: str
    read_only: bool = False
    subpath: str = ""
    """What of the source it is: a directory below it."""
    copied: bool = True
    """Whether a new volume begins with what the image has in its place."""
    uid: int = -1
    gid: int = -1
    """Whose the files of the source's owner are inside; -1 leaves them as they are."""

    @property
    def named(self) -> bool:
        """Whether the source is a volume's name rather than a path."""
        return not is_path(self.source)


@dataclass(frozen=True)
class TmpfsMount:
    """Memory as a file system. ``size`` is in bytes, 0 for the kernel's own limit."""

    target: str
    size: int = 0
    mode: int = 0o1777
    executable: bool = False


def parse_volume(text: str) -> VolumeMount:
    """Read ``SOURCE:TARGET`` or ``SOURCE:TARGET:ro,subpath=a/b,uid=1000``. Raises ValueError."""
    source, *rest = text.split(":")
    if not source or len(rest) not in (1, 2):
        raise ValueError('must be SOURCE:TARGET or SOURCE:TARGET:ro, such as "data:/var/lib/data"')
    if not is_path(source) and not re.fullmatch(NAME_PATTERN, source):
        raise ValueError(f'"{source}" is neither a volume\'s name nor a path, which begins with ./, ../ or /')
    options = dict(map(_volume_option, rest[1].split(","))) if len(rest) == 2 else {}
    return VolumeMount(source, parse_target(rest[0]), **options)


def _volume_option(option: str) -> tuple[str, Any]:
    key, equals, value = option.partition("=")
    if option in ("ro", "rw"):
        return "read_only", option == "ro"
    if option == "nocopy":
        return "copied", False
    if equals and key in ("uid", "gid"):
        return key, parse_id(value)
    if equals and key == "subpath":
        return key, parse_subpath(value)
    raise ValueError(f'unknown option "{option}"; there are ro, rw, nocopy, subpath=, uid= and gid=')


def parse_id(text: str) -> int:
    """A user's or group's number. Raises ValueError."""
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) >= _NO_ID:
        raise ValueError(f'"{text}" is no user or group id')
    return int(text)


def parse_subpath(text: str) -> str:
    """A path below a volume, without doubled slashes or dots. Raises ValueError."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if text.startswith("/") or ".." in parts or not parts:
        raise ValueError(f'subpath "{text}" must be a path below the volume, without ..')
    return "/".join(parts)


def parse_tmpfs(text: str) -> TmpfsMount:
    """Read ``TARGET`` or ``TARGET:size=64M,mode=1777,exec``. Raises ValueError."""
    target, colon, options = text.partition(":")
    size, mode, executable = 0, 0o1777, False
    for option in options.split(",") if colon else ():
        key, _, value = option.partition("=")
        if key == "size":
            size = parse_size(value)
        elif key == "mode":
            mode = _mode(value)
        elif option in ("exec", "noexec"):
            executable = option == "exec"
        else:
            raise ValueError(f'unknown option "{option}"; there are size=, mode=, exec and noexec')
    return TmpfsMount(parse_target(target), size, mode, executable)


def parse_target(text: str) -> str:
    """A place inside, without doubled slashes or dots. Raises ValueError."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not text.startswith("/") or ".." in parts:
        raise ValueError(f'"{text}" must be an absolute path in the container, without ..')
    if not parts or parts[0] == "proc":
        raise ValueError(f'"{text}" cannot be mounted on: / is the image, and /proc the kernel')
    return "/" + "/".join(parts)


def _mode(text: str) -> int:
    if not re.fullmatch("[0-7]{3,4}", text):
        raise ValueError(f'mode must be three or four octal digits, not "{text}"')
    return int(text, 8)
