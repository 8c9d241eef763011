"""A directory of an image, copied from its layers: what a volume begins with."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Generator, Sequence

from pycore.linux import copytree, libc, overlay, rmtree

_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV)


def copy(layers: Sequence[str], path: str, destination: str) -> bool:
    """Copy the directory at ``path`` in an image, links resolved inside, to a place where there is at most an empty
    directory. Whole or not at all; whether there is such a directory in the image. Raises OSError.
    """
    head, _, name = destination.rpartition("/")
    temporary = f"{head}/.{name}.copied"
    with contextlib.suppress(FileNotFoundError):
        rmtree.remove(temporary)
    with _shown(layers) as root:
        try:
            directory = libc.openat2(root, path.lstrip("/") or ".", os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if error.errno in _NOTHING:
                return False
            raise
        try:
            copytree.copy(f"/proc/self/fd/{directory}", temporary)
        finally:
            os.close(directory)
    try:
        os.rename(temporary, destination)
    except BaseException:
        rmtree.remove(temporary)
        raise
    return True


@contextlib.contextmanager
def _shown(layers: Sequence[str]) -> Generator[int, None, None]:
    """The root of what layers make together, from a mount that is in no place; of a single one, its directory."""
    with contextlib.ExitStack() as opened:
        fds: list[int] = []
        for layer in layers:
            fds.append(os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            opened.callback(os.close, fds[-1])
        if len(layers) > 1:
            fds = [overlay.mount(fds, -1)]
            opened.callback(os.close, fds[0])
        yield fds[0]
