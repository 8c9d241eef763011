"""Looking at the host without changing it: all that a describing hook and ``plan`` can do."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pycore.linux.nftelements import Element

_CHUNK = 1 << 14
"""Read at a time: asked for a whole mebibyte at once, Python sets that much aside first, which takes 0.1 ms."""

_EVERY_ID = (1 << 32) - 1

_LISTEN = "0A"
_UNCONNECTED = "07"


_CAP_NET_ADMIN = 12
_NS_GET_USERNS = 0xB701


class Look:
    """Read-only questions to the host. A fake kernel answers them from memory."""

    def read(self, path: str, limit: int = 1 << 20) -> str:
        """The text of a file, at most ``limit`` bytes of it. Raises OSError."""
        with open(path, "rb", buffering=0) as file:
            chunks: list[bytes] = []
            while limit > 0 and (chunk := file.read(min(limit, _CHUNK))):
                chunks.append(chunk)
                limit -= len(chunk)
        return b"".join(chunks).decode("utf-8", "replace")

    def read_bytes(self, path: str) -> bytes:
        """The bytes of a file that pycore itself wrote. Raises OSError."""
        with open(path, "rb") as file:
            return file.read()

    def exists(self, path: str) -> bool:
        """Whether the path leads somewhere, links followed."""
        return os.path.exists(path)

    def is_dir(self, path: str) -> bool:
        """Whether the path leads to a directory, links followed."""
        return os.path.isdir(path)

    def is_writable(self, path: str) -> bool:
        """Whether this process may write there: permissions, and a mount that is not read-only (access(2))."""
        return os.access(path, os.W_OK, effective_ids=True)

    def listdir(self, path: str) -> list[str]:
        """Names in a directory, sorted; an empty list where there is none."""
        try:
            return sorted(os.listdir(path))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def real(self, path: str) -> str:
        """The path with every link followed; what is not there is taken as it stands (realpath(3))."""
        return os.path.realpath(path)

    def link(self, path: str) -> str:
        """What a symbolic link, or one of /proc's, says; an empty string where there is none, or it has gone."""
        try:
            return os.readlink(path)
        except OSError:
            return ""

    def stamp(self, path: str) -> str:
        """A word that changes when a file is replaced or written to: size and time of change. Raises OSError."""
        found = os.stat(path)
        return f"{found.st_size:x}-{found.st_mtime_ns:x}"

    def mounts(self) -> list[tuple[str, str]]:
        """(mount point, file system type) of this mount namespace, in the kernel's order (proc(5), mountinfo)."""
        found: list[tuple[str, str]] = []
        for line in self.read("/proc/self/mountinfo", 64 << 20).splitlines():
            left, _, right = line.partition(" - ")
            point = left.split(" ")[4]
            if "\\" in point:
                for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
                    point = point.replace(code, char)
            found.append((point, right.split(" ")[0]))
        return found

    def filesystem(self, path: str) -> str:
        """The type of the file system that holds the path (or its nearest existing parent): ``ext4``, ``overlay``."""
        place = os.path.realpath(path)
        best, kind = "", ""
        for point, fstype in self.mounts():
            inside = place == point or place.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, kind = point, fstype
        return kind

    def has_quota(self, path: str) -> bool:
        """Whether the file system of a path, or of what is there of it, keeps limits for projects (quotactl(2))."""
        from pycore.linux import quota

        while not os.path.exists(path):
            path = os.path.dirname(path)
        return quota.is_enforced(path)

    def euid(self) -> int:
        """The effective user id of this process."""
        return os.geteuid()

    def capabilities(self) -> int:
        """The permitted capabilities of this process as a bit mask, from /proc/self/status."""
        for line in self.read("/proc/self/status").splitlines():
            if line.startswith("CapPrm:"):
                return int(line.split()[1], 16)
        return 0

    def id_ranges(self) -> list[tuple[int, int]]:
        """(first, how many) of the user ids that there are for us, as we see them (user_namespaces(7))."""
        try:
            lines = self.read("/proc/self/uid_map").splitlines()
        except OSError:
            return [(0, _EVERY_ID)]
        return [(int(words[0]), int(words[2])) for words in map(str.split, lines)]

    def in_user_namespace(self) -> bool:
        """Whether our root is not the host's."""
        return self.id_ranges() != [(0, _EVERY_ID)]

    def owns_network(self) -> bool:
        """Whether devices may be made in this network namespace: we have the power, and it belongs to our user
        namespace (ioctl_ns(2)).
        """
        if not self.capabilities() >> _CAP_NET_ADMIN & 1:
            return False
        network = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            owner = fcntl.ioctl(network, _NS_GET_USERNS)
        except PermissionError:
            return False
        finally:
            os.close(network)
        try:
            return os.path.samestat(os.fstat(owner), os.stat("/proc/self/ns/user"))
        finally:
            os.close(owner)

    def links(self) -> list[str]:
        """Names of the network devices of this network namespace."""
        return sorted(name for _, name in socket.if_nameindex())

    def link_master(self, name: str) -> str:
        """The bridge that a network device of this namespace is a port of; an empty string where it is none."""
        try:
            return os.path.basename(os.readlink(f"/sys/class/net/{name}/master"))
        except OSError:
            return ""

    def nft_has(self, table: str) -> bool:
        """Whether there is a table, given as ``inet pycore``."""
        from pycore.linux import nftables

        return nftables.has_table(table)

    def nft_tables(self) -> list[str]:
        """All nftables tables, each with its family: ``inet pycore``. Raises OSError: ENOSYS without libnftables."""
        from pycore.linux import nftables

        return nftables.tables()

    def nft_contents(self, table: str, name: str = "") -> str:
        """What is in a table or in one of its sets, as JSON (:func:`pycore.linux.nftables.contents`).

        Raises OSError.
        """
        from pycore.linux import nftables

        return nftables.contents(table, name)

    def nft_rules(self, table: str, chain: str) -> dict[int, str]:
        """The rules of a chain as people write them, by handle. Raises OSError."""
        from pycore.linux import nftables

        return nftables.rules(table, chain)

    def nft_packets(self, table: str, wanted: Sequence[Element]) -> list[int | None]:
        """How many packets each element of the tables of a name (``pycore``) has counted, 0 where its set does not
        count; None for one that is not there, or has another value. Raises OSError.
        """
        from pycore.linux import nftelements

        return nftelements.packets(table, wanted)

    def is_local(self, address: str) -> bool:
        """Whether an IP address is this host's own: a socket can be bound to it."""
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            try:
                sock.bind((address, 0))
            except OSError:
                return False
        return True

    def nft_elements(self, table: str, name: str) -> dict[str, str]:
        """The elements of a set or map of a table (``inet pycore``), as nft writes them: key to value, of a set "".

        What is not there has no elements. Raises OSError.
        """
        from pycore.linux import nftelements

        return nftelements.elements(table, name)

    def routes(self) -> list[str]:
        """Where the host's routes lead, IPv4 and IPv6, of all tables: ``10.0.0.0/8``; default routes are left out."""
        from pycore.linux import netlink

        return sorted({route for family in (socket.AF_INET, socket.AF_INET6) for route in netlink.routes(family)})

    def listeners(self, protocol: str) -> set[tuple[str, int]]:
        """(address in the kernel's hex, port) of the sockets that wait for ``tcp`` connections or ``udp`` packets.

        IPv6 sockets are included: a dual-stack listener holds the IPv4 port too. The address is 8 or 32 hex
        digits, in the byte order of proc_net_tcp(5).
        """
        return {(address, port) for address, port, _ in self._sockets(protocol)}

    def listener_owner(self, protocol: str, port: int) -> str:
        """The process that holds a port, as ``nginx (pid 71)``, or an empty string. Slow: for messages only."""
        inodes = {f"socket:[{inode}]" for _, held, inode in self._sockets(protocol) if held == port}
        for pid in filter(str.isdigit, self.listdir("/proc")):
            for fd in self._fds(pid):
                if fd in inodes:
                    return f"{self.read(f'/proc/{pid}/comm').strip()} (pid {pid})"
        return ""

    def _fds(self, pid: str) -> Iterator[str]:
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                yield os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            return

    def _sockets(self, protocol: str) -> Iterator[tuple[str, int, str]]:
        wanted = _LISTEN if protocol == "tcp" else _UNCONNECTED
        for table in (protocol, f"{protocol}6"):
            try:
                lines = self.read(f"/proc/net/{table}", 64 << 20).splitlines()[1:]
            except OSError:
                continue
            for line in lines:
                words = line.split()
                address, _, port = words[1].partition(":")
                if words[3] == wanted:
                    yield address, int(port, 16), words[9]
