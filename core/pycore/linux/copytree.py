"""Copying a directory so that nothing tells the copy from the original, but devices, sockets and other mounts.

The source is walked by paths below its descriptor, resolved by the kernel inside it: whoever may write to
it meanwhile can spoil the copy, not lead it out of the source.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Generator, Sequence

from pycore.linux import layered, libc, rmtree

_NO_RANGE = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)
_PRIVATE = ("trusted.overlay.", "user.overlay.")
"""What overlayfs notes down for itself; it means nothing elsewhere."""

_NO_ID, _NOBODY = (1 << 32) - 1, 65534

Wanted = Callable[[str], bool]
"""Whether a path, with a slash at its beginning, is to be copied; asked of none below one that is not."""


def copy(source: str, destination: str, first_id: int = 0) -> None:
    """Copy a directory to ``destination``, which must not exist and appears only when it is whole.

    Owners, modes, times, extended attributes (capabilities and ACLs are such), hard links, symbolic links and
    holes are kept; extents are shared where the file system can (copy_file_range(2)). A file system mounted
    below the source becomes an empty directory; devices and sockets are left out. ``first_id`` is added to
    every owner. Raises OSError.
    """
    copy_layers([source], destination, first_id)


def copy_layers(layers: Sequence[str], destination: str, first_id: int = 0) -> None:
    """The same for what several layers make together, the uppermost first: what overlayfs would show, as one tree."""
    with _made(destination) as target:
        for layer in reversed(layers):
            with _opened(layer) as origin:
                _Copy(origin, target, first_id).run()


def copy_layer(source: str, destination: str, first_id: int = 0, wanted: Wanted | None = None) -> None:
    """Copy a layer as a layer: with whiteouts and opaque directories, and with devices, but without what else overlayfs
    notes down for itself. ``first_id`` is taken from every owner; ``wanted`` says what to leave out.
    """
    with _made(destination) as target, _opened(source) as origin:
        _LayerCopy(origin, target, -first_id, wanted).run()


@contextlib.contextmanager
def _made(destination: str) -> Generator[int, None, None]:
    """A new directory, which comes to its place when all is in it."""
    if os.path.lexists(destination):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), destination)
    temporary = f"{destination}.new"
    with contextlib.suppress(FileNotFoundError):
        rmtree.remove(temporary)
    os.mkdir(temporary, 0o700)
    try:
        with _opened(temporary) as target:
            yield target
        os.rename(temporary, destination)
    except BaseException:
        rmtree.remove(temporary)
        raise


class _Copy:
    """One copy under way: two roots, and the files with several names met so far.

    What there is in the target was copied from lower layers: a whiteout or an opaque directory takes it away.
    """

    def __init__(self, origin: int, target: int, first_id: int) -> None:
        self._origin, self._target, self._first_id = origin, target, first_id
        self._device = os.fstat(origin).st_dev
        self._linked: dict[tuple[int, int], str] = {}

    def run(self) -> None:
        """Directories get their attributes last: copying into them changes their times."""
        directories = ["."]
        for path in directories:  # grows as it goes
            directories += self._directory(path)
        for path in reversed(directories):
            with self._both(path) as (old, new):
                for name in set(os.listxattr(new)) - set(os.listxattr(old)):  # of a lower layer
                    os.removexattr(new, name)
                self._attributes(old, new)

    def _directory(self, path: str) -> list[str]:
        """Copy what is in one directory; the paths of the directories in it."""
        found: list[str] = []
        with self._both(path) as (old, new):
            if os.fstat(old).st_dev != self._device:
                return found
            if path != "." and layered.is_opaque(old):
                self._opaque(new)
            with os.scandir(old) as entries:
                for entry in entries:
                    inner = f"{path}/{entry.name}"
                    with _named(inner):
                        if not self._is_wanted(inner[1:]):
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            self._make_directory(entry.name, new)
                            found.append(inner)
                        else:
                            self._leaf(inner, entry.name, old, new)
        return found

    def _is_wanted(self, path: str) -> bool:
        return True

    def _opaque(self, directory: int) -> None:
        """Nothing of the lower layers shows in it."""
        for name in os.listdir(directory):
            _clear(name, directory)

    def _make_directory(self, name: str, parent: int) -> None:
        """One of a lower layer stays with what is in it."""
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=parent)
                os.mkdir(name, 0o700, dir_fd=parent)

    def _leaf(self, path: str, name: str, old: int, new: int) -> None:
        _clear(name, new)
        info = os.stat(name, dir_fd=old, follow_symlinks=False)
        first = self._linked.setdefault((info.st_dev, info.st_ino), path) if info.st_nlink > 1 else path
        if first != path:
            os.link(first, name, src_dir_fd=self._target, dst_dir_fd=new, follow_symlinks=False)
        elif stat.S_ISREG(info.st_mode):
            self._file(name, old, new)
        elif stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(name, dir_fd=old), name, dir_fd=new)
            self._own(name, new, info)
        elif stat.S_ISFIFO(info.st_mode):
            os.mkfifo(name, dir_fd=new)
            self._own(name, new, info)
            os.chmod(name, stat.S_IMODE(info.st_mode), dir_fd=new)
        elif not self._device_node(name, new, info):
            self._linked.pop((info.st_dev, info.st_ino), None)

    def _device_node(self, name: str, directory: int, info: os.stat_result) -> bool:
        """Make a device, or whatever else it is; whether that was done."""
        return False

    def _file(self, name: str, old: int, new: int) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with _descriptor(os.open(name, flags, dir_fd=old)) as source:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with _descriptor(os.open(name, flags, 0o600, dir_fd=new)) as target:
                _data(source, target)
                self._attributes(source, target)

    def _attributes(self, source: int, target: int) -> None:
        """Owner first: chown(2) clears setuid bits and file capabilities. Times last."""
        info = os.fstat(source)
        os.fchown(target, self._id(info.st_uid), self._id(info.st_gid))
        os.fchmod(target, stat.S_IMODE(info.st_mode))
        for name in os.listxattr(source):
            if self._keeps(name):
                try:
                    os.setxattr(target, name, os.getxattr(source, name))
                except OSError as error:
                    if error.errno != errno.EOPNOTSUPP:  # the target's file system has no such attributes
                        raise
        os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))

    def _keeps(self, attribute: str) -> bool:
        return not attribute.startswith(_PRIVATE)

    def _id(self, identity: int) -> int:
        """An owner of the source in the copy; one that a user namespace has no place for is nobody."""
        moved = identity + self._first_id
        return moved if 0 <= moved < _NO_ID else _NOBODY

    def _own(self, name: str, directory: int, info: os.stat_result) -> None:
        owner, group = self._id(info.st_uid), self._id(info.st_gid)
        os.chown(name, owner, group, dir_fd=directory, follow_symlinks=False)
        times = (info.st_atime_ns, info.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)

    @contextlib.contextmanager
    def _both(self, path: str) -> Generator[tuple[int, int], None, None]:
        """The same directory in the original and in the copy."""
        with _named(path), _opened(path, self._origin) as old, _opened(path, self._target) as new:
            yield old, new


class _LayerCopy(_Copy):
    """A copy of a layer that stays one."""

    def __init__(self, origin: int, target: int, first_id: int, wanted: Wanted | None) -> None:
        super().__init__(origin, target, first_id)
        self._wanted = wanted

    def _is_wanted(self, path: str) -> bool:
        return self._wanted is None or self._wanted(path)

    def _device_node(self, name: str, directory: int, info: os.stat_result) -> bool:
        if stat.S_ISSOCK(info.st_mode):
            return False
        os.mknod(name, info.st_mode, info.st_rdev, dir_fd=directory)
        if not layered.is_whiteout(info):
            self._own(name, directory, info)
            os.chmod(name, stat.S_IMODE(info.st_mode), dir_fd=directory)
        return True

    def _keeps(self, attribute: str) -> bool:
        return attribute == layered.OPAQUE or super()._keeps(attribute)


def _clear(name: str, directory: int) -> None:
    """Take away what a lower layer had under a name. Nobody but us writes there."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        rmtree.remove(f"/proc/self/fd/{directory}/{name}")


@contextlib.contextmanager
def _opened(path: str, root: int | None = None) -> Generator[int, None, None]:
    """A directory; with ``root``, resolved by the kernel below that directory."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    with _descriptor(os.open(path, flags) if root is None else libc.openat2(root, path, flags)) as fd:
        yield fd


@contextlib.contextmanager
def _descriptor(fd: int) -> Generator[int, None, None]:
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _named(path: str) -> Generator[None, None, None]:
    """An error says which file of the source it met."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = path, None
        raise


def _data(source: int, target: int) -> None:
    """The bytes, extent by extent; what lies between extents stays a hole (lseek(2), SEEK_DATA)."""
    size = os.fstat(source).st_size
    end = 0
    while end < size:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            raise
        end = os.lseek(source, start, os.SEEK_HOLE)
        _extent(source, target, start, min(end, size))
    os.ftruncate(target, size)


def _extent(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        try:
            copied = os.copy_file_range(source, target, end - start, start, start)
        except OSError as error:
            if error.errno not in _NO_RANGE:
                raise
            os.lseek(target, start, os.SEEK_SET)
            copied = os.sendfile(target, source, start, end - start)
        if not copied:  # it was cut short meanwhile
            return
        start += copied
