"""A supervisor that nobody asks for anything has plugins tidy up, once, and then ends."""

from __future__ import annotations

import os
import time

import pytest
from pycore_images.collecting import DAY
from pycore_images.store import Store
from support.command import Command, wait_readable
from support.kept import keep

pytestmark = pytest.mark.root


def test_old_content_without_a_name_is_gone_when_the_supervisor_has_ended(pycore: Command) -> None:
    pycore.environment["PYCORE_LINGER"] = "0.2"
    store = Store(pycore.data_dir / "images")
    root = keep(store, "layer")
    old = time.time() - DAY - 60
    for place in (*(store.root / "blobs" / "sha256").iterdir(), *(store.root / "layers").iterdir()):
        os.utime(place, (old, old))
    pycore("ps")
    if pid := pycore.supervisor():
        pidfd = os.pidfd_open(pid)
        assert wait_readable(pidfd, 20)
        os.close(pidfd)
    assert not store.has_blob(root.digest)
