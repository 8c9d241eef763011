"""Unpacking a tar file that nobody vouches for into a directory of its own.

Every name is resolved by the kernel below the new directory (openat2(2), RESOLVE_IN_ROOT), so no link, whatever it
says, leads out of it. Comparing path strings instead has been got around more than once (CVE-2025-4517).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
from collections.abc import Generator
from typing import IO

from pycore.errors import PycoreError
from pycore.linux import libc, overlay, rmtree, tarstream
from pycore.linux.tarstream import Content, Entry, Kind

MAX_DIRECTORIES = 500_000
"""Whose times are remembered until all is in them."""
MAX_PATHS = 64 << 20
"""Characters of their paths together."""
WHITEOUT = ".wh."
"""What a layer's name begins with that stands for the absence of a file (image-spec, layer.md)."""
OPAQUE = f"{WHITEOUT}{WHITEOUT}.opq"
"""The name in a directory of which a layer takes away all that was in it."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT_OPEN = 32
"""Directories in which something was made last."""
_LEAST_HOLE = 4096


def unpack_stream(file: IO[bytes], name: str, destination: str) -> None:
    """Unpack an archive to ``destination``, which must not exist and appears only when it is whole and on the disk.

    Owners, modes, times, ``user.*`` attributes and file capabilities are kept; setuid bits too, so
    the directory above must be closed to other users. Device nodes are left out: what is unpacked is mounted nodev.
    The archive is called ``name`` where something is wrong with it. Raises OSError, or PycoreError for an archive
    that is damaged or beyond measure.
    """
    temporary = f"{destination}.new"
    with contextlib.suppress(FileNotFoundError):
        rmtree.remove(temporary)
    os.mkdir(temporary)
    os.chmod(temporary, 0o755)
    try:
        root = os.open(temporary, _DIRECTORY)
        try:
            with _in_words(name), Tree(root) as tree:
                for content, entry in tarstream.members(file):
                    tree.add(content, entry)
                tree.finish()
            libc.syncfs(root)
        finally:
            os.close(root)
        os.rename(temporary, destination)
    except BaseException:
        rmtree.remove(temporary)
        raise


@contextlib.contextmanager
def _in_words(archive: str) -> Generator[None, None, None]:
    """What is wrong with an archive becomes one sentence that names it."""
    try:
        yield
    except tarstream.DAMAGED as error:
        raise PycoreError(f"{archive} is damaged, or not a tar file: {error or type(error).__name__}") from error
    except tarstream.Refused as error:
        raise PycoreError(f"{archive} is refused: {error}") from error


class _Above:
    """A directory that is open because something is made in it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @functools.cached_property
    def gives_group(self) -> bool:
        """Whether what is made in it gets its group (set-group-id)."""
        return bool(os.fstat(self.fd).st_mode & stat.S_ISGID)


