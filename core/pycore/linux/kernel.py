"""The kernel as operations see it: one method per act, each a system call or close to it.

Everything an operation does to the host goes through a :class:`Kernel`, so that a fake one can stand in
for it. Methods raise OSError with the kernel's errno and the path. New mount API: fsopen(2), open_tree(2),
move_mount(2), mount_setattr(2), all Linux 5.12 or newer.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import select
import socket
import stat
import time
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING

from pycore.errors import PycoreError
from pycore.linux import idmap, libc, overlay, rmtree
from pycore.linux.look import Look

if TYPE_CHECKING:
    from pycore.linux.conntrack import Flow
    from pycore.linux.nftelements import Change
    from pycore.linux.nftevents import Deletions

MAX_FILE = 1 << 20

_BACKLOG = 128
"""Connections that wait to be accepted."""


class Kernel(Look):
    """The real kernel."""

    # -- files of the host, in places that are pycore's own ------------------------------------------

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        """Make a directory of exactly that mode, and its missing parents; one that is there already is fine."""
        if not os.path.isdir(path):
            os.makedirs(path, mode, exist_ok=True)
            os.chmod(path, mode)

    def write(self, path: str, text: str) -> None:
        """Write to a file that is there: a control file of a cgroup or of /proc, or one that is mounted elsewhere too
        and has to stay the same. One write(2), not atomic.
        """
        fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        except OSError as error:
            error.filename = path
            raise
        finally:
            os.close(fd)

    def wait_for(self, path: str, line: str, seconds: float) -> None:
        """Wait until a control file that tells of its changes (cgroup.events) has a line. Raises OSError: ETIMEDOUT."""
        deadline = time.monotonic() + seconds
        with open(path, "rb", buffering=0) as file:
            changes = select.poll()
            changes.register(file, select.POLLPRI)
            while line.encode() not in os.pread(file.fileno(), 4096, 0).splitlines():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise OSError(errno.ETIMEDOUT, f"{line!r} does not come", path)
                changes.poll(left * 1000)

    def create(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Make a file that must not be there yet, with its content at once. Raises FileExistsError."""
        data = content.encode() if isinstance(content, str) else content
        try:
            fd = os.open(os.path.dirname(path), os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, mode)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
                raise
            self._create(path, data, mode)  # a file system without files that have no name
            return
        with open(fd, "wb", buffering=0) as file:
            file.write(data)
            # A descriptor of a directory, whichever, is what makes Python call linkat(2), and so follow the link.
            try:
                os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)
            except OSError as error:
                raise OSError(error.errno, os.strerror(error.errno or 0), path) from None

    @staticmethod
    def _create(path: str, data: bytes, mode: int) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(fd, "wb", buffering=0) as file:
            file.write(data)

    def replace(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Put a file in place whole: a reader sees the old content or the new, never a part.

        The temporary name is always the same, so what a killed process leaves of it goes with the next; a lock on
        the directory keeps two from using it at once.
        """
        temporary = f"{path}.new"
        data = content.encode() if isinstance(content, str) else content
        with self.locked(os.path.dirname(path)):
            self.unlink(temporary)
            try:
                self._create(temporary, data, mode)
                os.rename(temporary, path)
            except BaseException:
                self.unlink(temporary)
                raise

    def unlink(self, path: str) -> None:
        """Remove a file; one that is not there is fine."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory; one that is not there is fine."""
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(path)

    def rmtree(self, path: str) -> None:
        """Remove a tree of any depth, links not followed; one that is not there is fine."""
        with contextlib.suppress(FileNotFoundError):
            rmtree.remove(path)

    def chown(self, path: str, uid: int, gid: int) -> None:
        """Give a file or directory of pycore's own to a user; links are not followed."""
        os.chown(path, uid, gid, follow_symlinks=False)

    @contextlib.contextmanager
    def locked(self, directory: str) -> Generator[None, None, None]:
        """Keep others out of a directory for the length of a with block, other processes too (flock(2))."""
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def owner(self, path: str) -> tuple[int, int]:
        """(user, group) of what a path leads to. Raises OSError."""
        found = os.stat(path)
        return found.st_uid, found.st_gid

    # -- trees and layers --------------------------------------------------------------------------------

    def copy_layers(self, layers: Sequence[str], destination: str, first_id: int = 0) -> None:
        """Copy what layers make together, the uppermost first, with owners, modes, times, attributes, links and holes
        to a path that is not there yet. One layer is any directory.

        ``first_id`` is added to every owner: what is root's there, belongs to that id here.
        """
        from pycore.linux import copytree

        copytree.copy_layers(layers, destination, first_id)

    def copy_from_layers(self, layers: Sequence[str], path: str, destination: str) -> bool:
        """Copy the directory that a path means in an image to a place where at most an empty directory is: whole or
        not at all. Whether there is such a directory in the image. Raises OSError.
        """
        from pycore.linux import imagecopy

        return imagecopy.copy(layers, path, destination)

    def set_quota(self, directory: str, size: int) -> None:
        """Limit what a directory and all in it may take on the disk, in bytes (quotactl(2))."""
        from pycore.linux import quota

        quota.limit(directory, size)

    def forget_quota(self, directory: str) -> None:
        """Take the limit of a directory away; where there is none, or no directory, that is fine."""
        from pycore.linux import quota

        quota.forget(directory)

    def mkdir_like(self, path: str, model: str) -> None:
        """Make one directory with owner and mode of another; one that is there already is fine."""
        like = os.stat(model)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
            os.chown(path, like.st_uid, like.st_gid)
            os.chmod(path, stat.S_IMODE(like.st_mode))

    def whiteout(self, path: str) -> None:
        """Hide a name of the layers below: a character device 0/0, as overlayfs.rst has it."""
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(0, 0))

    # -- mounts ------------------------------------------------------------------------------------------

    def mount_private(self) -> None:
        """Keep mounts made from here on in this mount namespace (mount_namespaces(7))."""
        libc.mount(None, "/", None, libc.MS_REC | libc.MS_PRIVATE, None)

    def mount_new(self, fstype: str, options: Mapping[str, str | None], attributes: int = 0) -> int:
        """A new file system as a detached mount; the caller owns the descriptor.

        ``options`` go one by one through fsconfig(2), so a comma or a colon in a path is no danger; None
        means a flag. ``attributes`` are MOUNT_ATTR_*.
        """
        context = libc.fsopen(fstype)
        try:
            for key, value in options.items():
                libc.fsconfig(context, key, value)
            return libc.fsmount(context, attributes)
        except OSError as error:
            raise OSError(error.errno, overlay.message(context) or os.strerror(error.errno or 0), fstype) from None
        finally:
            os.close(context)

    def mount_overlay(self, lower: Sequence[int], layer: int, volatile: bool = False) -> int:
        """An overlay as a detached mount: descriptors of its layers, the uppermost first, and of the directory that
        has ``upper`` and ``work`` in it; without one (-1) it is read-only. See :func:`pycore.linux.overlay.mount`.
        """
        return overlay.mount(lower, layer, volatile=volatile)

    def open_path(self, path: str) -> int:
        """An O_PATH descriptor of a path of the host, to be named later as ``/proc/self/fd/N``."""
        return os.open(path, os.O_PATH | os.O_CLOEXEC)

    def open_below(self, directory: str, path: str) -> int:
        """An O_PATH descriptor of a directory below another, which is made where it is missing. What is in there is
        not trusted: links are resolved inside. Raises OSError.
        """
        root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            place = ""
            for part in filter(None, path.split("/")):
                above, place = place, f"{place}/{part}"
                with contextlib.suppress(FileExistsError):
                    parent = libc.openat2(root, above or ".", os.O_PATH | os.O_DIRECTORY)
                    try:
                        os.mkdir(part, 0o755, dir_fd=parent)
                    finally:
                        os.close(parent)
            return libc.openat2(root, place or ".", os.O_PATH | os.O_DIRECTORY)
        finally:
            os.close(root)

    def mount_clone(self, path: str | int, recursive: bool = True) -> int:
        """A detached copy of the mount at a path of the host (a bind mount to be), or at that of a descriptor; links
        are followed. What is mounted there later, on either side, does not show on the other.
        """
        tree = libc.open_tree(path, recursive)
        libc.mount_setattr(tree, 0, recursive, propagation=libc.MS_PRIVATE)
        return tree

    def mount_owners(self, tree: int, users: str, groups: str, recursive: bool = True) -> None:
        """Show the files of a detached mount as other owners', by maps (:func:`pycore.linux.idmap.lines`).

        Raises PycoreError where the file system, or the kernel, cannot.
        """
        with _owners(users, groups) as namespace:
            libc.mount_setattr(tree, 0, recursive, userns=namespace)

    @contextlib.contextmanager
    def shown_layers(self, paths: Sequence[str], users: str, groups: str) -> Generator[list[int], None, None]:
        """Descriptors of directories whose files are shown as other owners', for :meth:`mount_overlay` and as long as a
        with block lasts. Raises PycoreError where the file system, or the kernel, cannot.
        """
        with contextlib.ExitStack() as opened:
            with _owners(users, groups) as namespace:
                found = opened.enter_context(overlay.shown(paths, namespace))
            yield found

    def mount_attributes(self, tree: int, attributes: int, recursive: bool = True) -> None:
        """Set MOUNT_ATTR_* on a mount, and on those below it (mount_setattr(2))."""
        libc.mount_setattr(tree, attributes, recursive)

    def mount_place(self, tree: int, target: str, directory: bool = True) -> None:
        """Put a detached mount at an absolute path below the current root, making what is missing there.

        Links in the path are resolved inside the root, magic links of /proc refused: what is in the
        container's file system is not trusted. Closes ``tree``.
        """
        place = self.make_place(target, directory)
        try:
            libc.move_mount(tree, place)
        except OSError as error:
            error.filename = target
            raise
        finally:
            os.close(place)
            os.close(tree)

    def make_place(self, target: str, directory: bool = True) -> int:
        """An O_PATH descriptor of a path below the current root; missing directories (or the file) are made."""
        try:
            return libc.open_inside(target)
        except FileNotFoundError:
            pass
        *above, last = [part for part in target.split("/") if part]
        place = "".join(f"/{part}" for part in above)
        try:
            self._make(f"{place}/{last}", directory)
        except FileNotFoundError:  # it is rarely alone in missing
            for number in range(1, len(above) + 1):
                self._make("".join(f"/{part}" for part in above[:number]), directory=True)
            self._make(f"{place}/{last}", directory)
        return libc.open_inside(target)

    def enter_directory(self, path: str, make: bool = True) -> None:
        """Make a path below the current root the working directory; what is missing of it is made, if asked for."""
        place = self.make_place(path) if make else libc.open_inside(path)
        try:
            os.fchdir(place)
        finally:
            os.close(place)

    @staticmethod
    def _make(path: str, directory: bool) -> None:
        """Make one name in its parent, which is there; a dangling link is an error, never followed."""
        head, _, name = path.rpartition("/")
        parent = libc.open_inside(head or "/")
        try:
            if directory:
                os.mkdir(name, 0o755, dir_fd=parent)
            else:
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(name, flags, 0o644, dir_fd=parent))
        except FileExistsError:
            pass
        finally:
            os.close(parent)

    def link_text(self, path: str) -> str:
        """Where a symbolic link says that it leads; an empty string for whatever is no link."""
        try:
            return os.readlink(path)
        except OSError:
            return ""

    def enter_root(self, tree: int) -> None:
        """Make a detached mount the root of this mount namespace and let go of the old one (pivot_root(2)).

        The mount is put over ``/proc``, which exists on every host, only because pivot_root wants it
        attached; ``pivot_root(".", ".")`` then needs no directory in the new root.
        """
        libc.move_mount_path(tree, "/proc")
        os.fchdir(tree)
        libc.pivot_root(".", ".")
        libc.umount2(".", libc.MNT_DETACH)
        os.chdir("/")
        os.close(tree)

    def make_link(self, text: str, path: str) -> None:
        """A symbolic link in a directory that was mounted just now; one that is there is fine."""
        with contextlib.suppress(FileExistsError):
            os.symlink(text, path)

    def read_inside(self, path: str, limit: int = MAX_FILE) -> str:
        """The text of a file below the current root that is not trusted, at most ``limit`` bytes of it.

        Links are resolved inside the root, magic links of /proc refused. Raises OSError, with EINVAL for
        anything but a regular file: a pipe would make us wait, a device do something.
        """
        fd = libc.open_inside(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            return os.read(fd, min(limit, found.st_size)).decode("utf-8", "replace")
        finally:
            os.close(fd)

    # -- processes -----------------------------------------------------------------------------------------

    def kill(self, pid: int, number: int) -> None:
        """Send a signal; a process that is gone is fine. 0 is refused: it would be our own process group."""
        if pid > 0:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def start_helper(self, words: Sequence[str], record: str, network: int) -> None:
        """Start a program that serves a process's network namespace, and wait until it is ready; what is known of it
        is in files that begin with ``record``. See :func:`pycore.linux.helper.start`.
        """
        from pycore.linux import helper

        helper.start(words, record, network)

    def has_helper(self, record: str) -> bool:
        """Whether it runs."""
        from pycore.linux import helper

        return helper.is_alive(record)

    def end_helper(self, record: str) -> None:
        """End it, if it is there, and forget it."""
        from pycore.linux import helper

        helper.end(record)

    # -- the process itself, inside ----------------------------------------------------------------------

    def unshare(self, flags: int) -> None:
        """Leave namespaces for new ones (unshare(2), CLONE_NEW*)."""
        libc.unshare(flags)

    def join_namespaces(self, pidfd: int, flags: int) -> None:
        """Join these namespaces (CLONE_NEW*) of another process (setns(2)), as their root in a user namespace."""
        libc.setns(pidfd, flags)
        if flags & libc.CLONE_NEWUSER:
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)

    def set_hostname(self, name: str) -> None:
        """Set the host name of the UTS namespace."""
        socket.sethostname(name)

    def set_rlimit(self, limit: int, soft: int, hard: int) -> None:
        """Set a resource limit of this process (setrlimit(2)); -1 is no limit."""
        try:
            resource.setrlimit(limit, (soft, hard))
        except ValueError as error:  # what Python makes of EPERM and EINVAL
            raise OSError(errno.EPERM, str(error)) from None

    def set_keep_caps(self, keep: bool) -> None:
        """Whether permitted capabilities outlive the change from uid 0 (PR_SET_KEEPCAPS)."""
        libc.prctl(libc.PR_SET_KEEPCAPS, int(keep))

    def drop_bounding(self, capability: int) -> None:
        """Remove a capability from the bounding set (PR_CAPBSET_DROP)."""
        libc.prctl(libc.PR_CAPBSET_DROP, capability)

    def set_capabilities(self, effective: int, permitted: int, inheritable: int) -> None:
        """Set this thread's capabilities, as bit masks (capset(2))."""
        libc.capset(effective, permitted, inheritable)

    def set_ambient(self, capabilities: Sequence[int]) -> None:
        """Clear the ambient set, then raise these (PR_CAP_AMBIENT); they must be permitted and inheritable."""
        libc.prctl(libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_CLEAR_ALL)
        for capability in capabilities:
            libc.prctl(libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_RAISE, capability)

    def set_user(self, uid: int, gid: int, groups: Sequence[int]) -> None:
        """Become a user: supplementary groups, then all group ids, then all user ids.

        Where nobody may set groups, in the user namespace of a user who has one id alone, they stay what they are.
        """
        try:
            os.setgroups(groups)
        except PermissionError:
            if groups or self.read("/proc/self/setgroups").strip() != "deny":
                raise
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)

    def give_file(self, fd: int, uid: int) -> None:
        """Give an open file to a user (fchown(2))."""
        os.fchown(fd, uid, -1)

    def set_no_new_privs(self) -> None:
        """No execve gives privileges from here on (PR_SET_NO_NEW_PRIVS)."""
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)

    def load_filter(self, program: bytes) -> None:
        """Load a seccomp filter: an array of struct sock_filter (seccomp(2), SECCOMP_SET_MODE_FILTER)."""
        libc.seccomp_filter(program)

    # -- network -----------------------------------------------------------------------------------------

    def link_index(self, name: str) -> int:
        """The number of a network device of this thread's network namespace (netdevice(7)). Raises OSError: ENODEV."""
        try:
            return socket.if_nametoindex(name)
        except OSError:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), name) from None

    def listen(self, kind: int, address: str, port: int) -> socket.socket:
        """A socket of this network namespace for what comes to an address and port: SOCK_STREAM, which listens, or
        SOCK_DGRAM. It never blocks. Raises OSError: EADDRINUSE, EADDRNOTAVAIL.
        """
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind | socket.SOCK_NONBLOCK)
        try:
            if kind == socket.SOCK_STREAM:  # connections of an earlier engine may still be about to end
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
            if kind == socket.SOCK_STREAM:
                sock.listen(_BACKLOG)
        except BaseException:
            sock.close()
            raise
        return sock

    def netlink(self, messages: Sequence[bytes], pid: int = 0) -> None:
        """Send rtnetlink requests in one batch and wait for the acknowledgement of each.

        ``messages`` are whole requests with NLM_F_ACK; their sequence numbers are set here. ``pid`` names a
        process whose network namespace is meant, 0 this one. Raises the OSError of the first that failed.
        """
        from pycore.linux import netlink

        netlink.send(messages, pid)

    def gateways(self, pid: int) -> set[str]:
        """Where the default routes lead in the network namespace of a process; ``0.0.0.0`` or ``::`` is just out of a
        device. Raises OSError.
        """
        from pycore.linux import netlink

        return netlink.gateways(pid)

    def link_wait(self, names: Sequence[str], pid: int = 0) -> None:
        """Wait until network devices that were brought up can send and receive. Raises OSError: ENODEV, ETIMEDOUT."""
        from pycore.linux import netlink

        netlink.wait_until_up(names, pid)

    def hear_deletions(self, table: str) -> Deletions:
        """What is taken away from nftables tables of a name, from now on. Raises OSError."""
        from pycore.linux.nftevents import Deletions

        return Deletions(table)

    def flows(self, protocol: str, ports: tuple[int, int], version: int) -> list[Flow]:
        """Connections that the kernel tracks, of ``tcp``, ``udp`` or ``sctp`` and a version of IP, which were begun to
        one of these ports, given by the first and the last. Raises OSError.
        """
        from pycore.linux import conntrack

        return conntrack.flows(protocol, ports, version)

    def flows_from(self, source: str) -> list[Flow]:
        """Connections that the kernel tracks, which were begun from an address. Raises OSError."""
        from pycore.linux import conntrack

        return conntrack.flows_from(source)

    def forget_flows(self, unwanted: Sequence[Flow]) -> None:
        """Have the kernel forget connections: their next packet is a first one again. Raises OSError."""
        from pycore.linux import conntrack

        conntrack.forget(unwanted)

    def nft(self, commands: str) -> None:
        """Run nftables commands as one transaction: all of them or none (libnftables(3)).

        Raises OSError: ENOSYS where libnftables is missing, EINVAL with nft's words where it refuses.
        """
        from pycore.linux import nftables

        nftables.run(commands)

    def nft_change(self, table: str, changes: Sequence[Change]) -> None:
        """Put elements into the tables of a name (``pycore``) and take them out, as one transaction: all or none.

        Raises OSError: ENOENT, EEXIST, EINVAL (:func:`pycore.linux.nftelements.change`).
        """
        from pycore.linux import nftelements

        nftelements.change(table, changes)


@contextlib.contextmanager
def _owners(users: str, groups: str) -> Generator[int, None, None]:
    """A user namespace for its maps; what a file system cannot do with it becomes words."""
    namespace = idmap.namespace(users, groups)
    try:
        yield namespace
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise PycoreError(
            "its file system cannot show files as somebody else's (id-mapped mounts)",
            hint="ext4, xfs and btrfs can from Linux 5.19 on, tmpfs from 6.3 on; overlayfs and most network file "
            "systems cannot",
        ) from None
    finally:
        os.close(namespace)
