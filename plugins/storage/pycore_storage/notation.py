"""The two short notations, read: ``data:/srv:ro`` for a volume, ``/tmp:size=64M,mode=1777`` for memory."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pycore.spec import NAME_PATTERN, parse_size

from pycore_storage.sources import is_path


@dataclass(frozen=True)
class VolumeMount:
    """A volume or a path of the host, and the place where the container finds it."""

    source: str
    target: str
    read_only: bool = False

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
    """Read ``SOURCE:TARGET`` or ``SOURCE:TARGET:ro``. Raises ValueError."""
    source, *rest = text.split(":")
    if not source or len(rest) not in (1, 2):
        raise ValueError('must be SOURCE:TARGET or SOURCE:TARGET:ro, such as "data:/var/lib/data"')
    if not is_path(source) and not re.fullmatch(NAME_PATTERN, source):
        raise ValueError(f'"{source}" is neither a volume\'s name nor a path, which begins with ./, ../ or /')
    option = rest[1] if len(rest) == 2 else "rw"
    if option not in ("ro", "rw"):
        raise ValueError(f'the last part must be ro or rw, not "{option}"')
    return VolumeMount(source, parse_target(rest[0]), option == "ro")


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
