"""What the store of images does when nobody asks for anything: it lets go of what has had no name since yesterday."""

from __future__ import annotations

from pycore.hookspecs import Host, hookimpl

from pycore_images.collecting import collect
from pycore_images.registered import store_of


@hookimpl
def pycore_idle(host: Host) -> None:
    """Images with names stay, however long nobody uses them."""
    collect(store_of(host))
