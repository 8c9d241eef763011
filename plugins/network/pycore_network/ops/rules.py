"""Elements of the nftables tables as operations put them in and take them out."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from contextlib import suppress

from pycore.linux.kernel import Kernel

from pycore_network import elements
from pycore_network.elements import Element

_FEW = 16
"""Elements that are asked for one by one: more are picked from all that there are."""


def put(kernel: Kernel, table: str, wanted: Sequence[Element]) -> None:
    """Put elements in, in one transaction. Raises FileNotFoundError where there are no tables."""
    if wanted:
        kernel.nft(elements.add(table, wanted))


def withdraw(kernel: Kernel, table: str, unwanted: Sequence[Element]) -> None:
    """Take elements out in one transaction; where some are gone already, one by one. Without the library nothing was
    put in.
    """
    if not unwanted:
        return
    try:
        kernel.nft(elements.delete(table, unwanted))
    except FileNotFoundError:
        for element in unwanted:
            with suppress(FileNotFoundError):
                kernel.nft(elements.delete(table, [element]))
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise


def is_used(kernel: Kernel, table: str, published: Sequence[Element]) -> bool:
    """Whether any connection was made by way of elements that count, as far as can be told. Raises OSError."""
    return any(
        not kernel.nft_elements(f"{each.family} {table}", each.place, each.key)
        or kernel.nft_packets(f"{each.family} {table}", each.place, each.key)
        for each in published
    )


def in_force(kernel: Kernel, table: str, wanted: Sequence[Element]) -> bool:
    """Whether all of them are there, with their values. Raises OSError where that cannot be asked."""
    if len(wanted) > _FEW:
        places = {(each.family, each.place) for each in wanted}
        found = {place: kernel.nft_elements(f"{place[0]} {table}", place[1]) for place in places}
        return all(found[each.family, each.place].get(each.key) == each.value for each in wanted)
    return all(
        each.value in kernel.nft_elements(f"{each.family} {table}", each.place, each.key).values() for each in wanted
    )
