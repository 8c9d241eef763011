"""Taking a network device away."""

from __future__ import annotations

import errno

from pycore.ops import Context

_GONE = (errno.ENODEV, errno.ESRCH, errno.ENOENT)
"""What the kernel says of a device or a process that is not there any more."""


def delete(ctx: Context, device: str, pid: int = 0) -> None:
    """Delete a device of the host, or of the network namespace of a process; one that is not there is fine."""
    from pycore_network import links

    try:
        ctx.kernel.netlink([links.delete_link(device)], pid)
    except OSError as error:
        if error.errno not in _GONE:
            raise