class Tree:
    """A directory that is being filled. Every path is resolved by the kernel with it as the root."""

    def __init__(self, root: int, *, ours: bool = True, layer: bool = False) -> None:
        """``ours`` is a directory that was made for this. In anybody else's no link on the way to an entry is followed,
        not even inside, and rules for the modes of new files may hold (acl(5)).

        A ``layer`` becomes what overlayfs lays over others: its whiteouts become those of overlayfs, and its device
        nodes are made.
        """
        self._root, self._ours, self._layer = root, ours, layer
        self.replaced = False
        """Whether something made before has been removed again, for another entry of the same name."""
        self._bytes = 0
        self._open: dict[str, _Above] = {}
        self._times: dict[str, int] = {}
        self._remembered = 0
        self._own = (os.geteuid(), os.getegid())
        self._not_given = _not_given(root) if ours else 0o7777

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """What is open for it; not the directory, which is the caller's."""
        self._forget()

    def add(self, content: Content, entry: Entry) -> None:
        """Make one entry. Raises OSError with the entry's name, ValueError for a name that cannot be meant."""
        path = path_of(entry.name)
        self._bytes += entry.size
        if self._bytes > tarstream.MAX_BYTES:
            raise tarstream.Refused(f"its files are larger than {tarstream.MAX_BYTES >> 30} GiB together")
        try:
            if path:
                head, _, name = path.rpartition("/")
                if self._layer and name.startswith(WHITEOUT):
                    self._whiteout(head, name)
                else:
                    self._make(content, entry, head, name, path)
            elif entry.kind is Kind.DIRECTORY:
                self._give(self._root, entry)
                self._times[""] = entry.mtime
        except OSError as error:
            if error.errno is not None:
                error.filename, error.filename2 = entry.name, None
            raise

    def finish(self) -> None:
        """Directories get their times when nothing more comes into them. Raises OSError."""
        self._forget()
        for path, time in self._times.items():
            try:
                fd = libc.openat2(self._root, path or ".", _DIRECTORY, follow=self._ours)
            except OSError:  # it has been replaced since
                continue
            try:
                os.utime(fd, ns=(time, time))
            finally:
                os.close(fd)
        self._times.clear()

    # -- where -----------------------------------------------------------------------------------------------

    def _parent(self, head: str) -> _Above:
        """The directory at a path; made, with all above it, where the archive forgot it."""
        found = self._open.pop(head, None)
        if found is None:
            return self._keep(head, self._find(head))
        self._open[head] = found  # as the last
        return found

    def _keep(self, path: str, fd: int) -> _Above:
        if len(self._open) == _KEPT_OPEN:
            os.close(self._open.pop(next(iter(self._open))).fd)
        kept = self._open[path] = _Above(fd)
        return kept

    def _find(self, head: str) -> int:
        with contextlib.suppress(FileNotFoundError):
            return self._resolve(head or ".")
        above, _, name = head.rpartition("/")
        try:
            os.mkdir(name, 0o755, dir_fd=self._parent(above).fd)
        except FileExistsError:
            raise FileNotFoundError(errno.ENOENT, "a link on the way leads to what is not there (yet)") from None
        fd = self._resolve(head)
        os.fchmod(fd, 0o755)
        return fd

    def _resolve(self, path: str) -> int:
        return libc.openat2(self._root, path, os.O_RDONLY | os.O_DIRECTORY, follow=self._ours)

    def _forget(self) -> None:
        """What is open may be somewhere else when something has been removed, or called something else."""
        while self._open:
            os.close(self._open.popitem()[1].fd)

    def _clear(self, above: _Above, name: str) -> None:
        """Make room for an entry that comes twice; a directory goes only when it is empty."""
        try:
            os.unlink(name, dir_fd=above.fd)
        except FileNotFoundError:
            return
        except IsADirectoryError:
            os.rmdir(name, dir_fd=above.fd)
        self.replaced = True

    # -- what ------------------------------------------------------------------------------------------------

    def _make(self, content: Content, entry: Entry, head: str, name: str, path: str) -> None:
        above = self._parent(head)
        if entry.kind is Kind.DIRECTORY:
            self._directory(entry, above, name, path)
            return
        if not self._may_be(entry):
            return
        try:
            self._leaf(content, entry, above, name)
        except FileExistsError:
            if entry.kind is Kind.HARD_LINK and self._is_same(entry, above, name):
                return
            self._clear(above, name)
            self._leaf(content, entry, above, name)
            self._forget()

    def _may_be(self, entry: Entry) -> bool:
        """Devices are for layers alone; and there one would be taken for something else."""
        if self._layer and entry.kind is Kind.CHARACTER and (entry.major, entry.minor) == (0, 0):
            raise ValueError(f"a device 0, 0 would hide what is below it: {entry.name!r}")
        return self._layer or entry.kind not in (Kind.CHARACTER, Kind.BLOCK)

    def _leaf(self, content: Content, entry: Entry, above: _Above, name: str) -> None:
        """Anything but a directory. Raises FileExistsError before anything is done."""
        if entry.kind is Kind.FILE:
            self._file(content, entry, above, name)
        elif entry.kind is Kind.LINK:
            os.symlink(entry.link, name, dir_fd=above.fd)
            self._give_name(entry, above, name)
        elif entry.kind is Kind.HARD_LINK:
            target, _, last = path_of(entry.link).rpartition("/")
            there = self._resolve(target or ".")
            try:
                os.link(last, name, src_dir_fd=there, dst_dir_fd=above.fd, follow_symlinks=False)
            finally:
                os.close(there)
        elif entry.kind is Kind.FIFO:
            os.mkfifo(name, 0o600, dir_fd=above.fd)
            self._give_name(entry, above, name)
        else:
            kind = stat.S_IFCHR if entry.kind is Kind.CHARACTER else stat.S_IFBLK
            os.mknod(name, kind | 0o600, os.makedev(entry.major, entry.minor), dir_fd=above.fd)
            self._give_name(entry, above, name)

    def _is_same(self, entry: Entry, above: _Above, name: str) -> bool:
        """Whether a hard link leads to what is there already: itself."""
        target, _, last = path_of(entry.link).rpartition("/")
        there = self._resolve(target or ".")
        try:
            before = os.stat(last, dir_fd=there, follow_symlinks=False)
            return os.path.samestat(before, os.stat(name, dir_fd=above.fd, follow_symlinks=False))
        except FileNotFoundError:
            return False
        finally:
            os.close(there)

    def _file(self, content: Content, entry: Entry, above: _Above, name: str) -> None:
        plain = not entry.mode & self._not_given
        fd = os.open(name, _NEW_FILE, entry.mode if plain else 0o600, dir_fd=above.fd)
        try:
            end = 0
            for place, data in content.pieces():
                if not _is_hole(data):
                    if place != end:
                        os.lseek(fd, place, os.SEEK_SET)
                    end = place + _write(fd, data)
            if end != entry.size:
                os.ftruncate(fd, entry.size)
            if above.gives_group or (entry.uid, entry.gid) != self._own:
                os.fchown(fd, entry.uid, entry.gid)
            if not plain:
                os.fchmod(fd, entry.mode)
            if entry.xattrs:
                _set_attributes(fd, entry)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _directory(self, entry: Entry, above: _Above, name: str, path: str) -> None:
        """A directory that is there already, is kept with what is in it."""
        hidden = False
        try:
            os.mkdir(name, 0o700, dir_fd=above.fd)
        except FileExistsError:
            there = os.stat(name, dir_fd=above.fd, follow_symlinks=False)
            if not stat.S_ISDIR(there.st_mode):
                hidden = self._layer and _is_whiteout(there)
                os.unlink(name, dir_fd=above.fd)
                self.replaced = True
                os.mkdir(name, 0o700, dir_fd=above.fd)
            self._forget()  # also for its own set-group-id bit
            above = self._parent(path.rpartition("/")[0])
        fd = os.open(name, _DIRECTORY, dir_fd=above.fd)
        self._keep(path, fd)
        self._give(fd, entry)
        if hidden:
            _make_opaque(fd)
        self._remember(path, entry.mtime)

    def _remember(self, path: str, time: int) -> None:
        """In bounded memory: both how many there are and how deep they lie is the archive's choice."""
        if path not in self._times:
            self._remembered += len(path)
        self._times[path] = time
        if len(self._times) > MAX_DIRECTORIES:
            raise tarstream.Refused(f"it has more than {MAX_DIRECTORIES} directories")
        if self._remembered > MAX_PATHS:
            raise tarstream.Refused(f"the paths of its directories have more than {MAX_PATHS >> 20} million characters")

    def _give(self, fd: int, entry: Entry) -> None:
        """Owner first: chown(2) clears setuid bits and file capabilities."""
        os.fchown(fd, entry.uid, entry.gid)
        os.fchmod(fd, entry.mode)
        _set_attributes(fd, entry)

    def _give_name(self, entry: Entry, above: _Above, name: str) -> None:
        """The same for what cannot be opened."""
        if above.gives_group or (entry.uid, entry.gid) != self._own:
            os.chown(name, entry.uid, entry.gid, dir_fd=above.fd, follow_symlinks=False)
        if entry.kind is not Kind.LINK:
            os.chmod(name, entry.mode, dir_fd=above.fd)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=above.fd, follow_symlinks=False)

    # -- layers ----------------------------------------------------------------------------------------------

    def _is_replaced(self, head: str) -> bool:
        """Whether this layer has something in place of a directory: all that was in it is hidden by that already, and
        what a link leads to is not meant. Some write whiteouts for it all the same.
        """
        try:
            os.close(libc.openat2(self._root, head or ".", os.O_RDONLY | os.O_DIRECTORY, follow=False))
        except OSError as error:
            return error.errno in (errno.ENOTDIR, errno.ELOOP)
        return False

    def _whiteout(self, head: str, name: str) -> None:
        """What is hidden is what lower layers have: entries of the same layer stay, before it and after it."""
        if self._is_replaced(head):
            return
        above = self._parent(head)
        if name == OPAQUE:
            _make_opaque(above.fd)
            return
        hidden = name.removeprefix(WHITEOUT)
        if hidden.startswith(WHITEOUT):
            return  # kept for whoever makes layers; of no meaning here
        if hidden in ("", ".", ".."):
            raise ValueError(f"a whiteout of nothing: {name!r}")
        try:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=above.fd)
        except FileExistsError:
            there = os.stat(hidden, dir_fd=above.fd, follow_symlinks=False)
            if stat.S_ISDIR(there.st_mode):
                fd = os.open(hidden, _DIRECTORY, dir_fd=above.fd)
                try:
                    _make_opaque(fd)
                finally:
                    os.close(fd)


