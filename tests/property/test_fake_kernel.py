"""The fake kernel and the real one agree about files, whatever is done to them in whatever order."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pycore.linux.kernel import Kernel
from pycore.testing.fake import FakeKernel

PATHS = st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map("/".join)
CONTENTS = st.sampled_from(["", "x", "y\n"])

ACTS: dict[str, list[st.SearchStrategy[Any]]] = {
    "mkdir": [PATHS],
    "create": [PATHS, CONTENTS],
    "replace": [PATHS, CONTENTS],
    "unlink": [PATHS],
    "rmdir": [PATHS],
    "rmtree": [PATHS],
    "mkdir_like": [PATHS, PATHS],
    "read": [PATHS],
    "read_bytes": [PATHS],
    "exists": [PATHS],
    "is_dir": [PATHS],
    "listdir": [PATHS],
    "link_text": [PATHS],
}
LINKS = st.tuples(st.sampled_from(["a", "b/a", "../b", "nowhere", "."]), PATHS)


@st.composite
def acts(draw: st.DrawFn) -> tuple[str, list[Any]]:
    name = draw(st.sampled_from([*ACTS, "make_link"]))
    if name == "make_link":
        return name, list(draw(LINKS))
    return name, [draw(argument) for argument in ACTS[name]]


def outcome(act: Callable[..., Any], arguments: list[Any]) -> Any:
    try:
        return act(*arguments)
    except OSError as error:
        return type(error), error.errno


@given(st.lists(acts(), max_size=12))
def test_both_kernels_agree(sequence: list[tuple[str, list[Any]]]) -> None:
    base = Path(tempfile.mkdtemp(prefix="pycore-fake-"))
    try:
        real, fake = Kernel(), FakeKernel({f"{base}/": ""})
        for name, arguments in sequence:
            where = slice(1, None) if name == "make_link" else slice(0, 2 if name == "mkdir_like" else 1)
            paths = list(arguments)
            paths[where] = [f"{base}/{path}" for path in arguments[where]]
            assert outcome(getattr(fake, name), paths) == outcome(getattr(real, name), paths), (name, paths)
        assert tree(base, real) == tree(base, fake)
    finally:
        shutil.rmtree(base)


def tree(base: Path, kernel: Kernel) -> dict[str, Any]:
    """All that is below a directory, as a kernel sees it."""
    found: dict[str, Any] = {}
    waiting = [str(base)]
    while waiting:
        path = waiting.pop()
        link = kernel.link_text(path)
        if link:
            found[path] = link
        elif kernel.is_dir(path):
            found[path] = names = kernel.listdir(path)
            waiting += [os.path.join(path, name) for name in names]
        else:
            found[path] = kernel.read(path)
    return found
