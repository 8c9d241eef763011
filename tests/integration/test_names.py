"""The name files put over those of a root file system, in a mount namespace of the test's own."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pycore.linux import libc
from pycore.linux.kernel import Kernel
from pycore.ops import Context
from pycore_network.ops.names import NameFile, NameFiles

pytestmark = pytest.mark.root

NAMES = ("hosts", "hostname", "resolv.conf")


def inside(files: Path, fill: Callable[[Path], None], *, read_only: bool = False) -> dict[str, str | int]:
    """What a process in a root made by ``fill`` reads in each file; an errno where it cannot, or could write."""
    NameFiles(str(files), "HOSTS", "HOSTNAME", "RESOLV").do(Context(Kernel()))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        found: dict[str, str | int] = {}
        try:
            found = _inside(files, fill, read_only)
        finally:
            os.write(writer, json.dumps(found).encode())
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


def _inside(files: Path, fill: Callable[[Path], None], read_only: bool) -> dict[str, str | int]:
    kernel = Kernel()
    kernel.unshare(libc.CLONE_NEWNS)
    kernel.mount_private()
    context = Context(kernel)
    operations = [NameFile(str(files / name), f"/etc/{name}") for name in NAMES]
    for operation in operations:
        operation.hold(context)
    root = files.parent / "root"
    root.mkdir()
    libc.mount("none", str(root), "tmpfs", 0, None)
    fill(root)
    tree = kernel.mount_clone(str(root))
    if read_only:
        kernel.mount_attributes(tree, libc.MOUNT_ATTR_RDONLY)
    kernel.enter_root(tree)
    for operation in operations:
        operation.do(context)
    return {name: _read(f"/etc/{name}") for name in NAMES}


def _read(path: str) -> str | int:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        return error.errno or 0
    with pytest.raises(OSError, match="Read-only file system"):
        Path(path).write_text("mine", encoding="utf-8")
    return text


ALL = {"hosts": "HOSTS", "hostname": "HOSTNAME", "resolv.conf": "RESOLV"}


def ordinary(root: Path) -> None:
    (root / "etc").mkdir()
    for name in NAMES:
        (root / "etc" / name).write_text("the image's own", encoding="utf-8")


def with_a_dangling_link(root: Path) -> None:
    ordinary(root)
    (root / "etc/resolv.conf").unlink()
    (root / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")


def with_links_out_of_it(root: Path) -> None:
    ordinary(root)
    (root / "etc/hosts").unlink()
    (root / "etc/hosts").symlink_to("../../../../../../tmp/elsewhere")
    (root / "etc/hostname").unlink()
    (root / "etc/hostname").symlink_to("/one")
    (root / "one").symlink_to("two")


@pytest.mark.parametrize("fill", [ordinary, lambda root: None, with_a_dangling_link, with_links_out_of_it])
def test_the_files_are_there_and_read_only(tmp_path: Path, fill: Callable[[Path], None]) -> None:
    assert inside(tmp_path / "names", fill) == ALL


def test_a_read_only_root(tmp_path: Path) -> None:
    assert inside(tmp_path / "names", ordinary, read_only=True) == ALL


def test_a_read_only_root_without_such_files_goes_without(tmp_path: Path) -> None:
    found = inside(tmp_path / "names", lambda root: (root / "etc").mkdir(), read_only=True)
    assert found == dict.fromkeys(NAMES, errno.ENOENT)