def path_of(name: str) -> str:
    """A name of the archive as a path relative to the root; a leading slash means nothing, as for tar(1)."""
    if "\0" in name:
        raise ValueError(f"an entry's name has a NUL in it: {name!r}")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError(f"an entry leads upwards: {name!r}")
    return "/".join(parts)


def may_set(attribute: str) -> bool:
    """What an archive may say of a file; overlayfs's own attributes could join layers that are not its."""
    if attribute.startswith("user."):
        return not attribute.startswith("user.overlay.")
    return attribute == "security.capability"


def _not_given(root: int) -> int:
    """Bits of a mode that a new file below a directory may lack, or that change with its owner."""
    special = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
    with contextlib.suppress(OSError):
        if "system.posix_acl_default" in os.listxattr(root):
            return 0o7777
    with open("/proc/thread-self/status", "rb") as status:
        words = status.read().partition(b"\nUmask:")[2].split(None, 1)
    return special | int(words[0], 8) if words else 0o7777


def _is_hole(data: memoryview) -> bool:
    """Whether it is long, and nothing but zeros."""
    return len(data) >= _LEAST_HOLE and not data[0] and not data[-1] and not bytes(data).strip(b"\0")


def _write(fd: int, data: memoryview) -> int:
    """All of it; how much that was."""
    left = data
    while left:
        left = left[os.write(fd, left) :]
    return len(data)


def _set_attributes(fd: int, entry: Entry) -> None:
    for name, value in entry.xattrs.items():
        if may_set(name):
            os.setxattr(fd, name, value)


def _make_opaque(directory: int) -> None:
    """Nothing of lower layers shows through it (overlayfs)."""
    os.setxattr(directory, f"{overlay.prefix()}opaque", b"y")


def _is_whiteout(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0
