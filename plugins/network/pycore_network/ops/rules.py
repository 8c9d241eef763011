"""Elements of the nftables tables as operations put them in and take them out."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from contextlib import suppress

from pycore.linux.kernel import Kernel
from pycore.linux.nftelements import Put, Withdraw, renewal

from pycore_network.elements import Element

_NO_TABLES = (errno.EOPNOTSUPP, errno.EPROTONOSUPPORT)
"""What a kernel says that has no nftables."""


def put(kernel: Kernel, table: str, wanted: Sequence[Element]) -> None:
    """Put elements in, in one transaction. Raises FileNotFoundError where there are no tables."""
    kernel.nft_change(table, [Put(each) for each in wanted])


def renew(kernel: Kernel, table: str, wanted: Sequence[Element], seconds: int) -> None:
    """Have elements stay for so long from now on, in one transaction, whether they are there or not.

    Raises FileNotFoundError where there are no tables.
    """
    kernel.nft_change(table, [change for each in wanted for change in renewal(each, seconds)])


def withdraw(kernel: Kernel, table: str, unwanted: Sequence[Element]) -> None:
    """Take elements out in one transaction; where some are gone already, one by one."""
    try:
        kernel.nft_change(table, [Withdraw(each) for each in unwanted])
    except FileNotFoundError:
        for element in unwanted:
            with suppress(FileNotFoundError):
                kernel.nft_change(table, [Withdraw(element)])
    except OSError as error:
        if error.errno not in _NO_TABLES:
            raise


def is_used(kernel: Kernel, table: str, published: Sequence[Element]) -> bool:
    """Whether any connection was made by way of elements that count, as far as can be told. Raises OSError."""
    return any(packets != 0 for packets in kernel.nft_packets(table, published))


def in_force(kernel: Kernel, table: str, wanted: Sequence[Element]) -> bool:
    """Whether all of them are there, with their values. Raises OSError where that cannot be asked."""
    return None not in kernel.nft_packets(table, wanted)
