"""Runs nftables commands in this process, through libnftables: no ``nft`` program is started.

It looks at all that there is before each: :mod:`pycore.linux.nftelements` fills and empties sets without.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import threading
from ctypes import c_char_p, c_int, c_uint, c_void_p
from functools import cache

from pycore.linux import nfnetlink

LIBRARY = "libnftables.so.1"
MEND = "apt-get install libnftables1"

_ERRNOS = {
    **{os.strerror(number): number for number in (errno.ENOENT, errno.EEXIST, errno.EPERM, errno.EBUSY, errno.ENOMEM)},
    "does not exist": errno.ENOENT,  # of an element of an interval set, which nft looks for itself
}
"""libnftables gives words, never a number: what they stand for."""

_STATELESS, _HANDLE, _JSON, _TERSE = 1 << 2, 1 << 3, 1 << 4, 1 << 11
"""NFT_CTX_OUTPUT_*: without counters, with handles, as JSON, without the elements of named sets (libnftables(3))."""

_lock = threading.Lock()
_kept: tuple[tuple[int, int], int] | None = None


def run(commands: str) -> None:
    """Run commands, separated by ``;`` or new lines, as one transaction: all of them or none.

    Raises OSError: ENOSYS where the library is missing, the kernel's errno where it can be told from nft's
    words (ENOENT, EEXIST, EPERM), else EINVAL; always with these words.
    """
    _run(commands)


def listing(what: str) -> str:
    """What ``nft list`` prints: of ``tables``, ``chains``, ``table ip filter``. Raises OSError as :func:`run` does."""
    return _run(f"list {what}")


def has_table(name: str) -> bool:
    """Whether there is a table, given with its family: ``inet pycore``. Raises OSError as :func:`run` does."""
    return name in tables()


def tables() -> list[str]:
    """All tables, each with its family: ``inet pycore``. Raises OSError as :func:`run` does."""
    return [line.partition(" ")[2] for line in listing("tables").splitlines()]


def contents(table: str, name: str = "") -> str:
    """What is in a table (``ip filter``), as JSON (libnftables-json(5)); or in one set or map of it, with its elements.

    Of the table the elements of its named sets are left out. Of what iptables-nft has put in, ``xt`` expressions have a
    ``revision`` and, in hex, their ``info`` beside type and name. Raises OSError as :func:`run` does.
    """
    if not name:
        return _with_extensions(table, _run(f"list table {table}", _JSON | _TERSE))
    try:
        return _run(f"list set {table} {name}", _JSON)
    except FileNotFoundError:
        return _run(f"list map {table} {name}", _JSON)


def rules(table: str, chain: str) -> dict[int, str]:
    """The rules of a chain as people write them, by handle, without their counters. Raises OSError as :func:`run`."""
    lines = (line.strip() for line in _run(f"list chain {table} {chain}", _STATELESS | _HANDLE).splitlines())
    pairs = (line.rpartition(" # handle ") for line in lines if not line.endswith("{"))
    return {int(handle): " ".join(text.split()) for text, found, handle in pairs if found and handle.isdigit()}


def _with_extensions(table: str, text: str) -> str:
    if '"xt"' not in text:
        return text
    from pycore.linux.xtables import extensions

    found, content = extensions(table), json.loads(text)
    for rule in (each["rule"] for each in content["nftables"] if "rule" in each):
        known = iter(found.get(rule["handle"], ()))
        for expression in (each for each in rule["expr"] if "xt" in each):
            extension = next(known, None)
            if extension:
                about = {"revision": extension.revision, "info": extension.info.hex()}
                expression["xt"] = (expression["xt"] or {}) | {"name": extension.name} | about
    return json.dumps(content)


def available() -> bool:
    """Whether the library is installed."""
    try:
        _library()
    except OSError:
        return False
    return True


def _run(commands: str, flags: int = 0) -> str:
    library = _library()
    with _lock:
        context = _context(library)
        library.nft_ctx_output_set_flags(context, flags)
        failed = library.nft_run_cmd_from_buffer(context, commands.encode())
        output: bytes = library.nft_ctx_get_output_buffer(context)
        words: bytes = library.nft_ctx_get_error_buffer(context)
    if failed:
        raise _error(words.decode("utf-8", "replace"))
    return output.decode("utf-8", "replace")


def _context(library: ctypes.CDLL) -> int:
    """The context of this process and network namespace.

    It is kept, because closing its netlink socket waits until the kernel has freed whatever was deleted
    through it: 14 ms after each deletion, against 0.2 ms for the deletion itself.
    """
    global _kept
    place = nfnetlink.namespace()
    if _kept and _kept[0] == place:
        return _kept[1]
    if _kept:
        library.nft_ctx_free(_kept[1])
    context: int = library.nft_ctx_new(0)
    library.nft_ctx_buffer_output(context)
    library.nft_ctx_buffer_error(context)
    _kept = (place, context)
    return context


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        raise OSError(errno.ENOSYS, f"{LIBRARY} is not installed; {MEND}") from None
    library.nft_ctx_new.argtypes, library.nft_ctx_new.restype = [c_uint], c_void_p
    library.nft_ctx_free.argtypes, library.nft_ctx_free.restype = [c_void_p], None
    library.nft_run_cmd_from_buffer.argtypes, library.nft_run_cmd_from_buffer.restype = [c_void_p, c_char_p], c_int
    library.nft_ctx_output_set_flags.argtypes = [c_void_p, c_uint]
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = [c_void_p]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes, getattr(library, name).restype = [c_void_p], c_char_p
    return library


def _error(words: str) -> OSError:
    """The complaint of nft: its first line, without ``Error:`` and the column marks below."""
    line = words.partition("\n")[0].rpartition("Error: ")[2].strip() or "nft gives no reason"
    number = next((number for said, number in _ERRNOS.items() if said in line), errno.EINVAL)
    return OSError(number, f"nftables: {line}")
