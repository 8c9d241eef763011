"""What a test may need of the host, whether it is there, and the command that brings it."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Callable
from ctypes.util import find_library
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pycore.linux.look import Look

from support import journal

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""

PACKAGES_FILE = ROOT / ".ci" / "debian-packages"

_CAP_SYS_ADMIN = 1 << 21


@dataclass(frozen=True)
class Need:
    """Something of the host: a look whether it is there, and the Debian packages that bring it."""

    met: Callable[[], bool]
    packages: tuple[str, ...] = ()

    @property
    def mend(self) -> str:
        """The command that brings it."""
        return f"apt-get install {' '.join(self.packages)}" if self.packages else "run the tests as root"


def _is_root() -> bool:
    """Root with the power to mount: in many containers uid 0 has not got it."""
    return os.geteuid() == 0 and bool(Look().capabilities() & _CAP_SYS_ADMIN)


def _has_library(name: str) -> bool:
    file = find_library(name)
    try:
        return file is not None and bool(ctypes.CDLL(file))
    except OSError:
        return False


def _has_program(name: str) -> bool:
    return shutil.which(name) is not None


NEEDS: dict[str, Need] = {
    "root": Need(_is_root),
    "libseccomp": Need(lambda: _has_library("seccomp"), ("libseccomp2",)),
    "libnftables": Need(lambda: _has_library("nftables"), ("libnftables1",)),
    "nft": Need(lambda: _has_program("nft"), ("nftables",)),
    "iptables": Need(lambda: _has_program("iptables-nft-restore"), ("iptables",)),
    "ufw": Need(lambda: _has_program("ufw"), ("ufw",)),
    "firewalld": Need(lambda: _has_program("firewalld") and _has_program("dbus-daemon"), ("firewalld", "dbus-daemon")),
    "ip": Need(lambda: _has_program("ip"), ("iproute2",)),
    "systemd-analyze": Need(lambda: _has_program("systemd-analyze"), ("systemd",)),
    "journald": Need(lambda: bool(journal.daemon()) and _has_program("journalctl"), ("systemd",)),
    "docker-registry": Need(lambda: _has_program("docker-registry"), ("docker-registry",)),
    "skopeo": Need(lambda: _has_program("skopeo"), ("skopeo",)),
    "umoci": Need(lambda: _has_program("umoci"), ("umoci",)),
    "podman": Need(lambda: _has_program("podman"), ("podman",)),
    "openssl": Need(lambda: _has_program("openssl"), ("openssl",)),
    "pasta": Need(lambda: _has_program("pasta"), ("passt",)),
    "uidmap": Need(lambda: _has_program("newuidmap"), ("uidmap",)),
    "cc": Need(lambda: _has_program("cc"), ("gcc", "libc6-dev")),
}


@cache
def is_met(name: str) -> bool:
    """Whether a need is met; asked once. Raises KeyError for a word that is not in NEEDS."""
    return NEEDS[name].met()


def reason(name: str) -> str:
    """Why a test is skipped, with the way out."""
    return f"for want of {name} ({NEEDS[name].mend})"


def debian_packages() -> list[str]:
    """The packages of the one list, in its order."""
    lines = (line.partition("#")[0].strip() for line in PACKAGES_FILE.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]
